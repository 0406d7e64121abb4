"""The forward of a whole net in evaluation as a list of calls, for small inputs.

Of the time for one image, most is Python's: which algorithm, which shape, where the result goes. In evaluation all of
it is the same in each call. So after a few calls with inputs of one shape the outermost `Sequential`, or `Graph` of one
input, records what its layers compute, with copies of their parameters and buffers as constants
(`xpnn.layers.core.kept.as_constants`), and from then on only repeats that. Results have the bits of the plain forward.

A recording is one of the values that a layer keeps, and holds as long as these: until a parameter or buffer of any
layer may have changed, and as long as no layer or attribute of one is another. None is made where more than arithmetic
may happen in a layer: in training, where layers save for backward, for layers that are not the library's own, where a
``forward`` was replaced, as by `watched`, while origins of arrays are recorded, and while choices are overridden.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ...backends import Backend, origins, overrides
from ...backends.recording.calls import current
from ...backends.recording.guards import in_recording
from ...common.types import Array
from ..core.buffers import Buffers
from ..core.grad_mode import grad_mode
from ..core.kept import as_constants, compute

if TYPE_CHECKING:
    from ..core.layer import Layer

Recording: TypeAlias = Callable[[Array], Any]

#: Calls with one form of input before it is recorded, which takes as long as some of them.
CALLS_BEFORE = 8
#: Bytes of an input up to which Python's time matters.
MOST_BYTES = 1 << 18
#: Bytes of memory that a recording may use.
MOST_MEMORY = 1 << 26
_OWN = __name__.partition(".layers.")[0] + ".layers."


class _State(threading.local):
    inside = False


_state = _State()


class _Parts:
    """All layers of a net with their present attributes, and the arrays with which they compute.

    Attributes
    ----------
    layers : tuple of Layer
        The net and those within.
    sources : list of Source
        Their parameters and buffers.
    """

    def __init__(self, net: Layer) -> None:
        self.layers = tuple([layer for _, layer in net.named_layers()])
        self.sources = [source for layer in self.layers for source in layer._all_sources()]
        self._attributes = [_attributes(layer) for layer in self.layers]
        self._declared = Buffers.declared

    def are_those_of(self, net: Layer) -> bool:
        """Whether these are still the layers of a net, with attributes equal to those that they had."""
        if self.layers[0] is not net or self._declared != Buffers.declared:
            return False
        try:
            return list(map(vars, self.layers)) == self._attributes
        except ValueError:
            # Other arrays than before: a comparison of arrays has no truth value.
            return False


def _attributes(layer: Layer) -> dict[str, Any]:
    """The attributes of a layer, with copies of what has layers and parameters by name, whose entries are compared."""
    found = dict(vars(layer))
    found.update((name, dict(found[name])) for name in ("children", "parameters") if name in found)
    return found


class _Form:
    """What is known of one form of input."""

    def __init__(self) -> None:
        self.calls = 0
        #: Layers as they were, and the recording for these, or None if there can be none.
        self.found: tuple[_Parts, Recording | None] | None = None


def forward(net: Layer, b: Backend, plain: Recording, x: Array) -> Array:
    """``plain(x)``, the forward of a net on a backend, or the recording of it."""
    if net.training or grad_mode() or _state.inside or overrides.active or current() is not None:
        return plain(x)
    _state.inside = True
    try:
        y = _recorded(net, b, plain, x)
        return plain(x) if y is None else y
    finally:
        _state.inside = False


def _recorded(net: Layer, b: Backend, plain: Recording, x: Array) -> Array | None:
    if not b.accepts_directly(x) or not 0 < x.nbytes <= MOST_BYTES or origins.watching or in_recording():
        return None
    parts: _Parts | None = net._kept.parts
    if parts is None or not parts.are_those_of(net):
        parts = net._kept.parts = _Parts(net)
    keep = net._keep("recorded", parts.sources)
    if keep is compute:
        return None
    form = keep((x.shape, x.strides), _Form)
    form.calls += 1
    if form.calls <= CALLS_BEFORE:
        return None
    if form.found is None or form.found[0] is not parts:
        form.found = parts, _record(parts.layers, b, plain, x)
    recording = form.found[1]
    return None if recording is None else recording(x)


def _record(layers: tuple[Layer, ...], b: Backend, plain: Recording, x: Array) -> Recording | None:
    for layer in layers:
        is_own = type(layer).__module__.startswith(_OWN) and "forward" not in vars(layer)
        if layer.training or not is_own or layer.backend is not b:
            return None
    with as_constants():
        found = b.recorded(plain, x)
    return None if found is None or getattr(found, "nbytes", 0) > MOST_MEMORY else found
