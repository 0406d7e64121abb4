"""What a layer saved in each of its calls, for layers that occur several times in a container.

By itself a layer keeps what its last call saved. If a container calls it several times, a list has what each call
saved, and backward, which calls the layers in reverse order, uses the entries from the last to the first. The outermost
container in which the layer occurs more than once starts a new list in its forward, and begins at the end of it in each
backward. Layers that occur once have no list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from .release_after_backward import is_within_released


class Callee(Protocol):
    """A layer: what its last call saved, and that of all its calls if it is in several places."""

    saved: Any
    _output: Any
    _fast_results: int
    _calls: Calls | None

    def named_layers(self) -> Iterator[tuple[str, Callee]]:
        """The layer and all layers within."""


C = TypeVar("C", bound=Callee)


class Calls:
    """The calls of a layer in one forward of a container.

    Attributes
    ----------
    opener : object
        The container; None if the layer was called by itself.
    is_open : bool
        Whether its forward is running.
    states : list
        What each call saved; None once it is freed.
    left : int
        The number of calls before the one whose backward was last.
    """

    __slots__ = ("is_open", "left", "opener", "states")

    def __init__(self, opener: object = None) -> None:
        self.opener, self.is_open, self.left = opener, opener is not None, 0
        self.states: list[tuple[Any, Any, int] | None] = []


def mark_repeated(layers: Iterable[C]) -> list[C]:
    """The layers that occur more than once; from now on they remember their calls."""
    count: dict[C, int] = {}
    for layer in layers:
        count[layer] = count.get(layer, 0) + 1
    found = [layer for layer, times in count.items() if times > 1]
    for layer in found:
        if layer._calls is None:
            layer._calls = Calls()
    return found


def open_calls(container: object, repeated: Iterable[Callee]) -> list[Calls]:
    """Start the lists of layers, except those of which a container around this one did."""
    opened = []
    for layer in repeated:
        if layer._calls is None or not layer._calls.is_open:
            layer._calls = Calls(container)
            opened.append(layer._calls)
    return opened


def rewind(container: object, repeated: Iterable[Callee]) -> None:
    """Let the next backward of layers be that of their last call, if this container started the lists."""
    for layer in repeated:
        if layer._calls is not None and layer._calls.opener is container:
            layer._calls.left = len(layer._calls.states)


def after_forward(layer: Callee, calls: Calls) -> None:
    """Put what a call saved on the list."""
    if calls.is_open:
        calls.states.append((layer.saved, layer._output, layer._fast_results))
        calls.left = len(calls.states)
    elif calls.states:
        # It was called by itself.
        layer._calls = Calls()


def before_backward(layer: Callee, calls: Calls) -> None:
    """Take what a call saved from the list.

    Raises
    ------
    RuntimeError
        If all calls had their backward.
    """
    if not calls.states:
        return
    if not calls.left:
        raise RuntimeError(
            f"{layer!r} is in several places, and each of its calls in the last forward of {calls.opener!r} had its "
            "backward; call the backward of that, which begins with the last call again"
        )
    calls.left -= 1
    layer.saved, layer._output, layer._fast_results = calls.states[calls.left] or (None, None, 0)
    if is_within_released():
        calls.states[calls.left] = None


def skip_backward(calls: Calls) -> None:
    """Leave out the backward of a call, whose gradients nothing needs."""
    if calls.left:
        calls.left -= 1
        if is_within_released():
            calls.states[calls.left] = None


@contextmanager
def separate_calls(model: Callee) -> Iterator[None]:
    """Within the ``with`` block, layers of a model start other lists; afterwards they have the present ones."""
    before = [(layer, layer._calls) for _, layer in model.named_layers() if layer._calls is not None]
    for layer, _ in before:
        layer._calls = Calls()
    try:
        yield
    finally:
        for layer, calls in before:
            layer._calls = calls
