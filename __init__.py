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
from .training import augment, optimizers, schedules
from .training.checkpoints import CheckpointError, Checkpoints
from .training.data_loader import DataLoader
from .training.early_stopping import EarlyStopping
from .training.fit import evaluate, fit, predict
from .training.history import History
from .training.nan_check import NonFiniteError
from .training.optimizers import *  # noqa: F403 - as for the layers
from .training.out_of_memory import OutOfMemory
from .training.schedules import *  # noqa: F403 - as for the layers

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendUnavailable",
    "CheckpointError",
    "Checkpoints",
    "DataLoader",
    "EarlyStopping",
    "History",
    "NonFiniteError",
    "OutOfMemory",
    "augment",
    "backend_of",
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
__all__ += optimizers.__all__
__all__ += schedules.__all__

# Modules from further down the tree, so that ``import xpnn.functional`` and ``from xpnn.models import lenet`` find what
# ``nn.functional`` and ``nn.models`` are. Type checkers read the ``.pyi`` files beside this one.
for _module in (augment, layers.functional, layers.initialisers, layers.models, random):
    sys.modules[f"{__name__}.{_module.__name__.rpartition('.')[2]}"] = _module
del _module
