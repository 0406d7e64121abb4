"""xpnn: neural-network layers, forward and backward, in the Python Array API standard.

The same code runs on NumPy on a CPU and on CuPy on an NVIDIA GPU::

    import xpnn as nn

    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Dense(512, 10), backend="cupy"
    )
    logits = model(model.backend.asarray(images))
"""

from . import layers, testing
from .backends import Backend, BackendUnavailable, backend_of, get_backend, random, use_backend
from .interop.safetensors import load, save
from .layers import functional, initialisers, models
from .layers.activations import ReLU, Sigmoid, Softmax, Tanh
from .layers.base import Layer
from .layers.containers import Container, Sequential
from .layers.conv import Conv1d, Conv2d, Conv3d
from .layers.dense import Dense
from .layers.losses import CrossEntropy, Loss, MeanSquaredError
from .layers.parameter import Parameter
from .layers.pool import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from .layers.shape import Flatten
from .training.data import DataLoader
from .training.fit import evaluate, fit, predict
from .training.history import History
from .training.optimizers import SGD, Adam, Optimizer

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Backend",
    "BackendUnavailable",
    "Container",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "CrossEntropy",
    "DataLoader",
    "Dense",
    "Flatten",
    "History",
    "Layer",
    "Loss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MeanSquaredError",
    "Optimizer",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "backend_of",
    "evaluate",
    "fit",
    "functional",
    "get_backend",
    "initialisers",
    "layers",
    "load",
    "models",
    "predict",
    "random",
    "save",
    "testing",
    "use_backend",
]
