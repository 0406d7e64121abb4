"""Random numbers that are the same bits on every backend."""

from .generator import Generator

__all__ = ["Generator"]
