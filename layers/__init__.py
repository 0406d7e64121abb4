"""What is computed: pure functions with their gradients, and the layers that stand on them."""

from . import functional, geometry, initialisers, models

__all__ = ["functional", "geometry", "initialisers", "models"]
