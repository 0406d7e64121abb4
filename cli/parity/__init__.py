"""Prove that a backend computes what another one does: a row for each case, and a verdict."""

from .command import configure, run

__all__ = ["configure", "run"]
