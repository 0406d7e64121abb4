"""`tensordot` of the standard, for namespaces that replace the matrix product."""

from math import prod
from typing import Any

from ...common.types import Array, Namespace


def tensordot(x1: Array, x2: Array, axes: int | tuple[Any, Any], xp: Namespace) -> Array:
    """`tensordot` of the standard, as one ``xp.matmul``.

    Raises
    ------
    ValueError
        If the axes differ in number or sizes.
    """
    first, second = (
        (tuple(range(x1.ndim - axes, x1.ndim)), tuple(range(axes))) if isinstance(axes, int) else map(tuple, axes)
    )
    first, second = tuple(a % x1.ndim for a in first), tuple(a % x2.ndim for a in second)
    sizes = [x1.shape[a] for a in first]
    if sizes != [x2.shape[a] for a in second]:
        raise ValueError(f"tensordot: axes {first} of shape {x1.shape} and {second} of {x2.shape} differ in size")
    kept = [a for a in range(x1.ndim) if a not in first], [a for a in range(x2.ndim) if a not in second]
    shape = (*(x1.shape[a] for a in kept[0]), *(x2.shape[a] for a in kept[1]))
    left = xp.reshape(xp.permute_dims(x1, (*kept[0], *first)), (prod(x1.shape[a] for a in kept[0]), prod(sizes)))
    right = xp.reshape(xp.permute_dims(x2, (*second, *kept[1])), (prod(sizes), prod(x2.shape[a] for a in kept[1])))
    return xp.reshape(xp.matmul(left, right), shape)
