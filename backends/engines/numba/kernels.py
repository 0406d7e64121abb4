"""All compiled kernels: the module that `xpnn.backends.engines.numba.load` returns."""

from .depthwise_convolution import convolve_by_channel, correlate_by_channel
from .direct_convolution import VECTOR_LANES, convolve, correlate, pad, widen, width

__all__ = [
    "VECTOR_LANES",
    "convolve",
    "convolve_by_channel",
    "correlate",
    "correlate_by_channel",
    "pad",
    "widen",
    "width",
]
