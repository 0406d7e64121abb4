"""Threefry-2x32 with 20 rounds inside jobs, in instructions of 32 bits that LLVM computes for whole vectors.

The formula and its source are in `xpnn.backends.random.threefry`; the bits are the same.
"""

from typing import Any

from llvmlite import ir
from numba import types

from ...random.threefry import PARITY, ROTATIONS
from .atomics import WORD
from .compiler import instruction


@instruction
def threefry(context: Any, key0: Any, key1: Any, counter: Any) -> Any:
    """The hash of a counter of 64 bits under a key of two words: left word in the lower 32 bits, right word above."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        half = ir.IntType(32)
        key0, key1, counter = arguments
        keys = [builder.trunc(key0, half), builder.trunc(key1, half)]
        keys.append(builder.xor(builder.xor(*keys), ir.Constant(half, PARITY)))
        high = builder.lshr(counter, ir.Constant(WORD, 32))
        left, right = (
            builder.add(builder.trunc(counter, half), keys[0]),
            builder.add(builder.trunc(high, half), keys[1]),
        )
        for injection in range(1, 6):
            for rotation in ROTATIONS[(injection - 1) % 2]:
                left = builder.add(left, right)
                up, down = ir.Constant(half, rotation), ir.Constant(half, 32 - rotation)
                right = builder.or_(builder.shl(right, up), builder.lshr(right, down))
                right = builder.xor(right, left)
            left = builder.add(left, keys[injection % 3])
            right = builder.add(builder.add(right, keys[(injection + 1) % 3]), ir.Constant(half, injection))
        return builder.or_(builder.zext(left, WORD), builder.shl(builder.zext(right, WORD), ir.Constant(WORD, 32)))

    return types.int64(types.int64, types.int64, types.int64), generate
