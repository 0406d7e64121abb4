"""The parameters that an optimizer or a clipping function is given, by name."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ...common import checks
from ...layers.core.layer import Layer
from ...layers.core.parameter import Parameter

Trainable: TypeAlias = Layer | Mapping[str, Parameter] | Iterable[Parameter]


def trainable(parameters: Trainable, owner: str) -> dict[str, Parameter]:
    """Parameters by name, each once and under its first name, from a layer, a mapping or an iterable of them.

    Raises
    ------
    ValueError
        If there are none; the message begins with ``owner``.
    """
    given = parameters
    if isinstance(parameters, Layer):
        parameters = dict(parameters.named_parameters())
        if not parameters:
            raise ValueError(f"{owner}: there is nothing to train, {given!r} has no parameters")
    found: Mapping[str, Any] = {}
    if isinstance(parameters, Mapping):
        found = parameters
    elif isinstance(parameters, Iterable) and getattr(parameters, "shape", None) != ():
        found = {str(i): parameter for i, parameter in enumerate(parameters)}
    if not found or not all(isinstance(parameter, Parameter) for parameter in found.values()):
        shown = checks.shown(parameters if checks.is_sequence(parameters) or not found else found)
        raise ValueError(
            f"{owner}: parameters must be a layer with parameters, a mapping of names to Parameters or an iterable of "
            f"them, got {shown}"
        )
    first: dict[Parameter, str] = {}
    for name, parameter in found.items():
        first.setdefault(parameter, name)
    return {name: parameter for parameter, name in first.items()}
