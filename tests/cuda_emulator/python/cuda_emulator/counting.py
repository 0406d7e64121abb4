"""Counts of what was asked of the device."""

import ctypes

from .libraries import device

# In the order of native/device/counts.h.
NAMES = ("kernels", "to_device", "to_host", "within", "fills", "waits", "allocations", "others")


def counts() -> dict[str, int]:
    """How often each kind of operation was asked for in this process, replays of graphs counted as one of ``others``.

    ``kernels`` are launches; ``to_device``, ``to_host`` and ``within`` copies; ``fills`` are of memory; ``waits`` are
    of the host for a stream or for the device, those within copies included; ``allocations`` are CuPy's, not those of
    arrays within its pool; ``others`` are functions of cuBLAS, CUB and Thrust, functions of the host, and replays.
    """
    numbers = (ctypes.c_long * len(NAMES))()
    device().cuda_emulator_counts(numbers)
    return dict(zip(NAMES, numbers, strict=True))
