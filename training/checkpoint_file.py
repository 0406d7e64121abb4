"""The files of one checkpoint: encoding, and reading with checks of every byte.

A checkpoint has two files. ``step-00000120.json`` has all values except arrays, the name and SHA-256 of a safetensors
file with the arrays and, as ``checksum``, its own SHA-256. `xpnn.training.checkpoints` decides which ones are kept.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.checks import is_integer, is_number
from ..common.files import read_bytes
from ..interop.safetensors import from_bytes, to_bytes

FORMAT = 2
# Enough for the history of a million epochs.
_LARGEST_JSON = 1 << 28
_ARRAYS = re.compile(r"step-\d+-[0-9a-f]{8}\.safetensors")
# Names of the files of checkpoints, which may be deleted.
_FILES = re.compile(r"step-\d+(\.json(\.damaged)?|-[0-9a-f]{8}\.safetensors)")


class CheckpointError(Exception):
    """A checkpoint can't be written, found or used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint that has been read and verified.

    Attributes
    ----------
    path : Path
        Its JSON file.
    step : int
        The number of steps before it.
    arrays : dict of str to numpy array
    facts : dict
        All values that are not arrays.
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


def json_path(folder: Path, step: int) -> Path:
    """The JSON file of the checkpoint of a step."""
    return folder / f"step-{step:08}.json"


def is_checkpoint_file(path: Path) -> bool:
    """Whether the name of a file is that of a checkpoint's file."""
    return _FILES.fullmatch(path.name) is not None


def encode(
    path: Path, step: int, arrays: Mapping[str, np.ndarray[Any, Any]], facts: Mapping[str, Any], score: float | None
) -> tuple[Path, bytes, str]:
    """Path and content of the file of arrays, and content of the JSON file ``path``."""
    content = to_bytes(arrays, {"step": step})
    digest = digest_of(content)
    # The name contains the digest, so the file never replaces other arrays that an older JSON file of this step names.
    tensors = path.with_name(f"{path.stem}-{digest[:8]}.safetensors")
    entries: dict[str, Any] = {
        "format": FORMAT,
        "step": step,
        "score": score,
        "arrays": tensors.name,
        "sha256": digest,
    }
    entries["facts"] = dict(facts)
    entries["checksum"] = digest_of(canonical(entries))
    return tensors, content, json.dumps(entries, indent=1) + "\n"


def read_checkpoint(path: Path, step: int) -> Checkpoint:
    """Read the checkpoint of a JSON file; `CheckpointError` if a byte of it is wrong."""
    entries = read_entries(path)
    tensors = path.with_name(entries["arrays"])
    try:
        content = read_bytes(tensors)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{tensors} can't be read ({error})") from error
    if digest_of(content) != entries["sha256"]:
        raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one that {path.name} names")
    try:
        arrays, _ = from_bytes(content, str(tensors))
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return Checkpoint(path, step, arrays, entries["facts"])


def read_entries(path: Path) -> dict[str, Any]:
    """The entries of a JSON file whose checksum, format and types are right; `CheckpointError` otherwise."""
    try:
        entries = json.loads(read_bytes(path, _LARGEST_JSON))
        checksum, expected = entries.pop("checksum"), digest_of(canonical(entries))
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {str(error).removeprefix('no file ')}") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if checksum != expected:
        raise CheckpointError(f"{path} is damaged: its checksum is not right")
    if entries.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is of format {entries.get('format')!r}; this version reads {FORMAT}: use the one that wrote it"
        )
    missing = [name for name in ("score", "arrays", "sha256", "facts") if name not in entries]
    if missing:
        raise CheckpointError(f"{path} is damaged: it has no {', '.join(missing)}")
    wrong = [
        name
        for name, right in (
            ("step", is_integer(entries.get("step")) and entries["step"] == _step_of(path)),
            ("score", entries["score"] is None or is_number(entries["score"])),
            # Only a file in the same folder.
            ("arrays", isinstance(entries["arrays"], str) and _ARRAYS.fullmatch(entries["arrays"])),
            ("sha256", isinstance(entries["sha256"], str)),
            ("facts", isinstance(entries["facts"], dict)),
        )
        if not right
    ]
    if wrong:
        raise CheckpointError(f"{path} is damaged: its {', '.join(wrong)} can't be right")
    return dict(entries)


def _step_of(path: Path) -> int:
    """The step in the name of a JSON file."""
    return int(path.stem.removeprefix("step-"))


def digest_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def canonical(entries: Mapping[str, Any]) -> bytes:
    """The bytes of which the checksum of a JSON file is computed."""
    return json.dumps(entries, sort_keys=True).encode()
