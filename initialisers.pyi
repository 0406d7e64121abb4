# For type checkers: what `import xpnn.initialisers` gives by way of __init__.py.
from .layers.initialisers import *
