"""The parameters that an optimizer or a clipping function is given, by name."""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, TypeAlias

from ...backends.lookup import require_plain
from ...common import checks
from ...common.types import Array
from ...layers.core.array_checks import require_float
from ...layers.core.layer import Layer
from ...layers.core.parameter import Parameter

#: A layer, names with parameters (a mapping, or pairs as of `Layer.named_parameters`), or parameters.
Trainable: TypeAlias = Layer | Mapping[str, Parameter] | Iterable[Parameter] | Iterable[tuple[str, Parameter]]


def trainable(parameters: Trainable, owner: str) -> dict[str, Parameter]:
    """Parameters by name, each once and under its first name.

    Raises
    ------
    ValueError
        If there are none; the message begins with ``owner``.
    """
    if isinstance(parameters, Layer):
        found = dict(parameters.named_parameters())
        if not found:
            raise ValueError(f"{owner}: there is nothing to train, {parameters!r} has no parameters")
        return once(found)
    # Iterated over once, because it may be a generator.
    given = listed(parameters)
    named = by_name(given)
    if not named:
        raise ValueError(
            f"{owner}: parameters must be a layer with parameters, a mapping of names to Parameters or an iterable of "
            f"them, got {checks.shown(given)}"
        )
    return once(named)


def by_name(given: Any, first: int = 0) -> dict[str, Parameter] | None:
    """Parameters by name; those without names are numbered from ``first`` on. None for anything else.

    A group of an optimizer is its parameters.
    """
    if isinstance(given, Layer):
        return dict(given.named_parameters())
    given = listed(given)
    if isinstance(given, Mapping):
        given = getattr(given, "named", given)
    elif checks.is_sequence(given):
        pairs = [each for each in given if isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str)]
        if pairs and len(pairs) == len(given):
            # Two layers may use one name, as the named_parameters() of each.
            given = _distinct(pairs)
        else:
            given = {str(number): each for number, each in enumerate(given, first)}
    else:
        return None
    return dict(given) if all(isinstance(each, Parameter) for each in given.values()) else None


def once(named: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Each parameter under its first name."""
    first: dict[Parameter, str] = {}
    for name, parameter in named.items():
        first.setdefault(parameter, name)
    return {name: parameter for parameter, name in first.items()}


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or the first of ``name (2)``, ``name (3)``, ... that is not taken."""
    return next(each for number in count(1) if (each := name if number == 1 else f"{name} ({number})") not in taken)


def _distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, parameter in pairs:
        if found.get(name) is not parameter:
            found[free_name(name, found)] = parameter
    return found


def listed(given: Any) -> Any:
    """An iterable other than a layer, a mapping or text as a list; anything else unchanged."""
    is_open = isinstance(given, Iterable) and not isinstance(given, Layer | Mapping | str | bytes)
    return list(given) if is_open and getattr(given, "shape", None) != () else given


def require_gradient(parameter: Parameter, gradient: Array) -> None:
    """Raise unless it is an array of floats of the parameter's shape."""
    require_plain(gradient, "a gradient")
    require_float(gradient, "a gradient")
    if gradient.shape != parameter.shape:
        raise ValueError(
            f"a gradient must have the shape of its parameter, {parameter.shape}, got {tuple(gradient.shape)}"
        )
