"""Which backends work on this machine."""

from dataclasses import dataclass

from .backend import Backend
from .errors import BackendUnavailable
from .registry import get_backend, names


@dataclass(frozen=True)
class Status:
    """The state of one backend on this machine: a row of ``xpnn info``."""

    name: str
    version: str
    device: str
    usable: bool
    note: str


def device_name(backend: Backend) -> str:
    """The device in a word: ``cpu``, ``cuda:0``, ``device1``."""
    return str(backend.device).replace("array_api_strict.Device", "").strip("()'<>").replace("CUDA Device ", "cuda:")


def survey() -> list[Status]:
    """Open every backend; a `Status` for each, with the reason if it does not work."""
    rows = []
    for name in names():
        for spec in (name, "torch:cuda:0") if name == "torch" else (name,):
            try:
                backend = get_backend(spec)
            except BackendUnavailable as error:
                rows.append(Status(spec, "", "", False, f"{error.cause}; {error.cure}"))
            else:
                rows.append(Status(spec, backend.version(), device_name(backend), True, backend.notes()))
    return rows
