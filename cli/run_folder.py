"""The folder of a run: refused before anything is trained, changed only when there is something to keep.

Options and checks come first. The folder becomes the run's with its first checkpoint (`RunCheckpoints.begin`): only
then is ``config.toml`` written, and what a former run left there deleted. So a call that is refused, or ends before it
has trained anything, leaves what it found.
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
from .config import CONFIG
from .errors import UsageError
from .standalone.process import require_writable
from .targets import touched

MODEL, HISTORY, METRICS = "model.safetensors", "history.csv", "metrics.json"
CURVES, CONFUSION, FILTERS, ACTIVATIONS = "curves.png", "confusion.png", "filters.png", "activations.png"
CHECKPOINTS = "checkpoints"
# What a run leaves beside its configuration and its checkpoints; a new run in its folder deletes these and no more.
RESULTS = (MODEL, HISTORY, METRICS, CURVES, CONFUSION, FILTERS, ACTIVATIONS)
_LOCK, _PROBE = ".lock", ".writable"


class RunFolder:
    """A run's folder, and the folders that had to be made for it."""

    def __init__(self, path: Path, is_resumed: bool = False) -> None:
        self.path = path
        self._is_resumed = is_resumed
        self._made: list[Path] = []

    def make(self) -> None:
        """Make the folder and those above it that are missing; `OSError` where that is not possible."""
        missing = [self.path]
        while not missing[-1].exists() and missing[-1].parent != missing[-1]:
            missing.append(missing[-1].parent)
        self._made = [path for path in reversed(missing) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            touched(self.path / _PROBE)
        except OSError as error:
            self.discard()
            raise UsageError(f"--out {self.path}: no file can be made there ({error.strerror})") from error

    def discard(self, checkpoints: bool = False) -> None:
        """Remove the folders that were made, if nothing was written into them.

        With ``checkpoints`` that of the checkpoints too, for who holds its lock.
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


def new(out: str | None, stem: str, force: bool) -> RunFolder:
    """A folder to write a new run into: the one that was named, or the next free one in ``runs/``."""
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
    """Names of all that is in a folder."""
    return {path.name for path in folder.iterdir()}


def begun(name: str) -> Path:
    """The folder of a run that was begun."""
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"--resume {folder}: there is no {CONFIG}; name a folder that xpnn train wrote")
    return folder


def resumed(name: str) -> RunFolder:
    """The folder of a run that can go on.

    Raises
    ------
    UsageError
        Where no checkpoint is left of a run that had some.
    """
    folder = begun(name)
    checkpoints = folder / CHECKPOINTS
    left = checkpoints.is_dir() and any(path.name.startswith("step-") for path in checkpoints.iterdir())
    if not left and (not checkpoints.is_dir() or any((folder / each).exists() for each in RESULTS)):
        raise UsageError(
            f"--resume {folder}: there is no checkpoint in {checkpoints}; begin anew with: "
            f"xpnn train --config {folder / CONFIG} --out NEW_FOLDER"
        )
    try:
        touched(folder / _PROBE)
    except OSError as error:
        raise UsageError(f"--resume {folder}: no file can be made there ({error.strerror})") from error
    return RunFolder(folder, is_resumed=True)


def check_resumable(folder: Path, resume: bool) -> None:
    """Whether a training script can begin in a folder, or go on there; checkpoints are in ``checkpoints/``.

    Raises
    ------
    UsageError
        Where there are checkpoints and it would begin anew, or none and it would go on.
    OSError
        Where no file can be made there.
    """
    checkpoints = folder / CHECKPOINTS
    steps = Checkpoints(checkpoints).steps()
    if resume and not steps:
        raise UsageError(f"--resume: there is no checkpoint in {checkpoints}; leave out --resume to begin anew")
    if steps and not resume:
        raise UsageError(f"--out {folder}: there are checkpoints of a run; add --resume or name another folder")
    require_writable(folder)


class RunCheckpoints(Checkpoints):
    """The checkpoints of a run in its folder, which becomes the run's with the first of them.

    Parameters
    ----------
    folder : Path
        Of the run.
    config : str
        What its ``config.toml`` will say.
    resume : bool
        Whether the run goes on with what is there; else that is deleted when the first checkpoint is written.
    keep, every, about
        As of `Checkpoints`.
    """

    def __init__(
        self, folder: Path, config: str, resume: bool, keep: int, every: int | None, about: dict[str, str]
    ) -> None:
        super().__init__(folder / CHECKPOINTS, keep, every, about)
        self._run, self._config, self._resume = folder, config, resume
        self.is_begun = False

    def begin(self) -> None:
        """Make the folder this run's: delete what a former run left, write the configuration. Once."""
        if self.is_begun:
            return
        if not self._resume:
            self.clear()
            # Files of these names in a folder of something else are replaced when there is something to replace them.
            if (self._run / CONFIG).is_file():
                for name in RESULTS:
                    (self._run / name).unlink(missing_ok=True)
        # Left by a run that was killed while it looked whether files can be made.
        (self._run / _PROBE).unlink(missing_ok=True)
        write_whole(self._run / CONFIG, self._config)
        self.is_begun = True

    def steps(self) -> list[int]:
        """Steps of which this run has a checkpoint."""
        return super().steps() if self._resume or self.is_begun else []

    def write(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        facts: Mapping[str, Any],
        score: float | None = None,
    ) -> Path:
        """Add a checkpoint; the first makes the folder this run's."""
        self.begin()
        return super().write(step, arrays, facts, score)
