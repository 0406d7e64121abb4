"""Arrays outside of PyTorch's autograd graph: the library has gradients of its own and records nothing.

One rule holds for layers, containers, losses and functions, in training and evaluation: what they return and what they
save for backward is in no graph, even if it is the input itself or a view of it, which still shares its memory.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


def outside_graph(value: Any) -> Any:
    """The same numbers in the same memory, in no graph; for a tuple, each entry."""
    if isinstance(value, tuple):
        return tuple(outside_graph(each) for each in value)
    return value.detach() if getattr(value, "requires_grad", False) is True else value


def without_graph(function: Callable[P, R]) -> Callable[P, R]:
    """A function of arrays that records nothing for any tensors."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        # Turning recording off takes longer than many a function, and all arrays must be of one library.
        if np.ndarray in map(type, args):
            return function(*args, **kwargs)
        torch = sys.modules.get("torch")
        # Inside a layer, recording is off already. A module that is still being imported lacks the function.
        if torch is None or not getattr(torch, "is_grad_enabled", bool)():
            return function(*args, **kwargs)
        with torch.no_grad():
            found: R = outside_graph(function(*args, **kwargs))
        return found

    return call
