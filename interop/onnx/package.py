"""The package ``onnx``, imported when it is first needed."""

import importlib
from typing import Any


def onnx_for(name: str) -> Any:
    """The package, for the function of that name.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    try:
        importlib.import_module("onnx.reference")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{name} needs the package onnx, which is not installed: pip install 'onnx>=1.16'"
        ) from error
