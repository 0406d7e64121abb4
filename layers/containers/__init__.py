"""Layers that consist of layers."""

from .checkpointed import Checkpointed
from .container import Container
from .identity import Identity
from .parallel import Parallel
from .per_input import PerInput
from .residual import Residual
from .sequential import Sequential

__all__ = ["Checkpointed", "Container", "Identity", "Parallel", "PerInput", "Residual", "Sequential"]
