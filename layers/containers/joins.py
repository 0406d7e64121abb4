"""Layers of several inputs, which join the branches of a `Graph`: sums, products, concatenations.

========  ============================  ===============================================
layer     output                        gradient of input i
========  ============================  ===============================================
Add       ``x_1 + ... + x_k``           ``dy``
Multiply  ``x_1 * ... * x_k``           ``dy`` times the product of the other inputs
Concat    the inputs along an axis      the part of ``dy`` along that axis
========  ============================  ===============================================

`Add` and `Multiply` broadcast axes of size 1 other than the batch axis, as in squeeze and excitation, where weights
``(N, C, 1, 1)`` multiply channels ``(N, C, H, W)``. The gradient of such an input is summed over these axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate, pairwise
from operator import add, mul
from typing import Any, ClassVar, Unpack

from ...backends import operations_of, origins
from ...common import checks
from ...common.types import Array, dtype_name
from ..core.errors import with_owner
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..core.release_after_backward import is_within_released
from .sums import sum_of


class Join(Layer, ABC):
    """Base of layers that are called with a tuple of arrays, and whose `backward` returns a tuple of gradients.

    ``_forward`` gets a list of arrays, and ``_backward`` returns one; ``_output_shape`` gets a tuple of shapes.
    """

    def forward(self, x: Any) -> Array:
        """The output for a tuple of arrays."""
        return self._computed(self._forward, x)

    def _computed(self, function: Callable[[list[Array]], Array], x: Any) -> Array:
        """The output of a function of the arrays, which are checked, and converted as `Layer.forward` does."""
        b = self.backend
        try:
            self._require_arrays(x)
            with b.context():
                y = b.down(function([self._up(each) for each in x]))
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        self._record_output(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Any:
        """The gradients of all inputs, a tuple; None with ``input_grad=False``."""
        b = self.backend
        try:
            self._check_upstream_gradient(dy)
            with b.context():
                found = [b.down(each) for each in self._backward(self._up(dy), input_grad)] if input_grad else None
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        if is_within_released():
            self.saved = self._output = None
        if found is None:
            return None
        return tuple(map(self._record_gradient, found) if origins.watching else found)

    @abstractmethod
    def _forward(self, x: Any) -> Array:
        """The output for a list of arrays."""

    @abstractmethod
    def _backward(self, dy: Array, input_grad: bool) -> Any:
        """The gradients of all inputs, a list."""

    def _input_names(self) -> tuple[str, ...]:
        return ()

    def _require_arrays(self, x: Any) -> None:
        """Raise unless the input is a tuple of floating arrays of this backend, of one dtype."""
        if not isinstance(x, tuple | list) or not x:
            kind = "an empty tuple" if isinstance(x, tuple | list) else f"one {type(x).__name__}"
            raise TypeError(f"input must be a tuple of arrays, got {kind}")
        for number, each in enumerate(x, start=1):
            self._check_array(each, f"input {number}")
        dtypes = [dtype_name(each.dtype) for each in x]
        if len({*dtypes}) > 1:
            raise TypeError(f"inputs must have one dtype, got {', '.join(dtypes)}; convert one of them")


class Elementwise(Join):
    """Base of `Add` and `Multiply`: inputs have equal sizes along each axis, or 1 where other inputs are broadcast."""

    def _forward(self, x: Any) -> Array:
        return self._joined(x, self._fitting(x))

    def _fitting(self, x: Sequence[Array]) -> tuple[Shape, ...]:
        """The shapes of arrays; raises `ValueError` unless they fit."""
        shapes = tuple([tuple(each.shape) for each in x])
        self._output_shape(shapes)
        return shapes

    @abstractmethod
    def _joined(self, x: Sequence[Array], shapes: tuple[Shape, ...]) -> Array:
        """The output for arrays of shapes that fit."""

    def _output_shape(self, shape: Any) -> Shape:
        shapes = _several(shape)
        whole = tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*shapes, strict=False))
        fits = all(
            len(each) == len(whole)
            and each[:1] == whole[:1]
            and all(m in (1, n) for m, n in zip(each, whole, strict=True))
            for each in shapes
        )
        if not fits:
            raise ValueError(
                f"inputs have shapes {', '.join(map(str, shapes))}; each axis must have one size, or 1, and the batch "
                "axis one size"
            )
        return whole

    def _summed(self, gradient: Array, shape: Shape) -> Array:
        """The gradient of an input of that shape: summed over axes along which it was broadcast."""
        axes = tuple(a for a, n in enumerate(shape) if gradient.shape[a] != n)
        return self.backend.xp.sum(gradient, axis=axes, keepdims=True) if axes else gradient


class Add(Elementwise):
    """The sum of several arrays: called with a tuple, `backward` returns a tuple.

    Axes of size 1, other than the batch axis, are broadcast. Three or more arrays are added from the first to the last.

    Parameters
    ----------
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    TypeError, ValueError
        From `forward`, for anything but a tuple of arrays of one dtype and of shapes that fit.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnn as nn
    >>> add = nn.Add(backend="numpy")
    >>> x = np.ones((2, 3), np.float32)
    >>> add((x, 2 * x)).tolist()
    [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]
    """

    accepts_stored: ClassVar[bool] = True

    def _joined(self, x: Sequence[Array], shapes: tuple[Shape, ...], relu: bool = False) -> Array:
        b = self.backend
        self.save_for_backward(shapes)
        if len({*shapes}) == 1:
            return sum_of(x, b, relu)
        y = reduce(add, map(b.up, x))
        return operations_of(b.xp).relu(y) if relu else y

    def forward_and_relu(self, x: Any, relu: Layer) -> Array:
        """`forward`, followed by that of ``relu``, a `ReLU` on the same backend."""
        y = self._computed(lambda arrays: self._joined(arrays, self._fitting(arrays), relu=True), x)
        relu.save_for_backward(y)
        relu._record_output(y)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Any:
        (shapes,) = self.saved
        if len({*shapes}) == 1:
            return [dy] * len(shapes)
        dy = self.backend.up(dy)
        return [self._summed(dy, shape) for shape in shapes]


class Multiply(Elementwise):
    """The product of several arrays, entry by entry: called with a tuple, `backward` returns a tuple.

    Axes of size 1, other than the batch axis, are broadcast. Three or more arrays are multiplied from the first to the
    last.

    Parameters
    ----------
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    TypeError, ValueError
        From `forward`, for anything but a tuple of arrays of one dtype and of shapes that fit.

    Examples
    --------
    Weights of channels, as in squeeze and excitation:

    >>> import numpy as np
    >>> import xpnn as nn
    >>> multiply = nn.Multiply(backend="numpy")
    >>> multiply((np.ones((2, 3, 4, 4), np.float32), np.ones((2, 3, 1, 1), np.float32))).shape
    (2, 3, 4, 4)
    """

    accepts_stored: ClassVar[bool] = False

    def _joined(self, x: Sequence[Array], shapes: tuple[Shape, ...]) -> Array:
        self.save_for_backward(*x)
        return reduce(self._times, x)

    def _times(self, x: Array, y: Array) -> Array:
        return operations_of(self.backend.xp).elementwise(mul, x, y) if x.shape == y.shape else x * y

    def _backward(self, dy: Array, input_grad: bool) -> Any:
        x = list(self.saved)
        found = []
        for i, each in enumerate(x):
            others = [*x[:i], *x[i + 1 :]]
            found.append(self._summed(reduce(self._times, others, dy), tuple(each.shape)))
        return found


class Concat(Join):
    """Several arrays joined along an axis: called with a tuple, `backward` returns a tuple.

    Parameters
    ----------
    axis : int
        By default the channels; a negative axis counts from the end. The batch axis is refused.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    TypeError, ValueError
        From `forward`, for anything but a tuple of arrays of one dtype, of equal sizes along the other axes.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnn as nn
    >>> concat = nn.Concat(backend="numpy")
    >>> concat((np.ones((2, 3), np.float32), np.ones((2, 5), np.float32))).shape
    (2, 8)
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("axis", 1),)
    accepts_stored: ClassVar[bool] = True

    def __init__(self, axis: int = 1, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.axis = checks.integer("axis", axis)
        if not self.axis:
            raise ValueError("axis must be an integer other than 0, the batch axis, got 0")

    def _output_shape(self, shape: Any) -> Shape:
        shapes = _several(shape)
        axis, first = self._axis(shapes), shapes[0]
        return (*first[:axis], sum(each[axis] for each in shapes), *first[axis + 1 :])

    def _axis(self, shapes: tuple[Shape, ...]) -> int:
        """The axis counted from the front; raises `ValueError` unless the shapes fit."""
        rank = len(shapes[0])
        axis = self.axis + rank if self.axis < 0 else self.axis
        fixed = {(*each[:axis], *each[axis + 1 :]) for each in shapes}
        if not 1 <= axis < rank or len(fixed) > 1 or len({*map(len, shapes)}) > 1:
            raise ValueError(
                f"inputs have shapes {', '.join(map(str, shapes))}, which cannot be concatenated along axis {self.axis}"
            )
        return axis

    def _forward(self, x: Any) -> Array:
        shapes = tuple([tuple(each.shape) for each in x])
        axis = self._axis(shapes)
        self.save_for_backward([shape[axis] for shape in shapes], axis)
        return operations_of(self.backend.xp).concat([self.backend.plain(each) for each in x], axis)

    def _backward(self, dy: Array, input_grad: bool) -> Any:
        sizes, axis = self.saved
        return parts_along(dy, sizes, axis)


def parts_along(dy: Array, sizes: Sequence[int], axis: int) -> list[Array]:
    """The parts of these sizes of an array along an axis: views."""
    before = (slice(None),) * axis
    return [dy[(*before, slice(start, stop), ...)] for start, stop in pairwise(accumulate(sizes, initial=0))]


def _several(shape: Any) -> tuple[Shape, ...]:
    """A tuple of shapes; raises `ValueError` for one shape."""
    if not shape or not all(isinstance(each, tuple) for each in shape):
        raise ValueError(f"input_shape must be a tuple of shapes, one for each input, got {shape}")
    several: tuple[Shape, ...] = shape
    return several
