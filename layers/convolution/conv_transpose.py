"""Transposed convolution of any number of spatial dimensions: the adjoint of `conv`.

With input ``x (N, C, *S)`` and ``weight (C, F/G, *K)``, each input cell adds its multiple of the kernel to the output.
With stride ``s``, dilation ``d``, padding ``(before, after)``, which is cut off the output, and ``bias (F,)``::

    y[n, f, i]        = bias[f] + sum over c and all o, k with o*s + k*d - before = i of  x[n, c, o] * weight[c, f, k]
    dx[n, c, o]       =           sum over f, k of  dy[n, f, o*s + k*d - before] * weight[c, f, k]
    dweight[c, f, k]  =           sum over n, o of  dy[n, f, o*s + k*d - before] * x[n, c, o]
    dbias[f]          =           sum over n, i of  dy[n, f, i]

so ``dx`` is a convolution of ``dy``, and ``<conv(u, w), x> = <u, conv_transpose(x, w)>`` for equal weights. The output
size is ``(S - 1)*s - before - after + d*(K - 1) + output_padding + 1``: ``output_padding`` picks one of the sizes that
a convolution maps to ``S``.

Source: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016, ch. 4.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, ClassVar, Unpack, cast

from ...backends import operations_of
from ...backends.backend import ALGORITHMS
from ...backends.contractions.windows import PadWidths, Windows
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from .. import convolution
from ..core.array_checks import namespace, require_dtype_of, require_same_dtype, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.kept import Keep, compute
from ..core.needed_gradients import Wanted
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import Initialiser
from ..windows.geometry import SAME, Padding, Size, resolve_padding
from .base import KernelLayer
from .gradients import transposed_gradients
from .problem import Problem, spatial_axes


@without_graph
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    algorithms: str = "any",
    xp: Namespace | None = None,
) -> Array:
    """Transposed convolution of ``x (N, C, *S)`` with ``weight (C, F/groups, *K)``: ``y (N, F, *O)``.

    Parameters
    ----------
    x, weight, bias : array
        Of one dtype, float32 or float64. Any number of spatial axes, at least one.
    stride, dilation : int or sequence of int
        Per axis.
    padding : int, sequence of int, sequence of (int, int) or "valid"
        Cells cut off the output: the padding of the convolution of which this is the adjoint.
    output_padding : int or sequence of int
        Cells added at the end of each axis, fewer than the stride or the dilation.
    groups : int
        Groups of channels that are convolved separately.
    algorithms : str
        As for `xpnn.layers.convolution.conv.conv`.
    xp : namespace, optional
        The inputs' own unless given.

    Raises
    ------
    ValueError, TypeError
        For shapes that don't fit together, an output without cells, or mixed dtypes.
    """
    xp = namespace(xp, ("bias",), input=x, weight=weight, bias=bias)
    require_same_dtype(input=x, weight=weight, bias=bias)
    groups = checks.integer("groups", groups, 1)
    plan = _plan(tuple(x.shape), tuple(weight.shape), stride, padding, output_padding, dilation, groups)
    if bias is not None:
        require_shape(bias, (plan.features,), "bias")
    return _conv_transpose(x, weight, bias, _problem(x, plan, groups, algorithms), compute, xp)


@without_graph
def conv_transpose_backward(
    dy: Array,
    x: Array,
    weight: Array,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    input_grad: bool = True,
    algorithms: str = "any",
    xp: Namespace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of `conv_transpose`: ``(dx, dweight, dbias)`` for an upstream gradient ``dy (N, F, *O)``.

    The options are those of `conv_transpose`; ``dx`` is None with ``input_grad=False``.
    """
    xp = namespace(xp, dy=dy, input=x, weight=weight)
    require_same_dtype(dy=dy, input=x, weight=weight)
    groups = checks.integer("groups", groups, 1)
    plan = _plan(tuple(x.shape), tuple(weight.shape), stride, padding, output_padding, dilation, groups)
    wanted = Wanted(checks.flag("input_grad", input_grad))
    dx, dweight, dbias = transposed_gradients(dy, x, weight, _problem(x, plan, groups, algorithms), wanted, xp)
    return dx, cast(Array, dweight), cast(Array, dbias)


def _conv_transpose(x: Array, weight: Array, bias: Array | None, problem: Problem, keep: Keep, xp: Namespace) -> Array:
    """`conv_transpose` of arrays that fit the problem."""
    y = convolution.input_gradient(channels_last(x, xp), weight, problem, operations_of(xp), keep=keep)
    return channels_first(y if bias is None else y + bias, xp)


def _problem(x: Array, plan: "_Plan", groups: int, algorithms: str) -> Problem:
    """The convolution of which this is the adjoint."""
    algorithms = checks.choice("algorithms", algorithms, ALGORITHMS)
    return _described(x.shape[0], x.shape[1], plan, groups, dtype_name(x.dtype), algorithms)


# Cached, so that the properties that a problem caches are computed once for all steps.
@lru_cache(maxsize=1024)
def _described(samples: int, features: int, plan: "_Plan", groups: int, dtype: str, algorithms: str) -> Problem:
    return Problem(
        samples=samples,
        spatial=plan.out,
        channels=plan.features,
        features=features,
        groups=groups,
        windows=plan.windows,
        padding=plan.padding,
        dtype=dtype,
        algorithms=algorithms,
    )


@dataclass(frozen=True)
class _Plan:
    """Sizes of a transposed convolution: the windows of the convolution of which it is the adjoint, and the output."""

    windows: Windows
    padding: PadWidths
    out: tuple[int, ...]
    features: int


def refuse_same(padding: Padding) -> None:
    """Raise `ValueError` for ``"same"`` and ``"same_lower"``, for which the output has no unique size."""
    if isinstance(padding, str) and padding in SAME:
        raise ValueError(
            f"padding must be a number of cells or 'valid', got {padding!r}; give the padding of the convolution of "
            "which this is the adjoint"
        )


def _plan(
    x: Shape, weight: Shape, stride: Size, padding: Padding, output_padding: Size, dilation: Size, groups: int
) -> _Plan:
    """The sizes; raises `ValueError` for shapes of input and weight that do not fit together."""
    axes = spatial_axes(x, weight, "(C, F/groups, *kernel)")
    if x[1] != weight[0] or weight[0] % groups:
        raise ValueError(f"input has {x[1]} channels, expected {weight[0]}, in {groups} equal groups (shape {x})")
    refuse_same(padding)
    s, d = checks.per_axis("stride", stride, axes), checks.per_axis("dilation", dilation, axes)
    extra = checks.per_axis("output_padding", output_padding, axes, least=0)
    if any(e >= max(a, b) for e, a, b in zip(extra, s, d, strict=True)):
        raise ValueError(f"output_padding {output_padding!r} must be below the stride {s} or the dilation {d}")
    spatial, kernel = x[2:], weight[2:]
    pairs = resolve_padding(padding, spatial, kernel, s, d)
    if min(spatial, default=0) < 1:
        raise ValueError(f"input must have a cell along each spatial axis, got shape {x}")
    full = tuple((n - 1) * a + b * (k - 1) + e + 1 for n, a, b, k, e in zip(spatial, s, d, kernel, extra, strict=True))
    out = tuple(n - before - after for n, (before, after) in zip(full, pairs, strict=True))
    if min(out) < 1:
        raise ValueError(f"padding {pairs} cuts off all of the output, which spans {full} cells")
    return _Plan(Windows(kernel, s, d, spatial), pairs, out, weight[1] * groups)


class ConvTranspose(KernelLayer):
    """Transposed convolution with a trained ``weight (in, out/groups, *kernel)`` and ``bias (out,)``.

    Use `ConvTranspose1d`, `ConvTranspose2d` or `ConvTranspose3d`. The formulas are in
    `xpnn.layers.convolution.conv_transpose`.

    Parameters
    ----------
    in_channels, out_channels : int
        Both divisible by ``groups``.
    kernel_size : int or sequence of int
        Per spatial axis.
    stride, padding, output_padding, groups, bias, dilation
        As in `conv_transpose`, in PyTorch's order.
    weight_init, bias_init : initialiser
        ``he_uniform()`` and ``constant(0)`` unless given.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For arguments out of range, at once; for an input that does not fit, from `forward`.
    """

    transposed = True
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("in_channels", ...),
        ("out_channels", ...),
        ("kernel_size", ...),
        ("stride", 1),
        ("padding", 0),
        ("output_padding", 0),
        ("groups", 1),
        ("bias", True),
        ("dilation", 1),
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        *,
        weight_init: Initialiser | None = None,
        bias_init: Initialiser | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        refuse_same(padding)
        self.output_padding = checks.size("output_padding", output_padding, self.axes, least=0)
        self._configure(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, weight_init, bias_init
        )

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Every input element is multiplied by every kernel cell of its group's outputs."""
        return prod(x_shape) * (self.out_channels // self.groups) * prod(self._kernel)

    def _output_shape(self, shape: Shape) -> Shape:
        plan = self._planned(shape, self.parameters["weight"].shape)
        return (shape[0], plan.features, *plan.out)

    def _planned(self, x: Shape, weight: Shape) -> _Plan:
        return _plan(x, weight, self.stride, self.padding, self.output_padding, self.dilation, self.groups)

    def _affine(self, x: Array, weight: Array, bias: Array | None, keep: Keep, relu: bool) -> Array:
        require_dtype_of(x, weight, bias)
        plan, b = self._planned(tuple(x.shape), tuple(weight.shape)), self.backend
        if bias is not None:
            require_shape(bias, (plan.features,), "bias")
        y = _conv_transpose(x, weight, bias, _problem(x, plan, self.groups, b.product_algorithms), keep, b.product_xp)
        return operations_of(b.product_xp).relu_in_place(y) if relu else y

    def _gradients(
        self, dy: Array, x: Array, weight: Array, wanted: Wanted
    ) -> tuple[Array | None, Array | None, Array | None]:
        plan, b = self._planned(tuple(x.shape), tuple(weight.shape)), self.backend
        problem = _problem(x, plan, self.groups, b.product_algorithms)
        return transposed_gradients(dy, x, weight, problem, wanted, b.product_xp)


class ConvTranspose1d(ConvTranspose):
    """`ConvTranspose` over one spatial axis: ``(N, C, L)``."""

    axes = 1


class ConvTranspose2d(ConvTranspose):
    """`ConvTranspose` over two spatial axes: ``(N, C, H, W)``."""

    axes = 2


class ConvTranspose3d(ConvTranspose):
    """`ConvTranspose` over three spatial axes: ``(N, C, D, H, W)``."""

    axes = 3
