"""All compiled kernels: the module that `xpnn.backends.engines.numba.load` returns."""

from .average_pool import means, spread_means
from .batch_norm import column_moments, column_sums, normalise, normalise_backward
from .depthwise_convolution import convolve_by_channel, correlate_by_channel
from .direct_convolution import VECTOR_LANES, convolve, correlate, pad, widen, width
from .max_pool import max_cells, scatter_maxima
from .optimizer_steps import descend, descend_scaled, descend_with_momentum
from .relu import gate, positive

__all__ = [
    "VECTOR_LANES",
    "column_moments",
    "column_sums",
    "convolve",
    "convolve_by_channel",
    "correlate",
    "correlate_by_channel",
    "descend",
    "descend_scaled",
    "descend_with_momentum",
    "gate",
    "max_cells",
    "means",
    "normalise",
    "normalise_backward",
    "pad",
    "positive",
    "scatter_maxima",
    "spread_means",
    "widen",
    "width",
]
