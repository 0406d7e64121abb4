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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout

from ..backends import checks
from ..interop.files import leftovers, write_whole
from ..interop.safetensors import packed, unpacked

FORMAT = 1
DAMAGED = ".damaged"
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
    ValueError
        For ``keep`` or ``every`` below 1.
    CheckpointError
        On entering, where another run is using the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int = 2,
        every: int | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.keep, self.every = checks.integer("keep", keep, 1), None
        if every is not None:
            self.every = checks.integer("every", every, 1)
        self.folder, self.about = Path(folder), dict(about or {})
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
            write_whole(tensors, content)
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
        path = self._path(step)
        told = self._told(path)
        tensors = path.with_name(told["arrays"])
        try:
            content = tensors.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{tensors} can't be read ({error})") from error
        if _digest(content) != told["sha256"]:
            raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one that {path.name} names")
        return Checkpoint(path, step, unpacked(content, str(tensors))[0], told["facts"])

    def newest(self, note: Callable[[str], None] = lambda text: None) -> Checkpoint | None:
        """The newest good checkpoint, or None where there is none at all.

        Those that are damaged are told to ``note`` and put aside, with ``.damaged`` added to their names, so that they
        don't count among those that are kept.

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
                path.replace(path.with_name(path.name + DAMAGED))
            return found
        if problems:
            told = "; ".join(map(str, problems.values()))
            raise CheckpointError(f"none of the checkpoints in {self.folder} is good: {told}")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.json"

    def _told(self, path: Path) -> dict[str, Any]:
        """What a checkpoint's JSON file says, its checksum being right."""
        try:
            told = json.loads(path.read_bytes())
            checksum = told.pop("checksum")
        except FileNotFoundError:
            raise CheckpointError(f"there is no checkpoint {path}") from None
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error})") from error
        if checksum != _digest(_canonical(told)):
            raise CheckpointError(f"{path} is damaged: its checksum is not right")
        if told.get("format") != FORMAT:
            raise CheckpointError(
                f"{path} is of format {told.get('format')!r}; this version reads {FORMAT}: use the one that wrote it"
            )
        return dict(told)

    def _delete_old(self) -> None:
        """Keep the newest, and the best; JSON files go first, so that none stands there without its arrays."""
        steps = self.steps()
        kept = set(steps[-self.keep :])
        scores = {}
        for step in steps:
            try:
                score = self._told(self._path(step))["score"]
            except CheckpointError:
                continue
            if score is not None:
                scores[step] = score
        if scores:
            # The earlier of two that are as good.
            kept.add(max(scores, key=lambda step: (scores[step], -step)))
        for step in steps:
            if step not in kept:
                self._path(step).unlink(missing_ok=True)
        spoken_of = {path.name.partition(".")[0] for path in self.folder.glob("step-*.json*")}
        for tensors in self.folder.glob("step-*.safetensors"):
            if _OURS.fullmatch(tensors.name) and tensors.stem.rpartition("-")[0] not in spoken_of:
                tensors.unlink(missing_ok=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True).encode()
