"""Show the output of each layer of a trained net for one sample, and the class that it predicts."""

from .command import configure, run

__all__ = ["configure", "run"]
