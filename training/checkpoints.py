"""Checkpoints of a run in a folder: each whole or not there, each known to be good before it is used.

A checkpoint is two files. ``step-00000120.json`` holds all that is no array, the name and SHA-256 of a safetensors file
with the arrays and, as ``checksum``, its own. It is written after the other is on the disk, and both are renamed into
place, so a checkpoint exists from the moment at which its JSON file does. Older ones go only after that. Whatever stops
a program, and whenever, the last good checkpoint stays.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from ..common import checks
from ..common.checks import is_integer, is_number
from ..common.files import leftovers, read_bytes, write_whole
from ..interop.safetensors import packed, unpacked

FORMAT = 2
DAMAGED = ".damaged"
# The history of a million epochs.
_MOST_BYTES = 1 << 28
_ARRAYS = re.compile(r"step-\d+-[0-9a-f]{8}\.safetensors")
# Names of files that this module makes, and may delete.
_OURS = re.compile(r"step-\d+(\.json(\.damaged)?|-[0-9a-f]{8}\.safetensors)")


class CheckpointError(Exception):
    """A checkpoint that can't be written, found or used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read and found good.

    Attributes
    ----------
    path : Path
        Its JSON file.
    step : int
        Steps taken until then.
    arrays : dict of str to numpy array
    facts : dict
        All that is no array.
    """

    path: Path
    step: int
    arrays: dict[str, np.ndarray[Any, Any]]
    facts: dict[str, Any]

    @property
    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """The model's parameters and buffers by full name, as `Layer.load_state_dict` accepts them."""
        prefix = "model/"
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}


class Checkpoints:
    """The checkpoints of one run; as a context manager it keeps other runs out of the folder.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    keep : int
        The newest so many are kept, and the best beside them; at least 1.
    every : int, optional
        Steps from one to the next; without it there is one after each epoch, and with it there too.
    about : mapping of str to str, optional
        What a run must have in common with its checkpoints to go on from them, such as the fingerprint of its data.

    Raises
    ------
    TypeError, ValueError
        For a folder that is no path, ``keep`` or ``every`` below 1.
    CheckpointError
        On entering, where another run is using the folder.

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
        # Name of the arrays' file that this object wrote last.
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
        for path in leftovers(self.folder):
            path.unlink(missing_ok=True)
        return self

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, the newest last."""
        names = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def clear(self) -> None:
        """Delete all checkpoints."""
        for path in sorted(self.folder.glob("step-*"), key=lambda path: path.suffix == ".safetensors"):
            if _OURS.fullmatch(path.name):
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
            Steps taken so far; a checkpoint of that step is replaced.
        arrays, facts : mapping
            What to keep: arrays by name, and anything JSON can hold.
        score : float, optional
            How good the model is then; the higher the better.

        Raises
        ------
        CheckpointError
            Where it can't be written, as on a full disk; those that were there are there still.
        """
        path = self._path(step)
        content = packed(arrays, {"step": step})
        digest = _digest(content)
        # Named by its content: it never takes the place of arrays that another JSON file, of the same step, speaks of.
        tensors = path.with_name(f"{path.stem}-{digest[:8]}.safetensors")
        told: dict[str, Any] = {
            "format": FORMAT,
            "step": step,
            "score": score,
            "arrays": tensors.name,
            "sha256": digest,
        }
        told["facts"] = dict(facts)
        told["checksum"] = _digest(_canonical(told))
        try:
            if tensors != self._written or not tensors.exists():
                write_whole(tensors, content)
                self._written = tensors
            write_whole(path, json.dumps(told, indent=1) + "\n")
        except OSError as error:
            last = self.steps()
            there = f"the one of step {last[-1]} is still good" if last else "there is none yet"
            raise CheckpointError(
                f"no checkpoint of step {step} could be written to {self.folder} ({error}); {there}; free some space, "
                "then resume"
            ) from error
        self._delete_old()
        return path

    def read(self, step: int) -> Checkpoint:
        """The checkpoint of a step, after checking every byte of it.

        Raises
        ------
        CheckpointError
            If it is damaged, or of a format that this version does not know.
        """
        path = self._path(checks.integer("step", step, 0))
        steps = self.steps()
        if steps and step not in steps:
            raise CheckpointError(
                f"there is no checkpoint of step {step} in {self.folder}; there are those of "
                f"{', '.join(map(str, steps))}"
            )
        told = self._told(path)
        tensors = path.with_name(told["arrays"])
        try:
            content = read_bytes(tensors)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{tensors} can't be read ({error})") from error
        if _digest(content) != told["sha256"]:
            raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one that {path.name} names")
        try:
            arrays, _ = unpacked(content, str(tensors))
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        return Checkpoint(path, step, arrays, told["facts"])

    def newest(self, note: Callable[[str], None] = lambda text: None, put_aside: bool = True) -> Checkpoint | None:
        """The newest good checkpoint, or None where there is none at all.

        Those that are damaged are told to ``note`` and put aside, with ``.damaged`` added to their names, so that they
        don't count among those that are kept. With ``put_aside=False`` nothing in the folder is changed.

        Raises
        ------
        CheckpointError
            If there are some and none is good.
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
                path = self._path(damaged)
                if put_aside:
                    path.replace(path.with_name(path.name + DAMAGED))
            return found
        if problems:
            told = "; ".join(map(str, problems.values()))
            raise CheckpointError(f"none of the checkpoints in {self.folder} is good: {told}")
        return None

    def best(self) -> Checkpoint | None:
        """The checkpoint of the best epoch, or None where no epoch was finished; nothing in the folder is changed.

        Which epoch is best is said by the metric of `fit`'s early stopping, or else by the validation loss, or without
        validation by the training loss; of equally good epochs it is the first. A checkpoint that was written within an
        epoch is never the best.

        Raises
        ------
        CheckpointError
            If it is damaged; the next best one is not taken in its place.
        """
        best = self._best(self.steps())
        return None if best is None else self.read(best)

    def _best(self, steps: Iterable[int]) -> int | None:
        """The step of the highest score, the earlier of two that are as good."""
        scores: dict[int, float] = {}
        for step in steps:
            try:
                score = self._told(self._path(step))["score"]
            except CheckpointError:
                continue
            if score is not None and not isnan(score):
                scores[step] = score
        return max(scores, key=lambda step: (scores[step], -step)) if scores else None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.json"

    def _told(self, path: Path) -> dict[str, Any]:
        """What a checkpoint's JSON file says, its checksum being right."""
        try:
            told = json.loads(read_bytes(path, _MOST_BYTES))
            checksum, right = told.pop("checksum"), _digest(_canonical(told))
        except FileNotFoundError as error:
            raise CheckpointError(f"there is no checkpoint {str(error).removeprefix('no file ')}") from None
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error})") from error
        if checksum != right:
            raise CheckpointError(f"{path} is damaged: its checksum is not right")
        if told.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is of format {told.get('format')!r}; this version reads {FORMAT}: use the one that wrote it"
            )
        missing = [name for name in ("score", "arrays", "sha256", "facts") if name not in told]
        if missing:
            raise CheckpointError(f"{path} is damaged: it has no {', '.join(missing)}")
        wrong = [
            name
            for name, right in (
                ("step", is_integer(told.get("step")) and told["step"] == _step(path)),
                ("score", told["score"] is None or is_number(told["score"])),
                # Of this folder alone, whatever the file says.
                ("arrays", isinstance(told["arrays"], str) and _ARRAYS.fullmatch(told["arrays"])),
                ("sha256", isinstance(told["sha256"], str)),
                ("facts", isinstance(told["facts"], dict)),
            )
            if not right
        ]
        if wrong:
            raise CheckpointError(f"{path} is damaged: its {', '.join(wrong)} can't be right")
        return dict(told)

    def _delete_old(self) -> None:
        """Keep the newest, and the best; JSON files go first, so that none stands there without its arrays."""
        steps = self.steps()
        kept = {*steps[-self.keep :], self._best(steps)}
        for step in steps:
            if step not in kept:
                self._path(step).unlink(missing_ok=True)
        spoken_of = {path.name.partition(".")[0] for path in self.folder.glob("step-*.json*")}
        for tensors in self.folder.glob("step-*.safetensors"):
            if _OURS.fullmatch(tensors.name) and tensors.stem.rpartition("-")[0] not in spoken_of:
                tensors.unlink(missing_ok=True)


def _step(path: Path) -> int:
    """The step of a checkpoint's JSON file, by its name."""
    return int(path.stem.removeprefix("step-"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True).encode()
