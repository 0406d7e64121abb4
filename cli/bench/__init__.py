"""Time layers and nets beside PyTorch's, or exact numerics beside fast, in turn and in one process."""

from .command import configure, run
from .machine import describe_machine
from .measure import interleave
from .numerics import count_operations, measure_numerics

__all__ = ["configure", "count_operations", "describe_machine", "interleave", "measure_numerics", "run"]
