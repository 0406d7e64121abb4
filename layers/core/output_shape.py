"""The shape of a layer's output from the shape of its input, without computing the output.

Every layer of the library defines ``_output_shape``, with the same checks as its forward. A layer that doesn't is
called with zeros of one sample; within such a container, layers that define it still use it, and return zeros in place
of what they would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeAlias

from ...backends import Backend
from ...common import checks
from ...common.types import Array

Shape: TypeAlias = tuple[int, ...]
#: Called with a layer, the shape of its input and the shape of its output.
Observer: TypeAlias = Callable[[Any, Shape, Shape], None]

_observer: ContextVar[Observer | None] = ContextVar("xpnn_shapes", default=None)


@contextmanager
def observed_shapes(observer: Observer) -> Iterator[None]:
    """Within the ``with`` block, call ``observer`` for each layer whose output shape is determined."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def report_shapes(layer: Any, x_shape: Shape, y_shape: Shape) -> None:
    """Call the observer, if there is one, with the shapes of a layer."""
    observer = _observer.get()
    if observer is not None:
        observer(layer, x_shape, y_shape)


def knows_shapes(layer: Any) -> bool:
    """Whether ``_output_shape`` is defined for the forward of this layer.

    It is not where a subclass overrides the forward only.
    """
    # In the base class of all layers, which defines output_shape too, it only raises.
    is_defined = _definer(type(layer), "_output_shape") is not _definer(type(layer), "output_shape")
    return is_defined and describes_forward(layer, "_output_shape")


def describes_forward(layer: Any, method: str) -> bool:
    """Whether a method that says something of the forward is defined beside it, or in a subclass of its class."""
    kind = type(layer)
    definer = _definer(kind, method)
    return all(issubclass(definer, _definer(kind, name)) for name in ("forward", "_forward"))


def checked_shape(layer: Any, input_shape: Any, accepted: str = "") -> Any:
    """A shape, or a tuple of shapes for a layer that is called with a tuple of arrays.

    ``accepted`` describes accepted values in the message; then a shape has at least one axis.

    Raises
    ------
    ValueError
        For anything else, and for several shapes if the layer is called with one array.
    """
    if not is_several(input_shape):
        return checks.shape("input_shape", input_shape, accepted=accepted, empty=not accepted)
    if _definer(type(layer), "forward") is _definer(type(layer), "output_shape"):
        raise ValueError(f"{layer!r}: input_shape must be the shape of one input, got {checks.shown(input_shape)}")
    return tuple([checks.shape("input_shape", each, empty=True) for each in input_shape])


def is_several(shape: Any) -> bool:
    """Whether it is a sequence of shapes rather than one shape."""
    return isinstance(shape, tuple | list) and bool(shape) and all(isinstance(each, tuple | list) for each in shape)


def _definer(kind: type, name: str) -> type:
    """The class from which a class has that method."""
    return next(each for each in kind.__mro__ if name in vars(each))


def for_each(function: Callable[[Any], Any], of: Any) -> Any:
    """The result for a shape or array, or a tuple of the results for each of several."""
    if is_several(of) or (isinstance(of, tuple | list) and any(hasattr(each, "shape") for each in of)):
        return tuple([function(each) for each in of])
    return function(of)


def shape_by_forward(layer: Any, shape: Any) -> Shape:
    """The shape of the output of a forward of zeros.

    The forward is of one sample, or of all if one is refused or if the first axis does not remain 1 in every layer.
    """
    observer = _observer.get()
    seen: list[tuple[Any, Any, Shape]] = []
    shapes = shape if is_several(shape) else (shape,)
    with observed_shapes(lambda *each: seen.append(each)):
        try:
            found = _shape_of_forward(layer, for_each(lambda each: (1, *each[1:]), shape)) if all(shapes) else ()
        except (TypeError, ValueError):
            found = ()
        inner = [each for _, x_shape, _ in seen for each in (x_shape if is_several(x_shape) else (x_shape,))]
        is_per_sample = all(each[:1] == (1,) for each in (found, *inner, *(y_shape for *_, y_shape in seen)))
        if not is_per_sample:
            seen.clear()
            found = _shape_of_forward(layer, shape)

    def of_batch(each: Shape) -> Shape:
        return (shapes[0][0], *each[1:]) if is_per_sample else each

    if observer is not None:
        for part, x_shape, y_shape in seen:
            observer(part, for_each(of_batch, x_shape), of_batch(y_shape))
    return of_batch(found)


def _shape_of_forward(layer: Any, shape: Any) -> Shape:
    """The shape of the output for zeros in evaluation; the layer is left unchanged."""
    with unchanged(layer):
        layer.eval()
        for _, part in layer.named_layers():
            if part is not layer:
                vars(part)["forward"] = partial(_zeros_for_output, part)
            for parameter in part.parameters.values():
                if parameter._value is None:
                    # Initial weights are not drawn: shapes don't depend on them, and the seed may still change.
                    parameter.value = _zeros(parameter.backend, parameter.shape)
        y = layer.forward(for_each(partial(_zeros, backend_of_parameters(layer)), shape))
        return tuple((y[0] if isinstance(y, tuple) else y).shape)


def _zeros_for_output(part: Any, x: Any) -> Array:
    """In place of the forward of a layer within: zeros of its output shape."""
    # Without this replacement, so that `knows_shapes` and `output_shape` see the layer's own forward.
    del vars(part)["forward"]
    try:
        return _zeros(backend_of_parameters(part), part.output_shape(for_each(lambda each: tuple(each.shape), x)))
    finally:
        vars(part)["forward"] = partial(_zeros_for_output, part)


def backend_of_parameters(layer: Any) -> Backend:
    """The backend of the layer's first parameter, or of the layer if it has none."""
    backend: Backend = next((parameter for _, parameter in layer.named_parameters()), layer).backend
    return backend


def _zeros(b: Backend, shape: Shape) -> Array:
    with b.context():
        return b.xp.zeros(shape, dtype=b.dtype, device=b.device)


@contextmanager
def unchanged(layer: Any) -> Iterator[None]:
    """Restore at the end all attributes of the layer and the layers within, of their parameters and buffers."""
    layers = [part for _, part in layer.named_layers()]
    parameters = [parameter for part in layers for parameter in part.parameters.values()]
    owners: list[Any] = [*layers, *parameters, *(part.buffers for part in layers)]
    before = [(each, dict(vars(each))) for each in owners]
    for part in layers:
        part.buffers._arrays, part.buffers._sources = dict(part.buffers._arrays), {}
    try:
        yield
    finally:
        for each, attributes in before:
            vars(each).clear()
            vars(each).update(attributes)
