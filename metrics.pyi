# For type checkers: what `import xpnn.metrics` gives by way of __init__.py.
from .training.metrics import *
