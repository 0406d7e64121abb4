"""Copies that may be changed in place, and changes of arrays in place, with the roundings of their backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...backends import Backend, operations_of, origins
from ...common.types import Array


def copy_with_layout(array: Array, like: Array, b: Backend) -> Array:
    """A copy with the memory layout of ``like``, if the library supports that."""
    with b.context():
        copy = b.xp.empty_like(like, dtype=array.dtype)
        copy[...] = array
    origins.copy_maker(array, copy)
    return copy


def update_in_place(
    function: Callable[..., Sequence[Array]],
    changed: Sequence[Array],
    *read: Array,
    backend: Backend,
) -> None:
    """Replace the entries of the arrays ``changed`` by ``function(*changed, *read)``, an elementwise function.

    All arrays have one shape. In exact numerics they are widened before and the results rounded after. The function may
    compute in place.
    """

    def work(*stored: Array) -> None:
        results = function(*(backend.up(array) for array in stored))
        for target, array in zip(stored, results, strict=False):
            if array is not target:
                target[...] = backend.down(array)

    with backend.context():
        operations_of(backend.xp).update(work, *changed, *read)
