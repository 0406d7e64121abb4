"""Layers that compute the layers after them at once, in one pass over memory less for each.

`xpnn.layers.containers.fusion` says which layers are computed together, and calls these methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ...backends.narrow import NarrowFormat
from ...common.types import Array
from .array_checks import require_dtype_of, require_same_dtype
from .errors import with_owner
from .kept import Keep
from .layer import Layer
from .needed_gradients import Wanted, wanted_of


class Fusing(Layer, ABC):
    """Base of layers whose forward can end with a ReLU.

    A subclass defines ``_forward_and`` in place of ``_forward``. With ``relu`` it returns ``max(y, 0)``, by the same
    operation as `ReLU` and so with the same bits; what it saves for backward is the same in both cases.
    """

    def _forward(self, x: Array) -> Array:
        return self._forward_and(x, relu=False)

    @abstractmethod
    def _forward_and(self, x: Array, *, relu: bool) -> Array:
        """The output, or its ReLU."""

    def forward_and_relu(self, x: Array, relu: Layer) -> Array:
        """`forward`, followed by that of ``relu``, a `ReLU` on the same backend."""
        b = self.backend
        try:
            self._check_array(x, "input")
            if b.accepts_directly(x):
                y = self._forward_and(x, relu=True)
            else:
                with b.context():
                    y = b.down(self._forward_and(self._up(x), relu=True))
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        self._record_output(y)
        relu.save_for_backward(y)
        relu._record_output(y)
        return y


class Affine(Fusing):
    """Base of layers that are a linear map of their input by ``weight``, plus ``bias`` for each output channel.

    A subclass defines ``_affine`` and ``_gradients``, ``_scaled`` and ``_output_channels``.
    """

    def _forward_and(self, x: Array, *, relu: bool) -> Array:
        # Before the arrays are referred to here.
        keep = self.keep_in_evaluation("weight", "bias")
        narrow = self.backend.narrow
        if narrow is not None:
            return self._narrow_forward(x, narrow, keep, relu)
        y = self._affine(x, self.parameter_value("weight"), self.parameter_value("bias"), keep, relu)
        self.save_for_backward(x)
        return y

    def _narrow_forward(self, x: Array, narrow: NarrowFormat, keep: Keep, relu: bool) -> Array:
        """The output of an input and a weight that are rounded to 16 bits."""
        weight, bias = self.parameter_value("weight"), self.parameter_value("bias")
        require_dtype_of(x, weight, bias)
        stored = narrow.store(x)
        y = self._affine(stored.load(), narrow.rounded(weight), bias, keep, relu)
        self.save_for_backward(narrow.known(x) or stored)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x,) = self.saved
        weight, narrow = self.parameter_value("weight"), self.backend.narrow
        # The weight may have been replaced since the forward.
        require_same_dtype(dy=dy, input=x, weight=weight)
        if narrow is not None:
            dy, weight = narrow.rounded(dy), narrow.rounded(weight)
        dx, dweight, dbias = self._gradients(dy, x, weight, wanted_of(self, input_grad))
        self.accumulate_grad("weight", dweight)
        self.accumulate_grad("bias", dbias)
        return dx

    @abstractmethod
    def _affine(self, x: Array, weight: Array, bias: Array | None, keep: Keep, relu: bool) -> Array:
        """The output, or its ReLU, with that weight and bias; ``keep`` is for values that depend on them only."""

    @abstractmethod
    def _gradients(
        self, dy: Array, x: Array, weight: Array, wanted: Wanted
    ) -> tuple[Array | None, Array | None, Array | None]:
        """The gradients of ``_affine`` for input, weight and bias, with None for what is not wanted."""

    @abstractmethod
    def _scaled(self, weight: Array, scale: Array) -> Array:
        """The weight that multiplies each output channel by ``scale (channels,)``."""

    @abstractmethod
    def _output_channels(self, rank: int) -> int:
        """The size of axis 1 of the output, to whose channels weight and bias belong; 0 if axis 1 is another one.

        ``rank`` is the number of axes of the input.
        """
