"""The base class of all layers, whose forward and backward check and convert the arrays of every subclass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Unpack

from ...backends import origins
from ...backends.inputs import describe
from ...common.types import Array, dtype_name
from .array_checks import require_float
from .errors import backward_without_forward, with_owner
from .grad_mode import grad_mode
from .layer_description import Described
from .layer_state import LayerState
from .output_shape import Shape, checked_shape, knows_shapes, report_shapes, shape_by_forward
from .placement import Placement, wrong_backend_message
from .release_after_backward import is_within_released
from .repeated_calls import after_forward, before_backward, skip_backward


class Layer(Described, LayerState):
    """Base of all layers: called with an array ``(N, ...)``, a layer returns one.

    `backward` accepts ``dy``, the gradient of a scalar with respect to that output, and returns ``dx``, the gradient
    with respect to the input. It adds the gradients with respect to the parameters to ``parameters[name].grad``.

    Parameters
    ----------
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Attributes
    ----------
    parameters : dict of str to Parameter
    buffers : Buffers
        State that is saved but not trained, such as running statistics: name to array.
    training : bool
        The mode: whether to use batch statistics, drop out, and so on.
    grad_enabled : bool
        Whether `forward` saves what `backward` needs: in training, or as `enable_grad` and `no_grad` say.
    saved : tuple or None
        What `save_for_backward` saved in the last forward.
    signature : tuple of (str, default)
        Class attribute: the constructor's arguments, each an attribute of the layer, for ``repr``; ``...`` as default
        means that the argument is required.

    Raises
    ------
    TypeError, ValueError
        From `forward` and `backward`, before anything is computed, with the layer's name in front: for an array of
        another backend, or of a dtype or shape that the layer does not accept.
    RuntimeError
        From `backward` without a `forward` before it that saved what it needs.

    Notes
    -----
    A subclass defines

    ``_forward(x)``
        The output for ``x (N, ...)``, called by `forward`.
    ``_backward(dy, input_grad)``
        ``dx``, of the shape of ``x``, for ``dy``, of the shape of the output; None is allowed if ``input_grad`` is
        False. Called by `backward`, possibly several times after one forward, so it must not change ``saved``.
    ``_output_shape(shape)``
        Optional: the shape of the output for that of the input, or a `ValueError`. Called by `output_shape` and
        `summary`, which otherwise run a forward of zeros.
    ``multiply_adds(x_shape, y_shape)``
        Optional: the number of multiply-adds of a forward, for `summary`.

    and calls

    ``add_parameter(name, shape, initialiser)``, ``add_buffer(name, shape, value)``
        In ``__init__``: initialisers are in `xpnn.initialisers`; an integer value makes a buffer of integers.
    ``parameter_value(name)``, ``buffer_value(name)``
        In ``_forward`` and ``_backward``: the arrays to compute with, which must not be changed.
    ``keep_in_evaluation(*names)``
        First in ``_forward``: keeps in evaluation what depends on these arrays only.
    ``set_buffer(name, array)``
        In ``_forward``: replace a buffer.
    ``save_for_backward(*values)``
        In ``_forward``: ``_backward`` finds the values as ``saved``.
    ``needs_grad(name)``, ``accumulate_grad(name, gradient)``
        In ``_backward``: whether the gradient of a parameter is needed; add it, of the parameter's shape.

    `forward` and `backward` first check library, device and dtype of ``x`` and ``dy``, and the shape of ``dy``. In
    exact numerics they widen float32 arrays to float64 before ``_forward`` and ``_backward`` and round the results
    once after, so one implementation serves both numerics and both dtypes. The implementation uses functions of the
    Array API standard from ``self.backend.xp``, which every backend has, or those of `xpnn.functional` with
    ``xp=self.backend.xp``. It makes new arrays in the dtype of ``x`` and with ``device=self.backend.device``, and does
    not write into ``x``, ``dy``, or arrays of parameters and buffers.

    A layer that draws random numbers has a property ``stream``, which always returns the same `xpnn.random.Generator`.
    It is created on first use, by ``self.generator.fold_in("noise")``, because it depends on the layer's name in its
    container. Checkpoints save its position, and compiled steps (`Backend.compile`) advance it.

    A layer may be in several places of a container, and layers may share parameters, ``b.parameters["weight"] =
    a.parameters["weight"]``. Gradients then add up, and optimizers, clipping and counts see a parameter once; names and
    seeds are those of the first place. What backward needs is saved for each place. Otherwise a layer saves it for its
    last forward only. So a container of your own that calls one child several times must have it in ``children`` under
    several names, one for each call.

    Examples
    --------
    A layer with a factor for each feature, which in evaluation limits inputs to the range seen in training:

    >>> import xpnn as nn
    >>> class Scale(nn.Layer):
    ...     signature = (("features", ...),)
    ...
    ...     def __init__(self, features, **placement):
    ...         super().__init__(**placement)
    ...         self.features = features
    ...         self.add_parameter("weight", (features,), nn.initialisers.constant(1.0))
    ...         self.add_buffer("largest", (features,), 0.0)
    ...
    ...     def _output_shape(self, shape):
    ...         if len(shape) != 2 or shape[1] != self.features:
    ...             raise ValueError(f"input must have shape (N, {self.features}), got {shape}")
    ...         return shape
    ...
    ...     def _forward(self, x):
    ...         self._output_shape(x.shape)
    ...         xp, largest = self.backend.xp, self.buffer_value("largest")
    ...         if self.training:
    ...             self.set_buffer("largest", xp.maximum(largest, xp.max(xp.abs(x), axis=0)))
    ...         else:
    ...             x = xp.minimum(xp.maximum(x, -largest), largest)
    ...         self.save_for_backward(x)
    ...         return self.parameter_value("weight") * x
    ...
    ...     def _backward(self, dy, input_grad):
    ...         (x,) = self.saved
    ...         self.accumulate_grad("weight", self.backend.xp.sum(dy * x, axis=0))
    ...         return self.parameter_value("weight") * dy if input_grad else None

    A check of its gradients against finite differences, which raises `AssertionError` if they differ:

    >>> nn.testing.gradcheck(Scale(3, dtype="float64"), [[0.5, -1.0, 2.0], [1.5, 0.0, 3.0]])

    The layer in a model, here in exact numerics:

    >>> model = nn.Sequential(Scale(3), nn.Dense(3, 2), backend="numpy", numerics="exact", seed=0)
    >>> model
    Sequential(Scale(3), Dense(3, 2))
    >>> model.output_shape((5, 3))
    (5, 2)
    """

    #: Whether `output_shape` puts this layer's name in front of an error; in a container the layers within do.
    _names_errors: ClassVar[bool] = True

    def __init__(self, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        # `origins.fast_results` at the last forward.
        self._fast_results = 0

    def named_layers(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all layers within, each once with its first full name; that of this one is ``path``."""
        yield path, self

    def named_places(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """`named_layers`, but a layer in several places with each of its names, as in `state_dict`."""
        yield path, self

    def __call__(self, x: Array) -> Array:
        """`forward`."""
        return self.forward(x)

    def forward(self, x: Array) -> Array:
        """The output for ``x (N, ...)``."""
        b = self.backend
        try:
            self._check_array(x, "input")
            if b.accepts_directly(x):
                y = self._forward(x)
            else:
                with b.context():
                    y = b.down(self._forward(self._up(x)))
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        self._record_output(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The gradient with respect to the last input; adds those of the parameters to their ``grad``.

        Parameters
        ----------
        dy : array
            Gradient with respect to the last output, of its shape and dtype. Backward may be called again after the
            same forward, except within `xpnn.released`.
        input_grad : bool
            With False a layer may skip the input's gradient, which the first layer of a net does not need, and
            return None.
        """
        b = self.backend
        try:
            self._check_upstream_gradient(dy)
            if b.accepts_directly(dy):
                dx = self._backward(dy, input_grad)
            else:
                with b.context():
                    dx = self._backward(self._up(dy), input_grad)
                    dx = None if dx is None else b.down(dx)
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        if is_within_released():
            self.saved = self._output = None
        return self._record_gradient(dx) if origins.watching else dx

    def _skip_backward(self) -> None:
        """Leave out a backward: called in its place by containers for layers before which nothing needs gradients."""
        if self._calls is not None:
            skip_backward(self._calls)
        if is_within_released():
            self.saved = self._output = None

    def _forward(self, x: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no _forward")

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        raise NotImplementedError(f"{type(self).__name__} defines no _backward")

    def _output_shape(self, shape: Shape) -> Shape:
        raise NotImplementedError(f"{type(self).__name__} defines no _output_shape")

    def _check_array(self, x: Array, what: str) -> None:
        """Raise unless ``x`` is an array of this layer's backend and dtype."""
        b = self.backend
        if b.accepts_directly(x):
            return
        if not b.owns(x):
            raise TypeError(wrong_backend_message(x, b, what))
        require_float(x, f"the {what}")
        b.require_stored(x, f"the {what}")
        if self.parameters and dtype_name(x.dtype) != b.dtype_name:
            raise TypeError(
                f"the {what} is {dtype_name(x.dtype)}, the parameters are {b.dtype_name}; convert it, or the layer "
                f"with .to({b.spec!r}, {dtype_name(x.dtype)!r})"
            )

    def _record_output(self, y: Array) -> None:
        """Record shape and dtype of the output, for `backward`, and which backend computed it."""
        mode = grad_mode()
        if mode or (mode is None and self.training):
            self._output = (tuple(y.shape), dtype_name(y.dtype))
        else:
            self.saved = self._output = None
        self._fast_results = origins.fast_results
        if self._calls is not None:
            after_forward(self, self._calls)
        if origins.watching:
            origins.record_maker(y, self.backend, type(self).__name__)

    def _check_upstream_gradient(self, dy: Array) -> None:
        """Raise unless ``dy`` can be the gradient with respect to the last output."""
        if self._calls is not None:
            before_backward(self, self._calls)
        if self._output is None:
            raise backward_without_forward(self, in_mode=True)
        self._check_array(dy, "upstream gradient")
        shape, dtype = self._output
        if tuple(dy.shape) != shape or dtype_name(dy.dtype) != dtype:
            raise ValueError(f"the upstream gradient is {describe(dy)}; the output was {dtype}, shape {shape}")
        if origins.watching:
            self._check_gradient_numerics(dy)

    def _check_gradient_numerics(self, dy: Array) -> None:
        """Raise if this layer is in exact numerics and ``dy`` was computed in fast numerics."""
        if origins.watching and self.backend.numerics == "exact":
            origins.require_exact(dy, "the upstream gradient", "this layer", self._fast_results)

    def output_shape(self, input_shape: Sequence[int] | Sequence[Sequence[int]]) -> Shape:
        """The shape of `forward`'s output in evaluation for an input of that shape; nothing is computed.

        A layer that does not define ``_output_shape`` runs a forward of zeros: of one sample if it accepts that,
        otherwise of the whole shape. The layers within that define it are not run.

        Parameters
        ----------
        input_shape : sequence of int
            With the batch axis, as in ``(1, 3, 32, 32)``; of several inputs a tuple of shapes.

        Raises
        ------
        ValueError
            The error of `forward` for a shape that does not fit.
        """
        shape = checked_shape(self, input_shape)
        if not knows_shapes(self):
            found = shape_by_forward(self, shape)
        else:
            try:
                found = self._output_shape(shape)
            except (TypeError, ValueError) as error:
                raise (with_owner(error, self) if self._names_errors else error) from error
        report_shapes(self, shape, found)
        return found
