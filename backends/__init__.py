"""Backends: which array library computes on which device, and random numbers that are the same on all of them."""

from .backend import Backend
from .errors import BackendUnavailable
from .lookup import backend_of, operations_of, to_host
from .random import Generator
from .recording.guards import CaptureError
from .registry import BackendLike, ambient_backend, get_backend, names, use_backend
from .status import survey

__all__ = [
    "Backend",
    "BackendLike",
    "BackendUnavailable",
    "CaptureError",
    "Generator",
    "ambient_backend",
    "backend_of",
    "get_backend",
    "names",
    "operations_of",
    "survey",
    "to_host",
    "use_backend",
]
