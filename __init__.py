"""xpnn: neural-network layers, forward and backward, in the Python Array API standard.

The same code runs on NumPy on a CPU and on CuPy on an NVIDIA GPU; ``"auto"`` is CuPy where a GPU works, else NumPy::

    import numpy as np
    import xpnn as nn

    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding="same"), nn.ReLU(), nn.Flatten(), nn.Dense(512, 10), backend="auto"
    )
    images = np.random.rand(64, 1, 8, 8).astype("float32")
    logits = model(model.backend.asarray(images))
"""

import sys

from . import layers, testing
from .backends import Backend, BackendUnavailable, backend_of, get_backend, random, use_backend
from .interop.safetensors import load, save
from .layers import *  # noqa: F403 - the layers' own list of names is theirs to keep
from .training import augment
from .training.checkpoint_file import CheckpointError
from .training.checkpoints import Checkpoints
from .training.data_loader import DataLoader
from .training.early_stopping import EarlyStopping
from .training.fit import evaluate, fit, predict
from .training.history import History
from .training.nan_check import NumericalTrouble
from .training.optimizers.base import Optimizer
from .training.optimizers.clipping import clip_grad_norm, clip_grad_value
from .training.optimizers.rules import SGD, Adagrad, Adam, AdamW, RMSprop
from .training.out_of_memory import OutOfMemory
from .training.schedules.timed import CosineLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Backend",
    "BackendUnavailable",
    "CheckpointError",
    "Checkpoints",
    "CosineLR",
    "DataLoader",
    "EarlyStopping",
    "ExponentialLR",
    "History",
    "NumericalTrouble",
    "OneCycleLR",
    "Optimizer",
    "OutOfMemory",
    "RMSprop",
    "ReduceLROnPlateau",
    "StepLR",
    "augment",
    "backend_of",
    "clip_grad_norm",
    "clip_grad_value",
    "evaluate",
    "fit",
    "get_backend",
    "layers",
    "load",
    "predict",
    "random",
    "save",
    "testing",
    "use_backend",
]
__all__ += layers.__all__

# Modules from further down the tree, so that ``import xpnn.functional`` and ``from xpnn.models import lenet`` find what
# ``nn.functional`` and ``nn.models`` are. Type checkers read the ``.pyi`` files beside this one.
for _module in (augment, layers.functional, layers.initialisers, layers.models, random):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module
del _module
