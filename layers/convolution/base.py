"""The base of the layers of convolution and transposed convolution: their arguments and parameters."""

from typing import Any, ClassVar

from ...common import checks
from ...common.types import Array
from ..core.fusing import Affine
from ..initialisers import Initialiser, constant, he_uniform
from ..windows.geometry import Padding, Size, check_padding


class KernelLayer(Affine):
    """Base of the layers with a trained ``weight (a, b/groups, *kernel)`` and ``bias (out,)``.

    ``a`` and ``b`` are the output and input channels; if the layer is `transposed`, the input and output channels.
    """

    axes: ClassVar[int]
    transposed: ClassVar[bool] = False

    def _configure(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Padding,
        dilation: Size,
        groups: int,
        bias: bool,
        weight_init: Initialiser | None,
        bias_init: Initialiser | None,
    ) -> None:
        """Check and store the constructor's arguments, and add the parameters."""
        self.in_channels = checks.integer("in_channels", in_channels, 1)
        self.out_channels = checks.integer("out_channels", out_channels, 1)
        self.kernel_size = checks.size("kernel_size", kernel_size, self.axes)
        self.stride = checks.size("stride", stride, self.axes)
        self.dilation = checks.size("dilation", dilation, self.axes)
        self.padding = check_padding(padding, self.axes)
        self.groups, self.bias = checks.integer("groups", groups, 1), checks.flag("bias", bias)
        first, second = self.out_channels, self.in_channels
        if self.transposed:
            first, second = second, first
        if first % self.groups or second % self.groups:
            raise ValueError(
                f"in_channels and out_channels must be multiples of groups, got {self.in_channels} and "
                f"{self.out_channels} channels in {self.groups} groups"
            )
        self.add_parameter("weight", (first, second // self.groups, *self._kernel), weight_init, he_uniform())
        if self.bias:
            self.add_parameter("bias", (self.out_channels,), bias_init, constant(0.0))

    @property
    def _kernel(self) -> tuple[int, ...]:
        return checks.per_axis("kernel_size", self.kernel_size, self.axes)

    @property
    def _options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names} | {
            "xp": self.backend.product_xp,
            "algorithms": self.backend.product_algorithms,
        }

    def _output_channels(self, rank: int) -> int:
        return self.out_channels if rank == self.axes + 2 else 0

    def _scaled(self, weight: Array, scale: Array) -> Array:
        xp, first = self.backend.xp, self.groups if self.transposed else 1
        # The weight of a transposed convolution has the output channels of one group on its second axis.
        split = xp.reshape(weight, (first, weight.shape[0] // first, *weight.shape[1:]))
        shape = (first, 1, weight.shape[1]) if self.transposed else (1, self.out_channels, 1)
        return xp.reshape(split * xp.reshape(scale, (*shape, *(1,) * self.axes)), weight.shape)
