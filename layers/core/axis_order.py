"""The order of axes: channels first in public shapes, channels last inside a layer with windows.

Such a layer permutes its input ``(N, C, *spatial)`` to ``(N, *spatial, C)``, which is a view, computes, and returns a
permuted view of its result. If the previous layer did the same, the permuted input is contiguous, so
nothing is copied between layers.
"""

from ...backends import operations_of
from ...common.types import Array, Namespace


def channels_last(x: Array, xp: Namespace) -> Array:
    """View ``(N, C, *spatial)`` as ``(N, *spatial, C)``."""
    return xp.permute_dims(x, (0, *range(2, x.ndim), 1))


def channels_first(x: Array, xp: Namespace) -> Array:
    """View ``(N, *spatial, C)`` as ``(N, C, *spatial)``."""
    return xp.permute_dims(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def memory_axes(x: Array, xp: Namespace) -> tuple[int, ...]:
    """The axes of ``x`` from the largest stride to the smallest, or ``0, 1, ...`` where the order is unknown.

    Permuted to this order, an array without gaps is C-contiguous. Some libraries allocate results in the order of the
    axes that they see, whatever the strides are, so results then get the memory layout of ``x`` too.
    """
    return operations_of(xp).memory_order(x) or tuple(range(x.ndim))
