# For type checkers: what `import xpnn.augment` gives by way of __init__.py.
from .training.augment import *
