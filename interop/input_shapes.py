"""The argument ``input_shape`` of conversions: a shape with the batch axis, or one for each of several inputs."""

from typing import Any

from ..common import checks

#: A shape in which None is a size that is left open.
OpenShape = tuple[int | None, ...]


def input_shapes(function: str, given: Any, *, least_batch: int = 1, any_open: bool = False) -> list[OpenShape]:
    """The shape of each input, for the function of that name.

    Parameters
    ----------
    given : sequence
        One shape, or a sequence of shapes.
    least_batch : int
        The smallest batch.
    any_open : bool
        Whether sizes other than that of the batch may be None, too.

    Raises
    ------
    TypeError
        For anything but a shape or a sequence of shapes.
    ValueError
        For sizes out of range.
    """
    if not checks.is_sequence(given) or not len(given):
        raise TypeError(
            f"{function}: input_shape must be a shape with the batch axis, such as (None, 3, 32, 32), got "
            f"{checks.shown(given)}"
        )
    shapes = list(given) if all(map(checks.is_sequence, given)) else [given]
    where = "an axis" if any_open else "the batch axis"
    for shape in shapes:
        fits = [
            (n is None and (any_open or not axis)) or (checks.is_integer(n) and n >= (1 if axis else least_batch))
            for axis, n in enumerate(shape)
        ]
        if not (fits and all(fits)):
            raise ValueError(
                f"{function}: input_shape must have sizes >= 1, or None for {where}, got {checks.shown(shape)}"
            )
    return [tuple(None if n is None else int(n) for n in shape) for shape in shapes]
