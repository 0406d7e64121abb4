"""The last steps of a weight's gradient in exact numerics: totals to quanta, and quanta to the result."""

from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import empty
from .exact_vectors import lanes, totals_to_quanta
from .jobs import INT, NUMBER, job, read, write
from .pool import perform
from .winograd import Convolution

CELLS, LANES = 9, lanes()
#: 24 times the transform of a kernel's gradient: see `exact_winograd_jobs`.
GRADIENTS = ((6, -4, -4, 1, 1, 0), (0, -4, 4, 2, -2, 0), (0, -4, -4, 4, 4, 24))
_gradient = totals_to_quanta(GRADIENTS)


@job(read(1, "int64"), write(3, "int64"), *[INT] * 6)
def gradient_quanta(
    item: Any,
    totals: Any,
    quanta: Any,
    count: Any,
    per: Any,
    pitch: Any,
    each_feature: Any,
    feature_parts: Any,
    part: Any,
) -> None:
    """Totals ``(C, count f)`` of a group of tiles to quanta ``(9, C, count F)``, added to those of earlier groups.

    An item has ``per`` channels; ``part`` is the group times the parts of the features, plus one of these.
    """
    channels, wide = quanta.shape[1], quanta.shape[2]
    features, from_feature = wide // count, part % feature_parts * each_feature
    some = min(each_feature, features - from_feature)
    for c in range(item * per, min(channels, (item + 1) * per)):
        for k in range(count):
            place = k * features + from_feature
            if part < feature_parts:
                for i in range(CELLS):
                    for f in range(some):
                        quanta[i, c, place + f] = 0
            for f in range(0, some, LANES):
                source = totals.ctypes.data + 8 * ((c * count + k) * some + f)
                to = quanta.ctypes.data + 8 * (c * wide + place + f)
                _gradient(source, 8 * pitch, to, 8 * channels * wide)


@job(read(3, "int64"), read(1), read(1), write(3), NUMBER, *[INT] * 2, contract=False)
def combine_gradient(
    item: Any, quanta: Any, scales: Any, factors: Any, dweight: Any, unit: Any, count: Any, per: Any
) -> None:
    """Quanta ``(K, C, count F)`` to ``dweight (F, C, K)``: their sum with powers of two, times scales of channels.

    ``scales (C,)`` and ``factors (F,)`` include powers of two. An item has ``per`` features.
    """
    (features, channels, cells), result = dweight.shape, dweight.reshape(-1)
    first = item * per
    some = min(per, features - first)
    for c in range(channels):
        for i in range(cells):
            for f in range(some):
                q = np.float64(quanta[i, c, first + f])
                if count == 2:
                    q = np.float64(quanta[i, c, features + first + f]) * unit + q
                result[cells * (channels * (first + f) + c) + i] = q * scales[c] * factors[first + f]


def combined_gradient(problem: Convolution, quanta: Array, scales: Array, factors: Array, unit: float) -> Array:
    """``dweight (F, C, *K)`` of quanta ``(K, C, count F)``, with scales of channels and features."""
    p = problem
    dweight = empty((p.features, p.channels, p.windows.cells), "float64")
    count, per = quanta.shape[2] // p.features, min(8, p.features)
    perform(combine_gradient.bind(-(-p.features // per), quanta, scales, factors, dweight, unit, count, per))
    return dweight.reshape((p.features, p.channels, *p.windows.kernel))
