"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Self, Unpack, cast, overload

from ...backends import Backend, BackendLike, operations_of, origins
from ...common import checks
from ...common.types import Array, DType
from ..core.layer import Layer, join, named
from ..core.placement import Placement, says_where
from ..summary import Shape


class Container(Layer):
    """A layer with named children; placement, modes and state reach all of them.

    A subclass defines `forward` and `backward` by those of its children, which check and convert what they get.
    A child that was given a backend or a seed of its own keeps it; the others take the container's. Parts in exact
    numerics and parts in fast numerics are refused together, unless the latter were given ``numerics="fast"`` by name.
    One that defines ``_output_shape`` by its children's `output_shape` has a `summary` without a forward.
    """

    _names_errors = False

    def __init__(self, children: dict[str, Layer], **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        for name, child in children.items():
            checks.instance(f"{type(self).__name__}: {name!r}", child, Layer)
        self.children = children
        seen: dict[Layer, str] = {}
        for name, layer in self.named_layers():
            if layer in seen:
                raise ValueError(
                    f"{type(self).__name__}: one layer stands in two places, {seen[layer]} and {name}: {layer!r}; "
                    "make two"
                )
            seen[layer] = name
        self._join("", {})

    @property
    def backend(self) -> Backend:
        """The container's own backend, or its first child's."""
        if self.children and not says_where(self._own):
            return next(iter(self.children.values())).backend
        return super().backend

    def to(self, backend: BackendLike, dtype: DType | str | None = None) -> Self:
        """Move all within; gives this container back."""
        super().to(backend, dtype)
        for child in self.children.values():
            child.to(self.backend)
        return self

    def _join(self, path: str, inherited: Placement) -> None:
        super()._join(path, inherited)
        passed = cast(Placement, {**inherited, **self._own})
        for name, child in self.children.items():
            child._is_fast = child._is_fast or (self._is_fast and not says_where(child._own))
            child._join(join(path, name), passed)

    def _check_numerics(self) -> None:
        """Raise `ValueError` where one part would compute in exact numerics and another in fast."""
        if not origins.watching:
            return
        kinds = {name: child.backend.numerics for name, child in self.children.items() if not child._is_fast}
        if len({*kinds.values(), *(() if self._is_fast else (self.backend.numerics,))}) > 1:
            told = ", ".join(f"{name!r} in {kind}" for name, kind in kinds.items())
            raise ValueError(
                f"{type(self).__name__}: one part would leave exact numerics: the container computes in "
                f"{self.backend.numerics} numerics, {told}; give the outermost container numerics='exact' and the "
                "layers none of their own, or move the whole with model.to(nn.get_backend(..., numerics='exact')), or "
                "give a layer numerics='fast' by name to leave exact numerics there on purpose"
            )

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this container and of all within; gives it back."""
        for child in self.children.values():
            child.train(mode)
        return super().train(mode)

    def named_layers(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """This container and all within, each with its full name."""
        yield path, self
        for name, child in self.children.items():
            yield from child.named_layers(join(path, name))


class Sequential(Container):
    """Layers one after the other: ``y = f_k(... f_2(f_1(x)))``, ``dx = f_1'(... f_k'(dy))``.

    Children are named ``0, 1, 2...`` as in PyTorch, so that the ``state_dict`` of the same net there loads by name, or
    as they are named here.

    Parameters
    ----------
    *layers : Layer, (str, Layer), or one dict of str to Layer
        In the order in which the input passes them.
    **placement
        See `xpnn.layers.core.placement.Placement`; for all children that were given none.

    A slice is a `Sequential` over the same layers, which keep their names, as in PyTorch, and their weights.

    Examples
    --------
    >>> import xpnn as nn
    >>> model = nn.Sequential(nn.Dense(4, 8), nn.ReLU(), nn.Dense(8, 3), backend="numpy", seed=1)
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *layers: Layer | tuple[str, Layer] | dict[str, Layer], **placement: Unpack[Placement]) -> None:
        super().__init__(named_children(layers, "Sequential"), **placement)

    @property
    def layers(self) -> list[Layer]:
        """The children in order."""
        return list(self.children.values())

    def _output_shape(self, shape: Shape) -> Shape:
        for layer in self.children.values():
            shape = layer.output_shape(shape)
        return shape

    def forward(self, x: Array) -> Array:
        """Pass ``x`` through all layers."""
        self._check_numerics()
        self._check_alone(x, "input")
        x = self.backend.plain(x)
        with operations_of(self.backend.xp).setup_once():
            for layer in self.children.values():
                x = layer.forward(x)
        return x

    def _check_alone(self, x: Array, what: str) -> None:
        """Raise `TypeError` for what is no array to compute with, where there is no layer that would."""
        if self.children:
            return
        try:
            self._check(x, what)
        except (TypeError, ValueError) as error:
            raise named(self, error) from error

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """Pass the gradient back through all layers.

        With ``input_grad=False`` nothing is computed that only the input's gradient needs, and None is returned.
        """
        self._check_alone(dy, "upstream gradient")
        layers, dy = self.layers, self.backend.plain(dy)
        first = 0 if input_grad else self._first_trained()
        with operations_of(self.backend.xp).setup_once():
            for i in reversed(range(first, len(layers))):
                dy = layers[i].backward(dy, input_grad=input_grad or i > first)
        return dy if input_grad else None

    def _first_trained(self) -> int:
        """Index of the first layer with parameters: before it, only the input's gradient is of use."""
        return next((i for i, layer in enumerate(self) if is_trained(layer)), len(self))

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.children.values())

    @overload
    def __getitem__(self, index: int | str) -> Layer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | str | slice) -> Layer | Sequential:
        if isinstance(index, slice):
            return self._part(index)
        if isinstance(index, str):
            if index not in self.children:
                raise KeyError(f"Sequential has no layer {index!r}, only {', '.join(self.children) or 'none'}")
            return self.children[index]
        if not -len(self) <= index < len(self):
            raise IndexError(f"Sequential has {len(self)} layers, none is {index}")
        return self.layers[index]

    def _part(self, which: slice) -> Sequential:
        """A Sequential over some of these layers, which stay members of this one: same names, weights and seeds."""
        part = copy(self)
        part.children = dict(list(self.children.items())[which])
        return part

    def __repr__(self) -> str:
        return f"Sequential({repr_children(self.children)})"


def is_trained(layer: Layer) -> bool:
    """Whether there are parameters in it."""
    return next(layer.named_parameters(), None) is not None


def named_children(layers: tuple[Layer | tuple[str, Layer] | dict[str, Layer], ...], owner: str) -> dict[str, Layer]:
    """Children by name, from layers (named by number), pairs, or one dict."""
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
    """Arguments that make these children again."""
    if list(children) == [str(i) for i in range(len(children))]:
        return ", ".join(map(repr, children.values()))
    return repr(children)
