"""Draws of a stream of random numbers: the bits of `xpnn.backends.random.Generator`'s array functions.

The position in the stream at which a draw begins is read from an array, so that a program can be run again.
"""

from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .compiler import njit
from .jobs import INT, NUMBER, job, read, write
from .normal_quantile import normal_quantile
from .pool import perform
from .threefry import threefry

# Blocks of two words that an item hashes: some 20 microseconds.
ITEM_BLOCKS = 1 << 14
# The same for normal numbers, which take longer.
NORMAL_BLOCKS = 1 << 10


@njit(error_model="numpy")
def _write_words(out: Any, begin: Any, key0: Any, key1: Any) -> None:
    """The words of the blocks from ``begin`` on; the last one has one word if their number is odd."""
    whole = out.shape[0] // 2
    # A block is two words in memory.
    blocks = out[: 2 * whole].view(np.int64)
    for i in range(whole):
        blocks[i] = threefry(key0, key1, begin + i)
    if out.shape[0] % 2:
        out[2 * whole] = threefry(key0, key1, begin + whole) & 0xFFFFFFFF


@job(write(1), read(1, "int64"), INT, INT, INT, INT, NUMBER)
def uniform_single(item: Any, out: Any, start: Any, offset: Any, key0: Any, key1: Any, chunk: Any, unit: Any) -> None:
    """The upper 24 bits of each word, times ``unit``."""
    part = out[2 * chunk * item : min(2 * chunk * (item + 1), out.shape[0])]
    words = part.view(np.uint32)
    _write_words(words, start[0] + offset + item * chunk, key0, key1)
    for i in range(part.shape[0]):
        part[i] = unit * np.float32(np.int32(words[i] >> 8))


@job(write(1), read(1, "int64"), INT, INT, INT, INT, NUMBER)
def uniform_double(item: Any, out: Any, start: Any, offset: Any, key0: Any, key1: Any, chunk: Any, unit: Any) -> None:
    """53 bits of each block, times ``unit``."""
    part = out[item * chunk : min((item + 1) * chunk, out.shape[0])]
    begin = start[0] + offset + item * chunk
    for i in range(part.shape[0]):
        word = threefry(key0, key1, begin + i)
        part[i] = unit * np.float64((((word & 0xFFFFFFFF) >> 5) << 26) | ((word >> 38) & 0x3FFFFFF))


@job(write(1), read(1, "int64"), read(1, "float64"), INT, INT, INT, INT, contract=False)
def normal(item: Any, out: Any, start: Any, moments: Any, offset: Any, key0: Any, key1: Any, chunk: Any) -> None:
    """Normal numbers from 53 bits of each block, with a mean and a standard deviation."""
    part = out[item * chunk : min((item + 1) * chunk, out.shape[0])]
    begin, mean, deviation = start[0] + offset + item * chunk, moments[0], moments[1]
    for i in range(part.shape[0]):
        word = threefry(key0, key1, begin + i)
        unit = np.float64((((word & 0xFFFFFFFF) >> 5) << 26) | ((word >> 38) & 0x3FFFFFF)) * 2.0**-53
        part[i] = normal_quantile(unit + 2.0**-54) * deviation + mean


@job(write(1, "int8"), write(2, "uint32"), read(1, "int64"), INT, INT, INT, INT, INT)
def at_least(
    item: Any, out: Any, scratch: Any, start: Any, offset: Any, key0: Any, key1: Any, chunk: Any, least: Any
) -> None:
    """Whether the upper 24 bits of each word are at least that number."""
    part = out[2 * chunk * item : min(2 * chunk * (item + 1), out.shape[0])]
    words = scratch[item, : part.shape[0]]
    _write_words(words, start[0] + offset + item * chunk, key0, key1)
    bound = np.int32(least)
    for i in range(part.shape[0]):
        part[i] = np.int32(words[i] >> 8) >= bound


class RandomNumbers:
    """Draws from a stream with a key of two words, which begin at the sum of a position in an array and an offset."""

    def uniform(self, key: tuple[int, int], start: Array, offset: int, shape: tuple[int, ...], dtype: str) -> Array:
        """On ``[0, 1)``: from a word each in float32, from a block of two in float64."""
        out = empty(shape, dtype)
        flat = out.reshape(-1)
        if dtype == "float64":
            items = -(-flat.size // ITEM_BLOCKS)
            perform(uniform_double.bind(items, flat, start, offset, *key, ITEM_BLOCKS, 2.0**-53))
        else:
            items = -(-flat.size // (2 * ITEM_BLOCKS))
            perform(uniform_single.bind(items, flat, start, offset, *key, ITEM_BLOCKS, 2.0**-24))
        return out

    def normal(
        self,
        key: tuple[int, int],
        start: Array,
        offset: int,
        shape: tuple[int, ...],
        dtype: str,
        mean: float,
        deviation: float,
    ) -> Array:
        """Normal, computed in float64 from a block each and rounded once."""
        out, moments = empty(shape, dtype), np.array([mean, deviation], np.float64)
        items = -(-out.size // NORMAL_BLOCKS)
        perform(normal.bind(items, out.reshape(-1), start, moments, offset, *key, NORMAL_BLOCKS))
        return out

    def at_least(self, key: tuple[int, int], start: Array, offset: int, shape: tuple[int, ...], least: int) -> Array:
        """Whether 24 bits of a word each, as an integer, are at least that number."""
        out = empty(shape, np.bool_)
        items = -(-out.size // (2 * ITEM_BLOCKS))
        scratch = empty((items, min(2 * ITEM_BLOCKS, out.size)), np.uint32)
        flat = out.reshape(-1).view(np.int8)
        perform(at_least.bind(items, flat, scratch, start, offset, *key, ITEM_BLOCKS, least))
        return out


def prepare(problem: None, dtype: str) -> RandomNumbers:
    """Draws of numbers."""
    return RandomNumbers()
