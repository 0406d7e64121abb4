"""All compiled kernels: the module that `xpnn.backends.engines.numba.load` returns."""

from .average_pool import means, spread_means
from .batch_norm import column_moments, column_sums, normalise, normalise_backward
from .max_pool import max_cells, scatter_maxima
from .optimizer_steps import adam_step, momentum_step, sgd_step
from .relu import relu, relu_backward

__all__ = [
    "adam_step",
    "column_moments",
    "column_sums",
    "max_cells",
    "means",
    "momentum_step",
    "normalise",
    "normalise_backward",
    "relu",
    "relu_backward",
    "scatter_maxima",
    "sgd_step",
    "spread_means",
]
