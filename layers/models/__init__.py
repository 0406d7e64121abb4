"""Nets by name, for the command line, benchmarks and tests: built from an image's shape and a number of classes."""

from collections.abc import Callable

from ..base import Layer
from .lenet import lenet, lenet5
from .mlp import mlp

BUILDERS: dict[str, Callable[..., Layer]] = {"lenet": lenet, "lenet5": lenet5, "mlp": mlp}

__all__ = ["BUILDERS", "lenet", "lenet5", "mlp"]
