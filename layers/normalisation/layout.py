"""The layouts of normalisation: over which values each layer computes a mean, and the shapes that it accepts."""

from dataclasses import dataclass
from math import prod

from ...backends.execution.team import rows_of_all
from ...common import checks
from ...common.types import Array, Namespace


@dataclass(frozen=True)
class Layout:
    """Which values of an input share a mean, and which share an entry of the weight.

    Attributes
    ----------
    grid : tuple of int
        Shape to which the input is reshaped.
    axes : tuple of int
        Axes of the grid over which a mean is computed.
    weight : tuple of int
        Shape of weight and bias.
    broadcast : tuple of int
        Shape in which weight and bias broadcast to the grid: 1 along axes where they are constant.
    groups : int, optional
        Number of groups of channels, if each has a mean in each sample.
    is_row : bool
        Whether a mean is over the last axes, whose shape the weight has.
    """

    grid: tuple[int, ...]
    axes: tuple[int, ...]
    weight: tuple[int, ...]
    broadcast: tuple[int, ...]
    groups: int | None = None
    is_row: bool = False

    @property
    def cells(self) -> int:
        """Number of values of a mean, those of all workers that share a batch."""
        cells = prod(self.grid[axis] for axis in self.axes)
        return rows_of_all(cells) if 0 in self.axes else cells

    def along(self, vector: Array, order: tuple[int, ...], xp: Namespace) -> Array:
        """Weight, bias or statistics, to broadcast to the grid with its axes in this order."""
        return xp.permute_dims(xp.reshape(vector, self.broadcast), order)


def batch_layout(shape: tuple[int, ...]) -> Layout:
    """A mean for each channel of ``(N, C, *S)``."""
    _require_channels(shape)
    return Layout(shape, (0, *range(2, len(shape))), (shape[1],), (1, shape[1], *(1,) * (len(shape) - 2)))


def instance_layout(shape: tuple[int, ...]) -> Layout:
    """A mean for each channel of each sample of ``(N, C, *S)``."""
    if len(shape) < 3:
        raise ValueError(f"input must have shape (N, C, *spatial) with at least one spatial axis, got {shape}")
    broadcast = (1, shape[1], *(1,) * (len(shape) - 2))
    return Layout(shape, tuple(range(2, len(shape))), (shape[1],), broadcast, groups=shape[1])


def group_layout(shape: tuple[int, ...], num_groups: int) -> Layout:
    """A mean for each of ``num_groups`` groups of channels of each sample of ``(N, C, *S)``."""
    _require_channels(shape)
    num_groups = checks.integer("num_groups", num_groups, 1)
    if shape[1] % num_groups:
        raise ValueError(f"channels must be a multiple of num_groups, got {shape[1]} and {num_groups} (shape {shape})")
    split = (num_groups, shape[1] // num_groups)
    grid = (shape[0], *split, *shape[2:])
    broadcast = (1, *split, *(1,) * (len(shape) - 2))
    return Layout(grid, tuple(range(2, len(grid))), (shape[1],), broadcast, groups=num_groups)


def layer_layout(shape: tuple[int, ...], normalized_shape: tuple[int, ...]) -> Layout:
    """A mean over the last axes, which must be ``normalized_shape``."""
    first = len(shape) - len(normalized_shape)
    if not normalized_shape or first < 0 or shape[first:] != normalized_shape:
        raise ValueError(f"input must have shape (..., {', '.join(map(str, normalized_shape))}), got {shape}")
    axes = tuple(range(first, len(shape)))
    return Layout(shape, axes, normalized_shape, (1,) * first + normalized_shape, is_row=True)


def _require_channels(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        raise ValueError(f"input must have shape (N, C, ...), got {shape}")


def require_several(layout: Layout) -> None:
    """Raise `ValueError` if a mean is of one value: that value minus its mean would always be 0."""
    if layout.cells == 1:
        raise ValueError(
            f"the statistics of a channel need more than 1 value, the input has 1 for each (shape {layout.grid}); "
            "give a larger input, or use running statistics, with eval()"
        )
