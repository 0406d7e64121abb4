"""Full names of layers and parameters, and the errors of a layer or loss with its name in front."""

from typing import Any


def full_name(path: str, name: str) -> str:
    """The name of a container and of a child in it, joined by a dot; an empty name adds nothing."""
    return f"{path}.{name}" if path and name else path or name


def with_owner(error: TypeError | ValueError, owner: Any) -> Exception:
    """The error with ``repr(owner)`` in front of its message; errors of subclasses are returned unchanged."""
    return type(error)(f"{owner!r}: {error}") if type(error) in (TypeError, ValueError) else error


def backward_without_forward(owner: Any, *, in_mode: bool = False) -> RuntimeError:
    """The error of a backward for which no forward saved anything; ``in_mode`` if it does so by its mode."""
    mode = ", in training mode" if in_mode else ""
    advice = "in evaluation call it within nn.enable_grad(), and " if in_mode else ""
    return RuntimeError(
        f"{owner!r}: backward needs a forward before it{mode}; within released() each backward needs its own; "
        f"{advice}not within nn.no_grad()"
    )
