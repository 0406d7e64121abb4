"""Packages that are imported when a function first needs them."""

import importlib
from typing import Any


def torch_for(function: str) -> Any:
    """PyTorch, for the function of that name; `ModuleNotFoundError` if it is not installed."""
    return _imported("torch", function, "PyTorch", "torch")


def onnx_for(function: str) -> Any:
    """The package ``onnx``, for the function of that name; `ModuleNotFoundError` if it is not installed."""
    what, requirement = "the package onnx", "'onnx>=1.16'"
    # It does not import this part itself.
    _imported("onnx.reference", function, what, requirement)
    return _imported("onnx", function, what, requirement)


def _imported(module: str, function: str, what: str, requirement: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{function} needs {what}, which is not installed: pip install {requirement}"
        ) from error
