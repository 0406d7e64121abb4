"""Threefry-2x32 with 20 rounds: a hash of a counter, from integer operations that no library rounds.

Unsigned 32-bit arithmetic is not complete in every library (PyTorch has no shifts for it), so words are stored in int64
and cut to 32 bits.

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from typing import Any

#: The largest word of 32 bits.
MASK = 0xFFFFFFFF
PARITY = 0x1BD11BDA
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(key: tuple[int, int], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Threefry-2x32-20: hash two 32-bit words of counter under two of key.

    ``counter`` holds Python integers or int64 arrays with values below 2**32, and so does the result. The left word is
    cut to 32 bits only once per injection: it can't exceed int64 in between.
    """
    schedule = (*key, key[0] ^ key[1] ^ PARITY)
    left, right = (counter[0] + schedule[0]) & MASK, (counter[1] + schedule[1]) & MASK
    for injection in range(1, 6):
        for rotation in ROTATIONS[(injection - 1) % 2]:
            left = left + right
            right = (((right << rotation) | (right >> (32 - rotation))) ^ left) & MASK
        left = (left + schedule[injection % 3]) & MASK
        right = (right + schedule[(injection + 1) % 3] + injection) & MASK
    return left, right
