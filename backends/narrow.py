"""16-bit floats in mixed precision: what backward needs is stored in them, and factors of products are rounded to them.

Layers compute in float32. In ``precision="float16"`` and ``"bfloat16"`` the factors of a product (the input, weight and
upstream gradient of a convolution or a dense layer) are first rounded to 16 bits, to nearest, ties to even. A product
of two such numbers is exact in float32, where the sums are computed. So every backend computes the same up to the order
of sums, whether it multiplies the 16-bit numbers themselves, as tensor cores do, or the equal numbers in float32.

A number beyond float16's 65504 becomes infinite.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary, ref

from ..common.types import Array

#: Unit roundoff of each: half the distance from 1 to the next number.
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}

Convert = Callable[[Array], Array]


class Stored:
    """A float32 array as 16-bit floats.

    Parameters
    ----------
    array : array
        Of the library's 16-bit dtype, or of integers with the same bits where it has none.
    widen : callable
        What makes float32 of it.
    """

    __slots__ = ("__weakref__", "_widen", "array")

    def __init__(self, array: Array, widen: Convert) -> None:
        self.array, self._widen = array, widen

    def load(self) -> Array:
        """The numbers in float32: a new array."""
        return self._widen(self.array)


class NarrowFormat:
    """Conversion of float32 arrays of one library to a 16-bit format and back.

    Parameters
    ----------
    name : {"float16", "bfloat16"}
    narrow, widen : callable
        To the array that is stored, with the memory order of the argument, and back to float32.
    """

    def __init__(self, name: str, narrow: Convert, widen: Convert) -> None:
        self.name, self._narrow, self._widen = name, narrow, widen
        # By the id of the array that was stored.
        self._outputs: WeakValueDictionary[int, _Output] = WeakValueDictionary()

    def store(self, array: Array) -> Stored:
        """The array in 16 bits."""
        return Stored(self._narrow(array), self._widen)

    def store_output(self, array: Array) -> Stored:
        """`store` of a layer's own output: the layer that has it as input finds the same object by `known`."""
        stored = self._outputs[id(array)] = _Output(self._narrow(array), self._widen, array)
        return stored

    def known(self, array: Array) -> Stored | None:
        """What `store_output` returned for this array, while that is in use."""
        stored = self._outputs.get(id(array))
        return stored if stored is not None and stored.source() is array else None

    def rounded(self, array: Array) -> Array:
        """The array rounded to 16 bits, in float32."""
        return self._widen(self._narrow(array))


class _Output(Stored):
    """A `Stored` that knows its array, so that another one with the same id is not taken for it."""

    __slots__ = ("source",)

    def __init__(self, array: Array, widen: Convert, source: Array) -> None:
        super().__init__(array, widen)
        self.source = ref(source)

    def __reduce__(self) -> tuple[Any, ...]:
        return Stored, (self.array, self._widen)
