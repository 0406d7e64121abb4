# For type checkers: what `import xpnn.functional` gives by way of __init__.py.
from .layers.functional import *
