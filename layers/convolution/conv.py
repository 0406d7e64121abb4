"""Convolution of any number of spatial dimensions.

As in every framework, "convolution" is cross-correlation. With input ``x (N, C, *S)``, ``weight (F, C/G, *K)`` in ``G``
groups of channels, ``bias (F,)``, stride ``s``, dilation ``d`` and padded input ``p``::

    y[n, f, o]        = bias[f] + sum over c, k of  p[n, c, o*s + k*d] * weight[f, c, k]
    dweight[f, c, k]  =           sum over n, o of  p[n, c, o*s + k*d] * dy[n, f, o]
    dx[n, c, i]       =           sum over f and all o, k with o*s + k*d = i of  dy[n, f, o] * weight[f, c, k]
    dbias[f]          =           sum over n, o of  dy[n, f, o]

so ``dweight`` is the cross-correlation of the input with ``dy``, and ``dx`` the full convolution of ``dy``, with
``s - 1`` zeros between its cells, with the kernel rotated by 180 degrees, cut to the input. ``y``, ``dx`` and
``dweight`` are one bilinear map and its adjoints; the package's docstring lists the algorithms that compute them.

Sources: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998; V. Dumoulin and F. Visin,
"A guide to convolution arithmetic for deep learning", 2016; K. Chellapilla et al., 2006, for the matrix product.
"""

from math import prod
from typing import Any, ClassVar, Unpack, cast

from ...backends import operations_of
from ...backends.backend import ALGORITHMS
from ...backends.kept_calls import kept_calls
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.typed_cache import typed_cache
from ...common.types import Array, Namespace, dtype_name
from .. import convolution
from ..core.array_checks import namespace, require_dtype_of, require_same_dtype, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.kept import Keep, compute
from ..core.needed_gradients import Wanted
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import Initialiser
from ..windows.geometry import Geometry, Padding, Size, place_windows
from .bordered import BorderedLayer
from .gradients import gradients
from .problem import Problem, spatial_axes


@without_graph
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    algorithms: str = "any",
    xp: Namespace | None = None,
) -> Array:
    """Convolve ``x (N, C, *S)`` with ``weight (F, C/groups, *K)``: ``y (N, F, *O)``.

    Parameters
    ----------
    x, weight, bias : array
        Of one dtype, float32 or float64. Any number of spatial axes, at least one.
    stride, dilation : int or sequence of int
        Per axis.
    padding : int, sequence of int, sequence of (int, int), "valid", "same" or "same_lower"
        Zeros around the input: see `xpnn.layers.windows.geometry`.
    groups : int
        Groups of channels that are convolved separately; ``C`` for a depthwise convolution.
    algorithms : {"any", "direct"}
        ``"direct"`` for sums of products alone: see `xpnn.layers.convolution.winograd`.
    xp : namespace, optional
        The inputs' own unless given.

    Returns
    -------
    array
        Shape ``(N, F, *O)`` with ``O = floor((S + before + after - dilation*(K-1) - 1) / stride) + 1``.

    Raises
    ------
    ValueError, TypeError
        For shapes that don't fit together, a kernel larger than the padded input, or mixed dtypes.
    """
    xp = namespace(xp, ("bias",), input=x, weight=weight, bias=bias)
    require_same_dtype(input=x, weight=weight, bias=bias)
    problem = _problem(x, weight, stride, padding, dilation, groups, algorithms)
    return _kept_conv(x, weight, bias, problem, False, xp)


@without_graph
def conv_backward(
    dy: Array,
    x: Array,
    weight: Array,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    input_grad: bool = True,
    algorithms: str = "any",
    xp: Namespace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of `conv`: ``(dx, dweight, dbias)`` for an upstream gradient ``dy (N, F, *O)``.

    The options are those of `conv`; ``dx`` is None with ``input_grad=False``.
    """
    xp = namespace(xp, dy=dy, input=x, weight=weight)
    require_same_dtype(dy=dy, input=x, weight=weight)
    problem = _problem(x, weight, stride, padding, dilation, groups, algorithms)
    wanted = Wanted(checks.flag("input_grad", input_grad))
    dx, dweight, dbias = gradients(dy, x, weight, problem, wanted, xp)
    return dx, cast(Array, dweight), cast(Array, dbias)


def _conv(
    x: Array, weight: Array, bias: Array | None, problem: Problem, relu: bool, xp: Namespace, keep: Keep = compute
) -> Array:
    """`conv`, or its ReLU, of arrays that fit the problem."""
    if bias is not None:
        require_shape(bias, (problem.features,), "bias")
    y = convolution.forward(channels_last(x, xp), weight, bias, problem, operations_of(xp), relu=relu, keep=keep)
    return channels_first(y, xp)


_kept_conv = kept_calls(3)(_conv)


def _problem(
    x: Array, weight: Array, stride: Size, padding: Padding, dilation: Size, groups: int, algorithms: str
) -> Problem:
    """The problem of a call; raises `ValueError` for shapes and settings that do not fit together."""
    shapes = tuple(x.shape), tuple(weight.shape)
    return _described(dtype_name(x.dtype), *shapes, stride, padding, dilation, groups, algorithms)


# Cached, so that checks, and the properties that a problem caches, are computed once for all steps.
@typed_cache(maxsize=1024)
def _described(
    dtype: str,
    x_shape: Shape,
    weight: Shape,
    stride: Size,
    padding: Padding,
    dilation: Size,
    groups: int,
    algorithms: str,
) -> Problem:
    groups = checks.integer("groups", groups, 1)
    geometry = _geometry(x_shape, weight, stride, padding, dilation, groups)
    return Problem(
        samples=x_shape[0],
        spatial=x_shape[2:],
        channels=x_shape[1],
        features=weight[0],
        groups=groups,
        windows=geometry.windows,
        padding=geometry.padding,
        dtype=dtype,
        algorithms=checks.choice("algorithms", algorithms, ALGORITHMS),
    )


def _geometry(x: Shape, weight: Shape, stride: Size, padding: Padding, dilation: Size, groups: int) -> Geometry:
    """The windows and padding; raises `ValueError` for shapes of input and weight that do not fit together."""
    axes = spatial_axes(x, weight, "(F, C/groups, *kernel)")
    if weight[0] % groups:
        raise ValueError(f"output channels must be a multiple of groups, got {weight[0]} channels in {groups} groups")
    channels = weight[1] * groups
    if x[1] != channels:
        raise ValueError(f"input has {x[1]} channel{'s' * (x[1] != 1)}, expected {channels} (shape {x})")
    return place_windows(
        x[2:],
        weight[2:],
        checks.per_axis("stride", stride, axes),
        padding,
        checks.per_axis("dilation", dilation, axes),
    )


class Conv(BorderedLayer):
    """Convolution with a trained ``weight (out, in/groups, *kernel)`` and ``bias (out,)``.

    Use `Conv1d`, `Conv2d` or `Conv3d`. The formulas are in `xpnn.layers.convolution.conv`.

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by ``groups``.
    kernel_size : int or sequence of int
        Per spatial axis.
    stride, padding, dilation, groups
        As in `conv`.
    bias : bool
        Whether a bias is added.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds: see `xpnn.layers.windows.borders`.
    weight_init, bias_init : initialiser
        ``he_uniform()`` and ``constant(0)`` unless given.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For arguments out of range, at once; for an input that does not fit, from `forward`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("in_channels", ...),
        ("out_channels", ...),
        ("kernel_size", ...),
        ("stride", 1),
        ("padding", 0),
        ("dilation", 1),
        ("groups", 1),
        ("bias", True),
        ("padding_mode", "zeros"),
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        weight_init: Initialiser | None = None,
        bias_init: Initialiser | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self._configure(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, weight_init, bias_init
        )
        self._set_padding_mode(padding_mode)

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Every output element is a sum over a kernel's cells and the channels of its group."""
        return prod(y_shape) * (self.in_channels // self.groups) * prod(self._kernel)

    def _output_shape(self, shape: Shape) -> Shape:
        weight = self.parameters["weight"].shape
        geometry = _geometry(shape, weight, self.stride, self.padding, self.dilation, self.groups)
        self._require_source(shape, geometry)
        return (shape[0], weight[0], *geometry.windows.count)

    def _affine(self, x: Array, weight: Array, bias: Array | None, keep: Keep, relu: bool) -> Array:
        require_dtype_of(x, weight, bias)
        x, xp = self._extended(x), self.backend.product_xp
        problem = self._problem(x, weight)
        if keep is compute:
            return _kept_conv(x, weight, bias, problem, relu, xp)
        return _conv(x, weight, bias, problem, relu, xp, keep)

    def _problem(self, x: Array, weight: Array) -> Problem:
        algorithms = self.backend.product_algorithms
        return _problem(x, weight, self.stride, self._zero_padding, self.dilation, self.groups, algorithms)

    def _gradients(
        self, dy: Array, x: Array, weight: Array, wanted: Wanted
    ) -> tuple[Array | None, Array | None, Array | None]:
        extended = self._extended(x)
        problem = self._problem(extended, weight)
        dx, dweight, dbias = gradients(dy, extended, weight, problem, wanted, self.backend.product_xp)
        return self._narrowed(dx, x), dweight, dbias


class Conv1d(Conv):
    """`Conv` over one spatial axis: ``(N, C, L)``."""

    axes = 1


class Conv2d(Conv):
    """`Conv` over two spatial axes: ``(N, C, H, W)``."""

    axes = 2


class Conv3d(Conv):
    """`Conv` over three spatial axes: ``(N, C, D, H, W)``."""

    axes = 3
