"""The kernels there are: what `xpnn.backends.engines.numba.load` gives."""

from .averages import means, spread_means
from .channels import convolve_by_channel, correlate_by_channel
from .columns import column_moments, column_sums, normalise, normalise_backward
from .gates import gate, positive
from .pools import max_cells, scatter_maxima
from .products import LANES, convolve, correlate, pad, widen, width
from .updates import descend, descend_scaled, descend_with_momentum

__all__ = [
    "LANES",
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
