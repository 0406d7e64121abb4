"""The net that a file of weights describes, built again."""

from typing import Any

from ...backends import Backend
from ...interop.onnx.from_onnx import is_onnx
from ...layers.core.layer import Layer
from ...layers.models import BUILDERS
from ...training.saved_net.description import checked_description, unknown_net
from ...training.saved_net.weights import net_file
from ..errors import UsageError
from ..net_option import build_net


def rebuild(
    about: dict[str, Any], path: str, named: str | None = None, backend: Backend | None = None
) -> tuple[Layer, dict[str, Any]]:
    """The net that the description ``about`` of a file is of, with initial weights, and the checked description.

    A file never decides which code runs: for a net of the user's own, ``named`` must be given by the user.

    Raises
    ------
    UsageError, ValueError
        If the description is not one, or the net can't be built.
    """
    about = checked_description(about, path)
    name, image = about["model"], about["image"]
    if ":" in name and not is_onnx(name) and named is None:
        raise UsageError(f"{path} holds a net of your own, {name}; add --model {name} to run that code")
    if is_onnx(name):
        # The copy in the folder of the run.
        name = str(net_file(path))
    elif ":" not in name and name not in BUILDERS:
        raise unknown_net(path, repr(name))
    return build_net(named or name, (image[0], image[1], image[2]), about["classes"], backend), about
