"""Activation checkpointing: a forward is computed again in backward, so that less is saved in between.

Source: T. Chen et al., "Training deep nets with sublinear memory cost", 2016.
"""

from typing import Any, Unpack

from ...backends import origins
from ...common import checks
from ...common.types import Array
from ..core.errors import backward_without_forward
from ..core.grad_mode import enable_grad
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..core.release_after_backward import is_within_released, released
from ..core.repeated_calls import after_forward, before_backward, separate_calls
from ..core.snapshot import Snapshot
from .container import Container
from .dataflow import Flow, input_names


class Checkpointed(Container):
    """A layer that saves only its input for backward, and computes its forward again in backward.

    A net of `Checkpointed` stages saves the inputs of all stages, and the arrays of one stage at a time; a step
    computes one more forward. Outputs, gradients and running statistics have the same bits as without it: the second
    forward starts from the same buffers and the same positions of random streams, and leaves both unchanged.
    Evaluation is that of the layer within.

    It adds nothing to names: parameters, seeds and ``state_dict`` are those of the layer in its place, so weights that
    were saved with it can be loaded without it and vice versa.

    Parameters
    ----------
    layer : Layer
        Usually a `Sequential` or `Residual` of several layers: a single layer saves little memory.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Examples
    --------
    >>> import xpnn as nn
    >>> model = nn.Sequential(nn.Checkpointed(nn.Sequential(nn.Dense(4, 8), nn.ReLU())), nn.Dense(8, 3))
    >>> [name for name, _ in model.named_parameters()]
    ['0.0.weight', '0.0.bias', '1.weight', '1.bias']
    """

    # The second forward must compute what the first did.
    _saves_narrow = False

    def __init__(self, layer: Layer, **placement: Unpack[Placement]) -> None:
        checks.instance("layer", layer, Layer, "for several, Checkpointed(Sequential(...))")
        super().__init__({"": layer}, **placement)

    @property
    def layer(self) -> Layer:
        """The layer within."""
        return self.children[""]

    def _output_shape(self, shape: Shape) -> Shape:
        return self.layer.output_shape(shape)

    def forward(self, x: Array) -> Any:
        """The layer's output; only ``x`` is saved for backward."""
        self.saved = None
        self._check_numerics()
        if not self.grad_enabled:
            return self.layer.forward(x)
        before = Snapshot(self.layer)
        with separate_calls(self.layer):
            y = self.layer.forward(x)
            self.layer.release()
        self.save_for_backward(self.backend.plain(x), before)
        self._fast_results = origins.fast_results
        if self._calls is not None:
            after_forward(self, self._calls)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The layer's gradients, after a second forward."""
        if self._calls is not None:
            before_backward(self, self._calls)
        if self.saved is None:
            raise backward_without_forward(self, in_mode=True)
        self._check_gradient_numerics(dy)
        x, before = self.saved
        after = Snapshot(self.layer)
        with separate_calls(self.layer):
            before.restore()
            try:
                with enable_grad():
                    self.layer.forward(x)
            finally:
                after.restore()
            with released():
                dx = self.layer.backward(dy, input_grad=input_grad)
            self.layer.release()
        if is_within_released():
            self.saved = None
        return dx

    def _flow(self, flow: Flow, path: str, inputs: tuple[str, ...]) -> str:
        return flow.child(self, "", path, inputs)

    def _input_names(self) -> tuple[str, ...]:
        return input_names(self.layer)

    def _skip_backward(self) -> None:
        # Calls of the layers within are not on their lists.
        Layer._skip_backward(self)

    def __repr__(self) -> str:
        return f"Checkpointed({self.layer!r})"
