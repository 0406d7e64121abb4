"""Activations that shrink small values to 0, or all values by their tanh.

==========  ==============================================  ==================================
layer       f(x)                                            f'(x)
==========  ==============================================  ==================================
SoftShrink  x - lambd above lambd, x + lambd below -lambd,  1 beyond [-lambd, lambd], else 0
            else 0
HardShrink  x beyond [-lambd, lambd], else 0                1 beyond [-lambd, lambd], else 0
TanhShrink  x - tanh(x)                                     tanh(x)^2
==========  ==============================================  ==================================

For NaN both the result and the gradient are NaN.

``x - tanh(x)`` is about ``x^3 / 3`` near 0, where the difference would lose all digits. For ``|x| < 1`` it is computed
as ``(x cosh(x) - sinh(x)) / cosh(x)``, with the numerator as its power series, whose terms have one sign.

Sources: D. Donoho, "De-noising by soft-thresholding", 1995; PyTorch for `lambd` and the values at the limits.
"""

from math import factorial
from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.elementwise import clamp, keep_nan
from ..core.placement import Placement
from .base import Activation, prepare, prepare_gradient

# Of x cosh(x) - sinh(x) divided by x^3, in powers of x^2, highest first; on [-1, 1] the next term is below 1e-20.
_SERIES = tuple(2 * k / factorial(2 * k + 1) for k in range(10, 0, -1))


@without_graph
def soft_shrink(x: Array, *, lambd: float = 0.5, xp: Namespace | None = None) -> Array:
    """``x - lambd`` above ``lambd``, ``x + lambd`` below ``-lambd``, else 0; ``lambd >= 0``."""
    xp, lambd = prepare(xp, input=x), _checked(lambd)
    # What is cut off is a limit, or x itself.
    return x - clamp(x, -lambd, lambd, xp) if lambd else x + 0.0


@without_graph
def soft_shrink_backward(dy: Array, x: Array, *, lambd: float = 0.5, xp: Namespace | None = None) -> Array:
    """``dx = dy`` beyond ``[-lambd, lambd]``, else 0; NaN where ``x`` is."""
    xp, lambd = prepare_gradient(xp, dy=dy, input=x), _checked(lambd)
    return keep_nan(operations_of(xp).select(xp.abs(x) > lambd, dy), x, xp)


@without_graph
def hard_shrink(x: Array, *, lambd: float = 0.5, xp: Namespace | None = None) -> Array:
    """``x`` beyond ``[-lambd, lambd]``, else 0; ``lambd >= 0``."""
    xp, lambd = prepare(xp, input=x), _checked(lambd)
    return operations_of(xp).select(xp.logical_not(xp.abs(x) <= lambd), x)


@without_graph
def hard_shrink_backward(dy: Array, x: Array, *, lambd: float = 0.5, xp: Namespace | None = None) -> Array:
    """``dx = dy`` beyond ``[-lambd, lambd]``, else 0; NaN where ``x`` is."""
    return soft_shrink_backward(dy, x, lambd=lambd, xp=xp)


@without_graph
def tanh_shrink(x: Array, *, xp: Namespace | None = None) -> Array:
    """``x - tanh(x)``."""
    xp = prepare(xp, input=x)
    near = clamp(x, -1.0, 1.0, xp)
    square = near * near
    series = square * _SERIES[0] + _SERIES[1]
    for coefficient in _SERIES[2:]:
        series = series * square + coefficient
    return xp.where(xp.abs(x) < 1.0, near * (square * series) / xp.cosh(near), x - xp.tanh(x))


@without_graph
def tanh_shrink_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy * tanh(x)^2``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    t = xp.tanh(x)
    return dy * (t * t)


def _checked(lambd: float) -> float:
    return checks.number("lambd", lambd, least=0.0)


class SoftShrink(Activation):
    """Shrink towards 0 by ``lambd >= 0``; see `soft_shrink`."""

    function = staticmethod(soft_shrink)
    gradient = staticmethod(soft_shrink_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("lambd", 0.5),)

    def __init__(self, lambd: float = 0.5, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.lambd = _checked(lambd)


class HardShrink(Activation):
    """0 within ``[-lambd, lambd]``, ``lambd >= 0``; see `hard_shrink`."""

    function = staticmethod(hard_shrink)
    gradient = staticmethod(hard_shrink_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("lambd", 0.5),)

    def __init__(self, lambd: float = 0.5, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.lambd = _checked(lambd)


class TanhShrink(Activation):
    """``x - tanh(x)``; see `tanh_shrink`."""

    function = staticmethod(tanh_shrink)
    gradient = staticmethod(tanh_shrink_backward)
