# For type checkers: what `import xpnn.geometry` gives by way of __init__.py.
from .layers.geometry import *
