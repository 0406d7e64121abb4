"""Train a net on images, by default on real handwritten digits, and write the result into a folder."""

from .command import run
from .options import configure, expand

__all__ = ["configure", "expand", "run"]
