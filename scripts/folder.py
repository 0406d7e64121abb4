"""The folder of a run: made before anything is trained, so that a bad one fails then and not hours later."""

import sys
from pathlib import Path

from ..training.checkpoints import Checkpoints
from .config import CONFIG
from .errors import UsageError

MODEL, HISTORY, METRICS = "model.safetensors", "history.csv", "metrics.json"
CURVES, CONFUSION, FILTERS, ACTIVATIONS = "curves.png", "confusion.png", "filters.png", "activations.png"
CHECKPOINTS = "checkpoints"


def new(out: str | None, stem: str, force: bool) -> Path:
    """A folder to write a new run into: the one that was named, or the next free one in ``runs/``."""
    if out is None:
        for i in range(1, sys.maxsize):
            folder = Path("runs") / f"{stem}-{i}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
    folder = Path(str(out))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        resume = f", --resume {folder} to go on with the run there" if (folder / CONFIG).is_file() else ""
        raise UsageError(f"--out {folder} is not empty; name another folder{resume} or add --force to write into it")
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()
    return folder


def begun(name: str) -> Path:
    """The folder of a run that was begun."""
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"--resume {folder}: there is no {CONFIG}; name a folder that xpnn train wrote")
    return folder


def checkpoints(folder: Path, keep: int, every: int | None) -> Checkpoints:
    """Where a run in this folder keeps its checkpoints."""
    return Checkpoints(folder / CHECKPOINTS, keep, every)
