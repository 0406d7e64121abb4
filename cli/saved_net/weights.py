"""The weights in the folder of a run: those that it ended with, or those of one of its checkpoints."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ...common.files import file_size
from ...interop import safetensors
from ...training.augment import Normalise
from ...training.checkpoint_file import Checkpoint, CheckpointError
from ...training.checkpoints import Checkpoints
from ...training.datasets import load_dataset
from .. import config_file
from ..errors import UsageError
from ..run_folder import CHECKPOINTS, MODEL
from .description import describe

HostArray = np.ndarray[Any, Any]


def checkpoint_name(text: str) -> str | int:
    """An argument that is ``best``, ``last`` or a step."""
    if text in ("best", "last"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be best, last or a step that has a checkpoint, got {text!r}")


def read_weights(folder: Path, which: str | int | None) -> tuple[dict[str, HostArray], dict[str, Any], str]:
    """Weights by name, the description of their net, and the path of their file.

    ``which`` names a checkpoint; without it the weights are those that the run ended with.
    """
    path = folder / MODEL
    try:
        file_size(path)
    except FileNotFoundError as error:
        steps = Checkpoints(folder / CHECKPOINTS).steps()
        if which is None or not steps:
            hint = (
                "add --checkpoint last, since the run has not ended" if steps else "name a folder that xpnn train wrote"
            )
            reason = str(error).partition(": ")[2]
            raise UsageError(f"no {MODEL} in {folder}{f' ({reason})' if reason else ''}; {hint}") from None
        found = _checkpoint(folder, which)
        return found.weights, _description_from_options(folder, found), str(found.path)
    weights, about = safetensors.read(path)
    if which is None:
        return weights, about, str(path)
    found = _checkpoint(folder, which)
    _require_same_data(found, about.get("fingerprint"))
    return found.weights, about, str(found.path)


def data_id(fingerprint: str) -> str:
    """The text by which a checkpoint identifies the data of its run."""
    return f"that of SHA-256 {fingerprint[:16]}"


def _checkpoint(folder: Path, which: str | int) -> Checkpoint:
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    try:
        if not checkpoints.steps():
            raise UsageError(f"no checkpoint in {checkpoints.folder}")
        if isinstance(which, int):
            return checkpoints.read(which)
        found = checkpoints.best() if which == "best" else checkpoints.read(checkpoints.steps()[-1])
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    if found is None:
        raise UsageError(f"no epoch of {folder} has ended, so none is the best; add --checkpoint last")
    return found


def _description_from_options(folder: Path, found: Checkpoint) -> dict[str, Any]:
    """The description that the file of weights would hold if the run had ended."""
    options = config_file.read(folder / config_file.CONFIG)
    source, side = options.get("data"), options.get("image-size")
    if not isinstance(source, str) or not isinstance(options.get("model"), str):
        raise UsageError(f"{folder / config_file.CONFIG} names no data or no model")
    data = load_dataset(source, image_size=None if side is None else (side, side))
    _require_same_data(found, data.fingerprint)
    return describe(options["model"], data, Normalise.of(data) if options.get("normalise") is True else None)


def _require_same_data(found: Checkpoint, fingerprint: object) -> None:
    about = found.facts.get("about")
    stored = about.get("data") if isinstance(about, dict) else None
    if not isinstance(fingerprint, str) or stored != data_id(fingerprint):
        raise UsageError(f"{found.path} is of a run on other data than this one's")
