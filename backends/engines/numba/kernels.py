"""All compiled kernels: the module that `xpnn.backends.engines.numba.load` returns."""

from .depthwise_convolution import convolve_by_channel, correlate_by_channel
from .direct_convolution import VECTOR_LANES, convolve, correlate, pad, widen, width
from .optimizer_steps import adam_step, momentum_step, sgd_step

__all__ = [
    "VECTOR_LANES",
    "adam_step",
    "convolve",
    "convolve_by_channel",
    "correlate",
    "correlate_by_channel",
    "momentum_step",
    "pad",
    "sgd_step",
    "widen",
    "width",
]
