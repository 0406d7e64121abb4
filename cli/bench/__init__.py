"""Time layers and nets beside PyTorch's, or exact numerics beside fast, in turn and in one process."""

from .command import configure, run

__all__ = ["configure", "run"]
