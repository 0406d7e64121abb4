"""All compiled kernels: the module that `xpnn.backends.engines.numba.load` returns."""

from .average_pool import means, spread_means
from .batch_norm import column_moments, column_sums, normalise, normalise_backward
from .depthwise_convolution import convolve_by_channel, correlate_by_channel
from .direct_convolution import VECTOR_LANES, convolve, correlate, pad, widen, width
from .max_pool import max_cells, scatter_maxima
from .relu import relu, relu_backward

__all__ = [
    "VECTOR_LANES",
    "column_moments",
    "column_sums",
    "convolve",
    "convolve_by_channel",
    "correlate",
    "correlate_by_channel",
    "max_cells",
    "means",
    "normalise",
    "normalise_backward",
    "pad",
    "relu",
    "relu_backward",
    "scatter_maxima",
    "spread_means",
    "widen",
    "width",
]
