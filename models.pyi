# For type checkers: what `import xpnn.models` gives by way of __init__.py.
from .layers.models import *
