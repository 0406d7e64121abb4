"""The checkpoints of a run in a folder: which are kept, which is the newest good one and which the best.

The JSON file of a checkpoint is written after its file of arrays is on the disk, and both are renamed into place, so a
checkpoint exists as soon as its JSON file does. Older ones are deleted only after that. The last good checkpoint
therefore survives whenever and however a program is stopped.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from ..common import checks
from ..common.files import partial_files, write_whole
from .checkpoint_file import (
    Checkpoint,
    CheckpointError,
    encode,
    is_checkpoint_file,
    json_path,
    read_checkpoint,
    read_entries,
)

DAMAGED = ".damaged"


class Checkpoints:
    """The checkpoints of one run; as a context manager it locks the folder against other runs.

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    keep : int
        How many of the newest checkpoints to keep, and the best one in addition; at least 1.
    every : int, optional
        Number of steps between checkpoints, in addition to one after each epoch.
    about : mapping of str to str, optional
        Facts that a run must have in common with its checkpoints to continue from them, such as the fingerprint of its
        data.

    Raises
    ------
    TypeError, ValueError
        For a folder that is no path, and for ``keep`` or ``every`` below 1.
    CheckpointError
        On entering, if another run is using the folder.

    Examples
    --------
    Weights of the best epoch of a run in a folder, and those after step 1200::

        checkpoints = nn.Checkpoints("run/checkpoints")
        model.load_state_dict(checkpoints.best().weights)
        model.load_state_dict(checkpoints.read(1200).weights)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int = 2,
        every: int | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(checks.path("folder", folder))
        self.about = {} if about is None else dict(checks.mapping("about", about, "name each fact, as in a dict"))
        self.keep = checks.integer("keep", keep, 1)
        self.every = None if every is None else checks.integer("every", every, 1)
        # The file of arrays that this object wrote last.
        self._written: Path | None = None
        self._lock = FileLock(self.folder / ".lock")

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"another run is writing to {self.folder}; wait until it ends, or name another folder"
            ) from None
        except OSError as error:
            raise CheckpointError(f"{self.folder} can't hold checkpoints ({error}); name another folder") from error
        for path in partial_files(self.folder):
            path.unlink(missing_ok=True)
        return self

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in increasing order."""
        names = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def clear(self) -> None:
        """Delete all checkpoints."""
        for path in sorted(self.folder.glob("step-*"), key=lambda path: path.suffix == ".safetensors"):
            if is_checkpoint_file(path):
                path.unlink(missing_ok=True)

    def write(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        facts: Mapping[str, Any],
        score: float | None = None,
    ) -> Path:
        """Add a checkpoint, then delete those that are no longer kept; returns its JSON file.

        Parameters
        ----------
        step : int
            Steps so far; an existing checkpoint of this step is replaced.
        arrays, facts : mapping
            What to save: arrays by name, and values that JSON can hold.
        score : float, optional
            How good the model is; higher is better.

        Raises
        ------
        CheckpointError
            If it can't be written, as on a full disk; earlier checkpoints are unchanged.
        """
        path = json_path(self.folder, step)
        tensors, content, text = encode(path, step, arrays, facts, score)
        try:
            if tensors != self._written or not tensors.exists():
                write_whole(tensors, content)
                self._written = tensors
            write_whole(path, text)
        except OSError as error:
            last = self.steps()
            remaining = f"the one of step {last[-1]} is still good" if last else "there is none yet"
            raise CheckpointError(
                f"no checkpoint of step {step} could be written to {self.folder} ({error}); {remaining}; free some "
                "space, then resume"
            ) from error
        self._delete_old()
        return path

    def read(self, step: int) -> Checkpoint:
        """The checkpoint of a step, verified byte by byte.

        Raises
        ------
        CheckpointError
            If there is none, it is damaged, or its format is not supported by this version.
        """
        path = json_path(self.folder, checks.integer("step", step, 0))
        steps = self.steps()
        if steps and step not in steps:
            raise CheckpointError(
                f"there is no checkpoint of step {step} in {self.folder}; there are those of "
                f"{', '.join(map(str, steps))}"
            )
        return read_checkpoint(path, step)

    def newest(self, note: Callable[[str], None] = lambda text: None, put_aside: bool = True) -> Checkpoint | None:
        """The newest good checkpoint, or None if there is none at all.

        Damaged ones that are newer are reported to ``note`` and renamed, with ``.damaged`` added to their names, so
        that they don't count among those that are kept. With ``put_aside=False`` nothing in the folder is changed.

        Raises
        ------
        CheckpointError
            If there are checkpoints and all are damaged.
        """
        problems: dict[int, CheckpointError] = {}
        for step in reversed(self.steps()):
            try:
                found = self.read(step)
            except CheckpointError as error:
                problems[step] = error
                continue
            for damaged, problem in problems.items():
                note(f"{problem}; going back to step {step}")
                path = json_path(self.folder, damaged)
                if put_aside:
                    path.replace(path.with_name(path.name + DAMAGED))
            return found
        if problems:
            reasons = "; ".join(map(str, problems.values()))
            raise CheckpointError(f"none of the checkpoints in {self.folder} is good: {reasons}")
        return None

    def best(self) -> Checkpoint | None:
        """The checkpoint of the best epoch, or None if no epoch was finished; nothing in the folder is changed.

        The best epoch is that of the metric of `fit`'s early stopping, or else of the validation loss, or without
        validation of the training loss; of equally good epochs it is the first. A checkpoint that was written within an
        epoch is never the best.

        Raises
        ------
        CheckpointError
            If it is damaged; the next best one is not used instead.
        """
        best = self._best_step(self.steps())
        return None if best is None else self.read(best)

    def _best_step(self, steps: Iterable[int]) -> int | None:
        """The step of the highest score, the first of equal ones."""
        scores: dict[int, float] = {}
        for step in steps:
            try:
                score = read_entries(json_path(self.folder, step))["score"]
            except CheckpointError:
                continue
            if score is not None and not isnan(score):
                scores[step] = score
        return max(scores, key=lambda step: (scores[step], -step)) if scores else None

    def _delete_old(self) -> None:
        """Keep the newest and the best; JSON files are deleted first, so that none remains without its arrays."""
        steps = self.steps()
        kept = {*steps[-self.keep :], self._best_step(steps)}
        for step in steps:
            if step not in kept:
                json_path(self.folder, step).unlink(missing_ok=True)
        with_json = {path.name.partition(".")[0] for path in self.folder.glob("step-*.json*")}
        for tensors in self.folder.glob("step-*.safetensors"):
            if is_checkpoint_file(tensors) and tensors.stem.rpartition("-")[0] not in with_json:
                tensors.unlink(missing_ok=True)
