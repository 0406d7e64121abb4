"""PyTorch, imported when it is first needed."""

import importlib
from typing import Any


def torch_for(name: str) -> Any:
    """The package ``torch``, for the function of that name.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ModuleNotFoundError(f"{name} needs PyTorch, which is not installed: pip install torch") from error
