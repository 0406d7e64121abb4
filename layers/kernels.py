"""What convolution and transposed convolution hold alike: channels, a kernel, and where it is put."""

from typing import Any, ClassVar

from ..backends import checks
from .base import Layer
from .geometry import Padding, Size, check_padding, count, plain, spread
from .initialisers import Initialiser, constant, he_uniform


class KernelLayer(Layer):
    """Base of the layers with a trained ``weight (a, b/groups, *kernel)`` and ``bias (out,)``.

    ``a`` and ``b`` are the output and input channels, or, where the layer is `transposed`, the other way round.
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
        """Check and keep the constructor's arguments, and describe the parameters."""
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.kernel_size = plain(kernel_size, self.axes, "kernel_size")
        self.stride, self.dilation = plain(stride, self.axes, "stride"), plain(dilation, self.axes, "dilation")
        self.padding = check_padding(padding, self.axes)
        self.groups, self.bias = count(groups, "groups"), checks.flag("bias", bias)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels can't both be split into {groups} groups")
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self._add_parameter("weight", (first, second // groups, *self._kernel), weight_init or he_uniform())
        if bias:
            self._add_parameter("bias", (out_channels,), bias_init or constant(0.0))

    @property
    def _kernel(self) -> tuple[int, ...]:
        return spread(self.kernel_size, self.axes, "kernel_size")

    @property
    def _options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names} | {
            "xp": self.backend.xp,
            "precision": self.backend.precision,
        }
