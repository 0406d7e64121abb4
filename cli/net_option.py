"""The option ``--model``: a built-in net, an ONNX file, or a function of the user's own as ``module:function``."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from ..backends import Backend, BackendUnavailable
from ..backends.errors import first_line
from ..interop.onnx.from_onnx import from_onnx, is_onnx
from ..layers.core.layer import Layer
from ..layers.models import BUILDERS
from .errors import UsageError


def net_name(name: str) -> str:
    """An argument that names a net."""
    module, colon, function = name.partition(":")
    if name in BUILDERS or is_onnx(name) or (colon and module and function.isidentifier()):
        return name
    raise argparse.ArgumentTypeError(
        f"must be one of {', '.join(sorted(BUILDERS))}, a file that ends in .onnx, or module:function of your own, got "
        f"{name!r}"
    )


def builder(name: str) -> Callable[..., Layer]:
    """The function that makes a net from an image's shape ``(C, H, W)`` and a number of classes.

    Imports the module of a user's own function.
    """
    if name in BUILDERS:
        return BUILDERS[name]
    if is_onnx(name):
        return partial(_from_file, name)
    module, _, function = name.partition(":")
    # As `python -m` does: the user's modules are in the folder in which the command is run.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--model {name}: {error}") from error
    except Exception as error:
        # The module is the user's own and may raise anything.
        raise UsageError(f"--model {name}: {type(error).__name__}: {error}{_file_and_line(error)}") from error
    if not callable(found):
        raise UsageError(
            f"--model {name} must be a function of an image's shape and the number of classes, got "
            f"{type(found).__name__}"
        )
    return cast(Callable[..., Layer], found)


def _from_file(name: str, image: tuple[int, int, int], classes: int, **placement: Any) -> Layer:
    """The net of an ONNX file, in training; `UsageError` unless it gives a number for each class of such images."""
    try:
        model = from_onnx(name, (None, *image), **placement).train()
    except ModuleNotFoundError as error:
        raise UsageError(f"--model {name}: {error}") from error
    try:
        found = model.output_shape((1, *image))
    except (TypeError, ValueError) as error:
        size = " x ".join(map(str, image))
        raise UsageError(f"--model {name} does not accept images of {size}: {first_line(error)}") from error
    if found != (1, classes):
        raise UsageError(f"--model {name} returns {found[1:]} for an image, and the data has {classes} classes")
    return model


def _file_and_line(error: Exception) -> str:
    """Where an error was raised; empty for a `SyntaxError`, whose message contains it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"


def build_net(name: str, image: tuple[int, int, int], classes: int, backend: Backend | None, seed: int = 0) -> Layer:
    """The net of that name; ``backend`` and ``seed`` are passed on if there is a backend."""
    make = builder(name)
    where: dict[str, Any] = {} if backend is None else {"backend": backend, "seed": seed}
    try:
        model = make(image, classes, **where)
    except TypeError as error:
        raise UsageError(
            f"--model {name}: {error}; it is called as {name.rpartition(':')[2]}(image, classes, backend=..., seed=...)"
        ) from error
    except (UsageError, BackendUnavailable, ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        if name in BUILDERS:
            raise
        raise UsageError(f"--model {name}: {type(error).__name__}: {error}{_file_and_line(error)}") from error
    if not isinstance(model, Layer):
        raise UsageError(f"--model {name} must return a layer, got {type(model).__name__}")
    return model
