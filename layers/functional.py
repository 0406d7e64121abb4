"""The pure functions: any standard-conforming arrays in, arrays out, no state.

Each ``f`` stands beside its ``f_backward``. ``xp=None`` means the namespace of the inputs.
"""

from .activations import (
    log_softmax,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    tanh,
    tanh_backward,
)
from .conv import conv, conv_backward
from .dense import dense, dense_backward
from .losses.classification import cross_entropy, cross_entropy_backward
from .losses.regression import mean_squared_error, mean_squared_error_backward
from .pool import avg_pool, avg_pool_backward, max_pool, max_pool_backward

__all__ = [
    "avg_pool",
    "avg_pool_backward",
    "conv",
    "conv_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dense",
    "dense_backward",
    "log_softmax",
    "max_pool",
    "max_pool_backward",
    "mean_squared_error",
    "mean_squared_error_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
]
