"""The kernels there are: what `xpnn.backends.kernels.load` gives."""

from .products import LANES, convolve, convolve_by_channel, correlate, correlate_by_channel, pad, widen, width

__all__ = ["LANES", "convolve", "convolve_by_channel", "correlate", "correlate_by_channel", "pad", "widen", "width"]
