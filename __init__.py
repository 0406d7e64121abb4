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

import sys as _sys
import typing as _typing

from . import distributed, layers, testing
from .backends import Backend, BackendUnavailable, backend_of, get_backend, random, use_backend
from .common import other_names as _other_names
from .interop.onnx.from_onnx import from_onnx
from .interop.onnx.to_onnx import to_onnx
from .interop.safetensors import load, save
from .interop.torch.as_module import as_torch_module
from .interop.torch.from_torch import from_torch
from .interop.torch.to_torch import to_torch
from .layers import *  # noqa: F403 - all public layers: layers/__init__.py is their one list
from .training import augment, metrics
from .training import optimizers as _optimizers
from .training import schedules as _schedules
from .training.checkpoint_file import CheckpointError
from .training.checkpoints import Checkpoints
from .training.data_loader import DataLoader
from .training.early_stopping import EarlyStopping
from .training.ema import EMA
from .training.fit import evaluate, fit, predict
from .training.grad_scaler import GradScaler
from .training.history import History
from .training.nan_check import NonFiniteError
from .training.optimizers import *  # noqa: F403 - all optimizers, listed there, so that a new one needs no line here
from .training.out_of_memory import OutOfMemory
from .training.samplers import Sampler, WeightedRandomSampler
from .training.saved_net import Classifier, load_classifier
from .training.schedules import *  # noqa: F403 - all schedules, listed there too

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "Backend",
    "BackendUnavailable",
    "CheckpointError",
    "Checkpoints",
    "Classifier",
    "DataLoader",
    "EarlyStopping",
    "GradScaler",
    "History",
    "NonFiniteError",
    "OutOfMemory",
    "Sampler",
    "WeightedRandomSampler",
    "as_torch_module",
    "augment",
    "backend_of",
    "distributed",
    "evaluate",
    "fit",
    "from_onnx",
    "from_torch",
    "get_backend",
    "load",
    "load_classifier",
    "metrics",
    "predict",
    "random",
    "save",
    "testing",
    "to_onnx",
    "to_torch",
    "use_backend",
]
__all__ += layers.__all__
__all__ += _optimizers.__all__
__all__ += _schedules.__all__

# `import xpnn.functional` and `from xpnn.models import lenet` find these modules by their public names. Type checkers
# read the `.pyi` files beside this one.
_FAMILIES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        augment,
        distributed,
        layers.functional,
        layers.initialisers,
        layers.models,
        metrics,
        random,
        testing,
    )
}
_sys.modules.update({f"{__name__}.{short}": module for short, module in _FAMILIES.items()})


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


# Type checkers would believe that a module with `__getattr__` has every name.
if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> _typing.NoReturn:
        """Say in the error what a name of PyTorch or Keras, or one that is misspelt, is called here."""
        within = [f"{short}.{each}" for short, module in _FAMILIES.items() for each in _other_names.public(module)]
        raise _other_names.missing(__name__, name, _other_names.PACKAGE, [*__all__, *within])
