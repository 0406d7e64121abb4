"""The folder of a run: checked before training, changed with the first checkpoint.

With the first checkpoint (`RunCheckpoints.begin`) ``config.toml`` is written and the files of a former run are deleted.
So a call that is refused, or ends before it has trained anything, changes nothing in the folder.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import partial_of, write_whole
from ..training.checkpoints import Checkpoints
from ..training.saved_net.weights import CHECKPOINTS, CONFIG, MODEL, NET
from .errors import UsageError
from .output_files import make_and_delete

HISTORY, METRICS = "history.csv", "metrics.json"
CURVES, CONFUSION, FILTERS, ACTIVATIONS = "curves.png", "confusion.png", "filters.png", "activations.png"
# All files of a run but its configuration and checkpoints; a new run in the same folder deletes only these.
RESULTS = (MODEL, HISTORY, METRICS, CURVES, CONFUSION, FILTERS, ACTIVATIONS)
_LOCK, _PROBE = ".lock", ".writable"


class RunFolder:
    """A run's folder; it remembers which folders were made for it."""

    def __init__(self, path: Path, is_resumed: bool = False) -> None:
        self.path = path
        self._is_resumed = is_resumed
        self._made: list[Path] = []

    def make(self) -> None:
        """Make the folder and missing folders above it; `OSError` if that is not possible."""
        missing = [self.path]
        while not missing[-1].exists() and missing[-1].parent != missing[-1]:
            missing.append(missing[-1].parent)
        self._made = [path for path in reversed(missing) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            make_and_delete(self.path / _PROBE)
        except OSError as error:
            self.discard()
            raise UsageError(f"--out {self.path}: no file can be made there ({error.strerror})") from error

    def discard(self, checkpoints: bool = False) -> None:
        """Remove the folders that `make` made if they are empty.

        With ``checkpoints`` the folder of checkpoints too; the caller must hold its lock.
        """
        folder = self.path / CHECKPOINTS
        if checkpoints and not self._is_resumed:
            with suppress(OSError):
                if names_in(folder) <= {_LOCK}:
                    (folder / _LOCK).unlink(missing_ok=True)
                    folder.rmdir()
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir()


def new_run(out: str | None, stem: str, force: bool) -> RunFolder:
    """The folder of a new run: ``out`` if it is given, else the next free one in ``runs/``."""
    if out is None:
        for i in range(1, sys.maxsize):
            folder = RunFolder(Path("runs") / f"{stem}-{i}")
            if not os.path.lexists(folder.path):
                folder.make()
                return folder
    folder = RunFolder(Path(str(out)))
    path = folder.path
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file; name a folder")
    if path.is_dir() and not is_unused(path) and not force:
        resume = f", --resume {path} to go on with the run there" if (path / CONFIG).is_file() else ""
        raise UsageError(f"--out {path} is not empty; name another folder{resume} or add --force to write into it")
    folder.make()
    return folder


def is_unused(folder: Path) -> bool:
    """Whether a folder is empty, or was left by a run that was killed before its first checkpoint."""
    entries = names_in(folder) - {_PROBE, partial_of(folder / CONFIG).name}
    return not entries or (entries == {CHECKPOINTS} and names_in(folder / CHECKPOINTS) <= {_LOCK})


def names_in(folder: Path) -> set[str]:
    """Names of everything in a folder."""
    return {path.name for path in folder.iterdir()}


def existing_run(name: str) -> Path:
    """The folder of a run, which must have a configuration."""
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"--resume {folder}: there is no {CONFIG}; name a folder that xpnn train wrote")
    return folder


def resumable_run(name: str) -> RunFolder:
    """The folder of a run that can be resumed.

    Raises
    ------
    UsageError
        If the run has results but no checkpoint, or no file can be made in the folder.
    """
    folder = existing_run(name)
    checkpoints = folder / CHECKPOINTS
    has_some = checkpoints.is_dir() and any(path.name.startswith("step-") for path in checkpoints.iterdir())
    if not has_some and (not checkpoints.is_dir() or any((folder / each).exists() for each in RESULTS)):
        raise UsageError(
            f"--resume {folder}: there is no checkpoint in {checkpoints}; start again with: "
            f"xpnn train --config {folder / CONFIG} --out NEW_FOLDER"
        )
    try:
        make_and_delete(folder / _PROBE)
    except OSError as error:
        raise UsageError(f"--resume {folder}: no file can be made there ({error.strerror})") from error
    return RunFolder(folder, is_resumed=True)


class RunCheckpoints(Checkpoints):
    """The checkpoints of a run; the first one replaces a former run in the folder by this one.

    Parameters
    ----------
    folder : Path
        Of the run.
    config : str
        Text of its ``config.toml``.
    resume : bool
        Continue with the checkpoints in the folder, instead of deleting them before the first one is written.
    keep, every, about
        As in `Checkpoints`.
    net : bytes, optional
        Content of the ONNX file with which the run begins.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        resume: bool,
        keep: int,
        every: int | None,
        about: dict[str, str],
        net: bytes | None = None,
    ) -> None:
        super().__init__(folder / CHECKPOINTS, keep, every, about)
        self._run, self._config, self._resume, self._net = folder, config, resume, net
        self.is_begun = False

    def begin(self) -> None:
        """Delete the files of a former run and write the configuration; a second call does nothing."""
        if self.is_begun:
            return
        if not self._resume:
            self.clear()
            # In a folder that is not a run's, files of these names are replaced only when there is a new one.
            if (self._run / CONFIG).is_file():
                for name in RESULTS:
                    (self._run / name).unlink(missing_ok=True)
        # Left by a run that was killed while it checked whether files can be made.
        (self._run / _PROBE).unlink(missing_ok=True)
        if self._net is not None:
            write_whole(self._run / NET, self._net)
        elif not self._resume and (self._run / CONFIG).is_file():
            (self._run / NET).unlink(missing_ok=True)
        write_whole(self._run / CONFIG, self._config)
        self.is_begun = True

    def steps(self) -> list[int]:
        """The steps at which this run wrote a checkpoint."""
        return super().steps() if self._resume or self.is_begun else []

    def write(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        facts: Mapping[str, Any],
        score: float | None = None,
    ) -> Path:
        """Add a checkpoint; before the first one `begin`."""
        self.begin()
        return super().write(step, arrays, facts, score)
