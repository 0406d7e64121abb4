"""Batches of one input, an array, or of several, a tuple of arrays with the same number of samples."""

from collections.abc import Sequence
from typing import Any

from ..common import checks
from ..common.types import Array


def sample_count(x: Array | tuple[Array, ...]) -> int:
    """Number of samples of a batch."""
    return int((x[0] if isinstance(x, tuple) else x).shape[0])


def some_samples(x: Any, start: int, stop: int) -> Any:
    """Samples ``start`` to ``stop - 1`` of a batch: views."""
    stop = min(stop, sample_count(x))
    return tuple(each[start:stop, ...] for each in x) if isinstance(x, tuple) else x[start:stop, ...]


def as_arguments(x: Array | tuple[Array, ...], target: Array) -> tuple[Array, ...]:
    """Input or inputs, and targets, as one flat tuple; `from_arguments` is the reverse."""
    return (*x, target) if isinstance(x, tuple) else (x, target)


def from_arguments(arrays: Sequence[Array]) -> tuple[Any, Array]:
    """Input, or a tuple of inputs, and targets."""
    *inputs, target = arrays
    return inputs[0] if len(inputs) == 1 else tuple(inputs), target


def several_inputs(x: Any, samples: int | None = None) -> tuple[Any, ...] | None:
    """The inputs of a net with several, or None if ``x`` is the samples of one.

    Inputs are a tuple of at least two arrays of as many samples each. A tuple of as many arrays as there are samples,
    of other lengths, is these samples.

    Raises
    ------
    ValueError
        For a tuple of arrays that is neither.
    """
    if not isinstance(x, tuple) or len(x) < 2 or not all(len(getattr(each, "shape", ())) for each in x):
        return None
    lengths = [len(each) for each in x]
    samples = lengths[0] if samples is None else samples
    if {*lengths} == {samples}:
        return x
    if len(x) == samples or len({*lengths}) == 1:
        return None
    raise ValueError(
        f"x is a tuple of {len(x)} inputs with {', '.join(map(str, lengths))} samples; each must have as many as y, "
        f"{samples}"
    )


def for_each_input(name: str, value: Any, inputs: int) -> tuple[Any, ...]:
    """A setting for each of several inputs, from a tuple or list with an entry, or None, for each.

    Raises
    ------
    ValueError
        Unless it has as many entries as there are inputs.
    """
    if value is None or inputs == 1:
        return (value,) * inputs
    if not isinstance(value, tuple | list) or len(value) != inputs:
        raise ValueError(
            f"{name} must be a tuple with one entry, or None, for each of {inputs} inputs, got {checks.shown(value)}"
        )
    return tuple(value)
