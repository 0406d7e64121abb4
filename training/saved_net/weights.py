"""The weights in the folder of a run: those that it ended with, or those of one of its checkpoints."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import to_host
from ...common.files import file_size, read_bytes
from ...interop import safetensors
from ...layers.core.layer import Layer
from ..augment import Normalise
from ..checkpoint_file import Checkpoint, CheckpointError
from ..checkpoints import Checkpoints
from ..datasets import load_dataset
from .description import SavedNetError, describe

HostArray = np.ndarray[Any, Any]
#: Names in the folder of a run.
MODEL, CONFIG, CHECKPOINTS = "model.safetensors", "config.toml", "checkpoints"
#: The net of a run that began with an ONNX file: that file, with all its data.
NET = "net.onnx"
# More than any list of options needs; a TOML parser takes many times the memory of its file.
_MOST_BYTES = 1 << 20
_LISTED = 10


def net_file(weights: str | Path) -> Path:
    """The ONNX file of the run whose weights, or checkpoint, are in that file."""
    path = Path(weights)
    return (path.parent.parent if path.parent.name == CHECKPOINTS else path.parent) / NET


def read_options(path: Path) -> dict[str, Any]:
    """The entries of a TOML file, such as the options of a run.

    Raises
    ------
    SavedNetError
        For a file that is not there or not TOML.
    """
    try:
        return tomllib.loads(read_bytes(path, _MOST_BYTES).decode())
    except FileNotFoundError as error:
        raise SavedNetError(str(error)) from None
    except RecursionError:
        raise SavedNetError(f"{path} is not a TOML file (its brackets are nested too deep)") from None
    except (OSError, ValueError) as error:
        raise SavedNetError(f"{path} is not a TOML file ({' '.join(str(error).split())})") from None


def load_weights(model: Layer, weights: dict[str, HostArray], path: str) -> None:
    """Load weights into a net.

    Raises
    ------
    SavedNetError
        If one is NaN or infinite.
    """
    with np.errstate(all="ignore"):
        model.load_state_dict(weights)
    bad = []
    for name, array in model.state_dict().items():
        host = to_host(array)
        if host.dtype.kind == "f" and not np.isfinite(host).all():
            bad.append(f"{name} in {np.sum(~np.isfinite(host))} of {host.size} values")
    if bad:
        more = f" and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise SavedNetError(f"{path} holds NaN or infinity: {', '.join(bad[:_LISTED])}{more}; nothing can be computed")


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
            raise SavedNetError(f"no {MODEL} in {folder}{f' ({reason})' if reason else ''}; {hint}") from None
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
            raise SavedNetError(f"no checkpoint in {checkpoints.folder}")
        if isinstance(which, int):
            return checkpoints.read(which)
        found = checkpoints.best() if which == "best" else checkpoints.read(checkpoints.steps()[-1])
    except CheckpointError as error:
        raise SavedNetError(str(error)) from error
    if found is None:
        raise SavedNetError(f"no epoch of {folder} has ended, so none is the best; add --checkpoint last")
    return found


def _description_from_options(folder: Path, found: Checkpoint) -> dict[str, Any]:
    """The description that the file of weights would hold if the run had ended."""
    options = read_options(folder / CONFIG)
    source, side = options.get("data"), options.get("image-size")
    if not isinstance(source, str) or not isinstance(options.get("model"), str):
        raise SavedNetError(f"{folder / CONFIG} names no data or no model")
    data = load_dataset(source, image_size=None if side is None else (side, side))
    _require_same_data(found, data.fingerprint)
    return describe(options["model"], data, Normalise.of(data) if options.get("normalise") is True else None)


def _require_same_data(found: Checkpoint, fingerprint: object) -> None:
    about = found.facts.get("about")
    stored = about.get("data") if isinstance(about, dict) else None
    if not isinstance(fingerprint, str) or stored != data_id(fingerprint):
        raise SavedNetError(f"{found.path} is of a run on other data than this one's")
