"""Upsampling: to a given size or by a factor, by the nearest cell or by interpolation.

By the nearest cell and whole factors ``s``, along each spatial axis::

    y[..., o] = x[..., o // s]          dx[..., i] = sum over o with o // s = i of  dy[..., o]

The other modes and factors are in `xpnn.layers.reshaping.interpolation`.
"""

from collections.abc import Sequence
from math import floor
from typing import Any, ClassVar, TypeAlias, Unpack

from ...backends.contractions.windows import Windows
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float, require_shape, spatial_shape
from ..core.axis_order import channels_first, channels_last
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..windows.geometry import Size
from .interpolation import MODES, Resized, resize, resize_backward

Scale: TypeAlias = float | Sequence[float]


@without_graph
def upsample_nearest(x: Array, scale_factor: Size, *, xp: Namespace | None = None) -> Array:
    """Repeat each cell of ``x (N, C, *S)`` ``scale_factor`` times along each spatial axis: ``(N, C, *(S * scale))``.

    Parameters
    ----------
    x : array
        float32 or float64, with at least one spatial axis.
    scale_factor : int or sequence of int
        Per spatial axis, at least 1.

    Raises
    ------
    ValueError, TypeError
        For a scale factor out of range, or an input without spatial axes.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    scale = checks.per_axis("scale_factor", scale_factor, len(spatial_shape(tuple(x.shape))))
    cells = channels_last(x, xp)
    for axis, times in enumerate(scale):
        cells = xp.repeat(cells, times, axis=axis + 1)
    return channels_first(cells, xp)


@without_graph
def upsample_nearest_backward(dy: Array, scale_factor: Size, *, xp: Namespace | None = None) -> Array:
    """Gradient of `upsample_nearest` for ``dy (N, C, *(S * scale))``: the sum over the copies of each cell."""
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    spatial = spatial_shape(tuple(dy.shape))
    scale = checks.per_axis("scale_factor", scale_factor, len(spatial))
    if any(n % s for n, s in zip(spatial, scale, strict=True)):
        raise ValueError(f"spatial axes of dy must be multiples of {scale}, got shape {tuple(dy.shape)}")
    cells = channels_last(dy, xp)
    count = tuple(n // s for n, s in zip(spatial, scale, strict=True))
    first, *others = Windows(scale, scale, (1,) * len(scale), count).slices()
    dx = cells[first]
    for index in others:
        dx = dx + cells[index]
    return channels_first(dx, xp)


@without_graph
def upsample(
    x: Array,
    scale_factor: Scale | None = None,
    *,
    size: Size | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    xp: Namespace | None = None,
) -> Array:
    """Resize the spatial axes of ``x (N, C, *S)``, as PyTorch's `interpolate` does without `antialias`.

    Parameters
    ----------
    x : array
        float32 or float64, with at least one spatial axis, each of one cell or more.
    scale_factor : float or sequence of float, optional
        Per spatial axis, above 0: an axis of ``n`` cells gets ``floor(n * scale_factor)``.
    size : int or sequence of int, optional
        The sizes of the spatial axes, instead of a scale factor.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic"}
        Linear is for one spatial axis, bilinear and bicubic for two, trilinear for three.
    align_corners : bool, optional
        For modes that interpolate: whether the centres of the cells at the corners stay where they are; else, and if
        None, their outer corners do.
    xp : namespace, optional
        The input's own unless given.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, or a mode for another number of axes.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    axes = _axes(tuple(x.shape), *_checked(scale_factor, size, mode, align_corners))
    return resize(x, axes, xp)


@without_graph
def upsample_backward(
    dy: Array,
    x_shape: tuple[int, ...],
    scale_factor: Scale | None = None,
    *,
    size: Size | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    xp: Namespace | None = None,
) -> Array:
    """Gradient of `upsample` for ``dy (N, C, *O)``: ``(N, C, *S)``."""
    xp = namespace(xp, dy=dy)
    require_float(dy, "dy")
    x_shape = checks.shape("x_shape", x_shape)
    axes = _axes(x_shape, *_checked(scale_factor, size, mode, align_corners))
    require_shape(dy, (*x_shape[:2], *(axis.m for axis in axes)), "dy")
    return resize_backward(dy, axes, xp)


def _checked(
    scale_factor: Any, size: Any, mode: str, align_corners: bool | None
) -> tuple[Scale | None, Size | None, str, bool | None]:
    """The arguments, in Python's own numbers and tuples."""
    mode = checks.choice("mode", mode, MODES)
    if align_corners is not None:
        align_corners = checks.flag("align_corners", align_corners)
        if mode.startswith("nearest"):
            raise ValueError(f"align_corners is for modes that interpolate, got {align_corners} with mode {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"give either size or scale_factor, got size {size!r} and scale_factor {scale_factor!r}")
    if size is not None:
        size = checks.listed(size)
        return None, checks.size("size", size, len(size) if checks.is_sequence(size) else 1), mode, align_corners
    return _checked_scale(scale_factor), None, mode, align_corners


def _checked_scale(scale_factor: Any) -> Scale:
    given = checks.listed(scale_factor)
    several = checks.is_sequence(given)
    try:
        scales = tuple(checks.number("scale_factor", each, above=0.0) for each in (given if several else (given,)))
        if not scales:
            raise ValueError
    except ValueError:
        raise ValueError(
            "scale_factor must be an integer >= 1, another number > 0, or one for each spatial axis, "
            f"got {checks.shown(scale_factor)}"
        ) from None
    return scales if several else scales[0]


def _axes(
    shape: Shape, scale_factor: Scale | None, size: Size | None, mode: str, align_corners: bool | None
) -> tuple[Resized, ...]:
    """How each spatial axis is resized."""
    spatial = spatial_shape(shape)
    count = len(spatial)
    if MODES[mode] not in (None, count):
        raise ValueError(f"mode {mode!r} is for {MODES[mode]} spatial axes, the input has {count} (shape {shape})")
    scales: Sequence[float | None] = (None,) * count
    if scale_factor is not None:
        scales = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor,) * count
        if len(scales) != count:
            raise ValueError(f"scale_factor must have one number for each of {count} axes, got {scale_factor!r}")
        sizes = tuple(floor(float(n) * float(s or 1)) for n, s in zip(spatial, scales, strict=True))
    else:
        sizes = checks.per_axis("size", size or 0, count)
    if not all(spatial) or not all(sizes):
        raise ValueError(f"input and output must have cells along every spatial axis, got {spatial} and {sizes}")
    triples = zip(spatial, sizes, scales, strict=True)
    return tuple(Resized(n, m, None if s is None else float(s), mode, bool(align_corners)) for n, m, s in triples)


class Upsample(Layer):
    """Resize the spatial axes of ``(N, C, *S)``; see `upsample`. Whole factors repeat each cell by default.

    Parameters
    ----------
    scale_factor, size, mode, align_corners
        As in `upsample`: either a scale factor or a size. PyTorch has `size` first.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From the constructor for arguments out of range; from `forward` for an input with another number of axes.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("scale_factor", ...),
        ("size", None),
        ("mode", "nearest"),
        ("align_corners", None),
    )

    def __init__(
        self,
        scale_factor: Scale | None = None,
        size: Size | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.scale_factor, self.size, self.mode, self.align_corners = _checked(scale_factor, size, mode, align_corners)

    @property
    def _whole(self) -> Any:
        """The factors, if cells are repeated, else None."""
        scale = self.scale_factor
        each = scale if isinstance(scale, tuple) else (scale,)
        return scale if self.mode == "nearest" and all(isinstance(s, int) for s in each) else None

    def _resized(self, shape: Shape) -> tuple[Resized, ...]:
        return _axes(shape, self.scale_factor, self.size, self.mode, self.align_corners)

    def _output_shape(self, shape: Shape) -> Shape:
        if self._whole is None:
            return (*shape[:2], *(axis.m for axis in self._resized(shape)))
        spatial = spatial_shape(shape)
        scale = checks.per_axis("scale_factor", self._whole, len(spatial))
        return (*shape[:2], *(n * s for n, s in zip(spatial, scale, strict=True)))

    def _forward(self, x: Array) -> Array:
        if self._whole is not None:
            return upsample_nearest(x, self._whole, xp=self.backend.xp)
        self.save_for_backward(tuple(x.shape))
        return resize(x, self._resized(tuple(x.shape)), self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        if self._whole is not None:
            return upsample_nearest_backward(dy, self._whole, xp=self.backend.xp)
        (shape,) = self.saved
        return resize_backward(dy, self._resized(shape), self.backend.xp)
