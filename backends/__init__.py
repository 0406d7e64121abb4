"""Who computes: backends, their two doors, and random numbers that are the same on all of them."""

from .backend import Backend
from .compiled_step import CaptureError
from .errors import BackendUnavailable
from .random import Generator
from .registry import (
    BackendLike,
    ambient_backend,
    backend_of,
    get_backend,
    names,
    primitives,
    survey,
    to_host,
    use_backend,
)

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
    "primitives",
    "survey",
    "to_host",
    "use_backend",
]
