"""Convolutions whose padding holds copies of cells of the input.

The input is extended by these copies and then convolved without padding. Backward extends it again, so that no extended
input is kept in memory from forward to backward.
"""

from ...common import checks
from ...common.types import Array
from ..core.output_shape import Shape
from ..windows.borders import MODES, extend, extend_backward, require_source
from ..windows.geometry import Geometry, Padding, resolve_padding
from .base import KernelLayer


class BorderedLayer(KernelLayer):
    """Base of the layers that have a ``padding_mode``."""

    padding_mode: str

    def _set_padding_mode(self, padding_mode: str) -> None:
        self.padding_mode = checks.choice("padding_mode", padding_mode, ("zeros", *MODES))

    @property
    def _zero_padding(self) -> Padding:
        """The padding with zeros that the convolution itself adds."""
        return self.padding if self.padding_mode == "zeros" else 0

    def _require_source(self, shape: Shape, geometry: Geometry) -> None:
        """Raise `ValueError` for an input of too few cells to copy."""
        if self.padding_mode != "zeros":
            require_source(shape[2:], geometry.padding, self.padding_mode)

    def _extended(self, x: Array) -> Array:
        """The input with its borders; unchanged if the padding is zeros."""
        if self.padding_mode == "zeros":
            return x
        self._output_shape(tuple(x.shape))
        padding = resolve_padding(self.padding, tuple(x.shape[2:]), self._kernel, self.stride, self.dilation)
        return extend(x, padding, self.padding_mode, self.backend.xp)

    def _narrowed(self, dx: Array | None, x: Array) -> Array | None:
        """The gradient of the input, from that of the extended input."""
        if dx is None or self.padding_mode == "zeros":
            return dx
        spatial = tuple(x.shape[2:])
        padding = resolve_padding(self.padding, spatial, self._kernel, self.stride, self.dilation)
        return extend_backward(dx, spatial, padding, self.padding_mode, self.backend.xp)
