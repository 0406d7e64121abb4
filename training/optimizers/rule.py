"""What the methods of a rule receive and return."""

from collections.abc import Mapping
from typing import NamedTuple

from ...common.types import Array
from .counters import Number


class State(NamedTuple):
    """What `Optimizer._step` reads beside the gradient.

    Attributes
    ----------
    arrays : mapping of str to array
        Those of `Optimizer._state_names`, zeros before the first step; `_step` changes them in place.
    numbers : tuple of numbers
        What `Optimizer._advance` returned.
    is_first : bool
        Whether this is the parameter's first step.
    """

    arrays: Mapping[str, Array]
    numbers: tuple[Number, ...]
    is_first: bool


class FusedUpdate(NamedTuple):
    """The kernel that updates all parameters of a device in one launch.

    Attributes
    ----------
    name : str
        Under which `Operations.prepare` knows it.
    settings : tuple of float
        In the kernel's order.
    counters : mapping of str to number
        Names and first values of the counters that the kernel advances on the device, in place of `_advance`.
    """

    name: str
    settings: tuple[float, ...]
    counters: Mapping[str, float] = {}
