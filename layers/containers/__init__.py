"""Layers that consist of layers."""

from .checkpointed import Checkpointed
from .container import Container
from .graph import Graph
from .identity import Identity
from .joins import Add, Concat, Multiply
from .parallel import Parallel
from .per_input import PerInput
from .residual import Residual
from .sequential import Sequential

__all__ = [
    "Add",
    "Checkpointed",
    "Concat",
    "Container",
    "Graph",
    "Identity",
    "Multiply",
    "Parallel",
    "PerInput",
    "Residual",
    "Sequential",
]
