"""The base class of layers that consist of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, ClassVar, Self, Unpack, cast

from ...backends import Backend, BackendLike, origins
from ...common import checks
from ...common.types import Array, DType
from ..core.errors import full_name
from ..core.grad_mode import grad_mode, reset_grad_mode, set_grad_mode
from ..core.layer import Layer
from ..core.placement import Placement, has_backend_settings
from ..core.repeated_calls import mark_repeated, open_calls, rewind


def _with_grad_mode(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A container's ``forward`` that sets the grad mode if the container is in training.

    So layers within that are in evaluation save what backward needs as well. Layers in several places save it for each
    of their calls.
    """

    @wraps(forward)
    def call(self: Container, x: Any, *others: Any, **keywords: Any) -> Any:
        mode = grad_mode()
        begins = mode is None and self.training
        if not (begins or (mode and self._repeated) or others or keywords):
            return forward(self, x)
        token = set_grad_mode(True) if begins else None
        opened = open_calls(self, self._repeated) if self._repeated and (begins or mode) else []
        try:
            return forward(self, x, *others, **keywords)
        finally:
            if token is not None:
                reset_grad_mode(token)
            for calls in opened:
                calls.is_open = False

    return call


def _from_last_call(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A container's ``backward`` in which layers in several places begin with what their last call saved."""

    @wraps(backward)
    def call(self: Container, dy: Any, *others: Any, **keywords: Any) -> Any:
        if not self._repeated or self._returns:
            return backward(self, dy, *others, **keywords)
        rewind(self, self._repeated)
        self._returns = True
        try:
            return backward(self, dy, *others, **keywords)
        finally:
            self._returns = False

    return call


class Container(Layer):
    """Base of layers with named children, to which placement, modes and state apply as well.

    A subclass defines `forward` and `backward` by those of its children, which check and convert the arrays, and
    optionally ``_output_shape`` by their `output_shape`, so that `summary` needs no forward.

    A child with a backend or a seed of its own keeps it; the others use the container's. Children in exact and in fast
    numerics are refused together, unless the latter were given ``numerics="fast"`` themselves.

    Parameters
    ----------
    children : dict of str to Layer
        The children by name.
    **placement
        See `xpnn.layers.core.placement.Placement`; for all children that have none of their own.
    """

    _names_errors = False
    #: Names of children in the full names of layers and parameters, where they differ from those in ``children``; an
    #: empty name adds nothing.
    names: ClassVar[Mapping[str, str]] = {}
    # Whether this container's backward is running, for one that calls that of its base class.
    _returns = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, wrap in (("forward", _with_grad_mode), ("backward", _from_last_call)):
            if name in vars(cls):
                setattr(cls, name, wrap(vars(cls)[name]))

    def __init__(self, children: dict[str, Layer], **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        for name, child in children.items():
            checks.instance(f"{type(self).__name__}: {name!r}", child, Layer)
        self.children = children
        # The layers within that are in several places.
        self._repeated = mark_repeated(layer for _, layer in self.named_places())
        self._enter_container("", {})

    @_with_grad_mode
    def forward(self, x: Array) -> Any:
        """`Layer.forward`."""
        return super().forward(x)

    @_from_last_call
    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """`Layer.backward`."""
        return super().backward(dy, input_grad=input_grad)

    @property
    def backend(self) -> Backend:
        """The container's own backend, or its first child's."""
        if self.children and not has_backend_settings(self._own_placement):
            return next(iter(self.children.values())).backend
        return super().backend

    def to(self, backend: BackendLike, dtype: DType | str | None = None) -> Self:
        """Move this container and all layers within; returns this container."""
        super().to(backend, dtype)
        for child in self.children.values():
            child.to(self.backend)
        return self

    def _enter_container(self, path: str, inherited: Placement) -> None:
        super()._enter_container(path, inherited)
        passed = cast(Placement, {**inherited, **self._own_placement})
        # A layer in several places has the name of the first.
        for name, child in reversed(self.children.items()):
            child._is_fast = child._is_fast or (self._is_fast and not has_backend_settings(child._own_placement))
            child._enter_container(full_name(path, self.names.get(name, name)), passed)

    def _check_numerics(self) -> None:
        """Raise `ValueError` if one part would compute in exact numerics and another in fast numerics."""
        if not origins.watching:
            return
        kinds = {name: child.backend.numerics for name, child in self.children.items() if not child._is_fast}
        if len({*kinds.values(), *(() if self._is_fast else (self.backend.numerics,))}) > 1:
            children = ", ".join(f"{name!r} in {kind}" for name, kind in kinds.items())
            raise ValueError(
                f"{type(self).__name__}: one part would leave exact numerics: the container computes in "
                f"{self.backend.numerics} numerics, {children}; give the outermost container numerics='exact' and the "
                "layers none of their own, or move the whole with model.to(nn.get_backend(..., numerics='exact')), or "
                "give a layer numerics='fast' by name to leave exact numerics there on purpose"
            )

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this container and of all layers within; returns this container."""
        for child in self.children.values():
            child.train(mode)
        return super().train(mode)

    def named_layers(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """This container and all layers within, each once with its first full name."""
        seen: set[Layer] = set()
        for name, layer in self.named_places(path):
            if layer not in seen:
                seen.add(layer)
                yield name, layer

    def named_places(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """`named_layers`, but a layer in several places with each of its names, as in `state_dict`."""
        yield path, self
        for name, child in self.children.items():
            yield from child.named_places(full_name(path, self.names.get(name, name)))

    def _skip_backward(self) -> None:
        for child in reversed(self.children.values()):
            child._skip_backward()
        super()._skip_backward()


def is_trained(layer: Layer) -> bool:
    """Whether the layer or a layer within has a parameter that requires a gradient."""
    return any(each.requires_grad for _, part in layer.named_layers() for each in part.parameters.values())


def named_children(layers: tuple[Layer | tuple[str, Layer] | dict[str, Layer], ...], owner: str) -> dict[str, Layer]:
    """Children by name, from layers, which are named by number, pairs (name, layer), or one dict."""
    pairs: list[tuple[str, Layer]] = []
    for i, layer in enumerate(layers):
        if isinstance(layer, Mapping) and len(layers) == 1:
            pairs += layer.items()
        elif isinstance(layer, tuple):
            pairs.append(layer)
        else:
            pairs.append((str(i), cast(Layer, layer)))
    for pair in pairs:
        if len(pair) != 2 or not isinstance(pair[0], str) or not pair[0] or "." in pair[0]:
            raise ValueError(f"{owner}: each pair must be a name without a dot and a layer, got {checks.shown(pair)}")
    children = dict(pairs)
    if len(children) < len(pairs):
        raise ValueError(f"{owner}: names must differ, got {', '.join(name for name, _ in pairs)}")
    return children


def repr_children(children: dict[str, Layer]) -> str:
    """The children as arguments of the container's constructor."""
    if list(children) == [str(i) for i in range(len(children))]:
        return ", ".join(map(repr, children.values()))
    return repr(children)
