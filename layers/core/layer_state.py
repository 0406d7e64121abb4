"""What a layer stores: parameters, buffers, its mode, and what forward saved for backward."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, Unpack

from ...backends import Backend, origins
from ...backends.recording.guards import in_recording
from ...backends.recording.slots import Slot
from ...common import checks
from ...common.types import Array
from ..initialisers import Initialiser
from .buffers import Buffers
from .errors import full_name
from .freezing import Freezable
from .grad_mode import grad_mode
from .kept import Keep, Kept, Source, compute, constant, keep_constants
from .layer_slots import slots_of
from .narrow_saved import narrowed
from .parameter import Parameter
from .parameter_dict import Parameters
from .placement import Placed, Placement
from .repeated_calls import Calls
from .state_dict import LoadedKeys, load_state, state_of

# Methods that a layer implements.
_IMPLEMENTED = {"_forward", "_forward_and", "_backward"}


class LayerState(Freezable, Placed):
    """Base of `Layer`, whose docstring says when each method is called.

    Parameters
    ----------
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    #: Whether ``_forward`` and ``_backward`` accept arrays as exact numerics stores them, in float32, and compute what
    #: they would of widened ones. A subclass that defines either does not, unless it says so.
    accepts_stored: ClassVar[bool] = False
    #: Whether what is saved for backward is stored in 16 bits in mixed precision.
    _saves_narrow: ClassVar[bool] = True
    # What each call saved, for a layer that is in several places: see `repeated_calls`.
    _calls: Calls | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if _IMPLEMENTED & vars(cls).keys() and "accepts_stored" not in vars(cls):
            cls.accepts_stored = False

    def __init__(self, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.parameters: dict[str, Parameter] = Parameters()
        self.buffers = Buffers(self)
        self._kept = Kept()
        self.training = True
        self.saved: Any = None
        # Shape and dtype of the last output with a backward, which an upstream gradient must have.
        self._output: tuple[tuple[int, ...], str] | None = None

    def add_parameter(
        self, name: str, shape: tuple[int, ...], initialiser: Initialiser | None, default: Initialiser | None = None
    ) -> None:
        """Add a parameter, whose value is made on first use by ``initialiser``, or by ``default`` if that is None.

        Raises
        ------
        TypeError
            Unless the initialiser is a function of a shape, a generator and a backend; see `xpnn.initialisers`.
        """
        if initialiser is None:
            initialiser = default
        if not checks.accepts(initialiser, 3):
            raise TypeError(
                f"{type(self).__name__}: {name}_init must be an initialiser, such as nn.initialisers.normal(0.1), got "
                f"{checks.shown(initialiser)}; to set known values use parameters[{name!r}].value = array"
            )
        self.parameters[name] = Parameter(shape=shape, initialiser=initialiser, owner=self, name=name)

    def _up(self, array: Array) -> Array:
        """An array as ``_forward`` and ``_backward`` get it."""
        b = self.backend
        return b.plain(array) if self.accepts_stored and b.numerics == "exact" else b.up(array)

    def parameter_value(self, name: str) -> Array | None:
        """A parameter to compute with, widened to float64 in exact numerics; None if there is no such parameter.

        It is to be read only; to change it, use ``parameters[name].value``.
        """
        parameter = self.parameters.get(name)
        if parameter is None:
            return None
        return self.backend.up(constant(parameter.read_by(self)))

    def needs_grad(self, name: str) -> bool:
        """Whether there is a parameter of that name, and it is not frozen: backward need not compute its gradient."""
        parameter = self.parameters.get(name)
        return parameter is not None and parameter._requires_grad

    def accumulate_grad(self, name: str, gradient: Array | None) -> None:
        """Add an array of the parameter's shape to its ``grad``.

        Does nothing if there is no such parameter, or it is frozen; then the gradient may be None.
        """
        parameter = self.parameters.get(name)
        if parameter is None or not parameter._requires_grad:
            return
        parameter.belong_to(self)
        gradient = self.backend.down(gradient)
        parameter.accumulate(self._record_gradient(gradient) if origins.watching else gradient)

    def add_buffer(self, name: str, shape: tuple[int, ...], value: float | int) -> None:
        """Add a buffer with ``value`` in every entry: of the layer's dtype for a float, of int64 for an integer."""
        self.buffers.declare(name, shape, value)

    def buffer_value(self, name: str) -> Array:
        """A buffer to compute with, to be read only; widened to float64 in exact numerics."""
        return self.backend.up(constant(self.buffers.read(name)))

    def keep_in_evaluation(self, *names: str) -> Keep:
        """What keeps values that depend on these parameters and buffers only, in evaluation, for one forward.

        ``self.keep_in_evaluation("weight")("transposed", make)`` is ``make()``, or what it returned in an earlier
        forward, until the array of the weight may have changed. In training, and where that can't be known, it is
        ``make()`` each time. Names that do not exist are left out.

        It must be called before the forward refers to one of the arrays, and what ``make`` returns must not refer to
        them, as a view does. See `xpnn.layers.core.kept`.
        """
        if self.training:
            # The mode may have been set as an attribute.
            self._kept.clear()
            return compute
        return self._keep(names, self._sources(names))

    def _keep(self, name: Hashable, sources: Iterable[Source]) -> Keep:
        """`keep_in_evaluation` for sources that may be of other layers too; ``name`` stands for all of them."""
        constants = keep_constants((id(self), name))
        if constants is not None:
            return constants
        if self.training or in_recording():
            return compute
        return self._kept.of(name, sources, self.backend.synchronize)

    def _sources(self, names: Iterable[str]) -> list[Source]:
        """These parameters and buffers as sources of kept values."""
        found: list[Source] = []
        for name in names:
            if name in self.parameters:
                self.parameters[name].belong_to(self)
                found.append(self.parameters[name])
            elif name in self.buffers:
                found.append(self.buffers.source(name))
        return found

    def _all_sources(self) -> list[Source]:
        """All parameters and buffers as sources of kept values."""
        return self._sources((*self.parameters, *self.buffers)) if self.parameters or self.buffers else []

    def set_buffer(self, name: str, array: Array) -> None:
        """Replace a buffer by an array of its shape, rounded to float32 in exact numerics."""
        self.buffers[name] = self.backend.down(array)

    @property
    def grad_enabled(self) -> bool:
        """Whether forward saves what backward needs.

        It does in training, within `enable_grad`, and within the forward of a container in training, but not within
        `no_grad`.
        """
        mode = grad_mode()
        return self.training if mode is None else mode

    def save_for_backward(self, *values: Any) -> None:
        """Save arrays and other values as ``saved`` for backward; without `grad_enabled`, ``saved`` becomes None."""
        mode = grad_mode()
        # `grad_enabled` without its call, which every layer would make in every step.
        if not (mode or (mode is None and self.training)):
            self.saved = None
            return
        narrow = self.backend.narrow
        if narrow is not None and self._saves_narrow:
            values = narrowed(values, narrow, is_output=getattr(self, "from_output", False))
        self.saved = values

    def _record_gradient(self, gradient: Any) -> Any:
        """The gradient, recorded as computed by this layer in its numerics."""
        if origins.watching and gradient is not None and not (self._is_fast and self.backend.numerics == "fast"):
            origins.record_maker(gradient, self.backend, type(self).__name__)
        return gradient

    def train(self, mode: bool = True) -> Self:
        """Training mode: save what backward needs, use batch statistics, drop out. Returns this layer."""
        self.training = checks.flag("mode", mode)
        if self.training:
            self._kept.clear()
        else:
            self._free_saved()
        return self

    def eval(self) -> Self:
        """Evaluation mode: running statistics, no dropout; by itself a forward saves nothing. Returns this layer."""
        return self.train(False)

    def release(self) -> None:
        """Free what this layer and all layers within saved for backward."""
        for _, layer in self.named_layers():
            layer._free_saved()

    def _free_saved(self) -> None:
        self.saved = self._output = None
        if self._calls is not None:
            self._calls = Calls()

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for _, parameter in self.named_parameters():
            parameter.zero_grad()

    def named_layers(self, path: str = "") -> Iterator[tuple[str, LayerState]]:
        """This layer and all layers within, each once with its first full name; that of this one is ``path``."""
        raise NotImplementedError(f"{type(self).__name__} defines no named_layers")

    def named_places(self, path: str = "") -> Iterator[tuple[str, LayerState]]:
        """`named_layers`, but a layer in several places with each of its names, as in `state_dict`."""
        return self.named_layers(path)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their full names, as in `state_dict`; a shared one once, with its first name."""
        seen: set[Parameter] = set()
        for path, layer in self.named_places():
            for name, parameter in layer.parameters.items():
                parameter.belong_to(layer)
                if parameter not in seen:
                    seen.add(parameter)
                    yield full_name(path, name), parameter

    def state_dict(self) -> dict[str, Array]:
        """Full name to array, of all parameters and buffers: the arrays themselves, on their backend."""
        return state_of(self)

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadedKeys:
        """Replace parameters and buffers by copies of the arrays in ``state``, which may be on any backend.

        Floats are rounded to this layer's dtype; float16 and bfloat16 are accepted. ``num_batches_tracked`` of batch
        norm may be missing: the model's stays.

        Parameters
        ----------
        state : mapping of str to array
        strict : bool
            With False, names may be missing, whose arrays stay as they are, and unexpected ones are ignored.

        Returns
        -------
        LoadedKeys
            ``missing_keys`` and ``unexpected_keys``, two lists of names.

        Raises
        ------
        ValueError
            If an array has another shape or is not of floats or, with ``strict``, a name is missing or unknown: the
            message lists all problems, and nothing is replaced.
        """
        return load_state(self, state, strict)

    def slots(self) -> Iterator[Slot]:
        """The state that changes from step to step, for `Backend.compile`: arrays, modes, settings, backends."""
        return slots_of(self)

    def _set_backend(self, backend: Backend) -> None:
        """Compute on a backend with the same arrays as this one; free what was computed on this one."""
        if backend is not self._backend:
            super()._move(backend)
            self._kept.clear()
            self._free_saved()

    def _move(self, target: Backend) -> None:
        if target == self._backend:
            return
        for parameter in self.parameters.values():
            parameter.move(target)
        self.buffers.move(target)
        super()._move(target)
        self._free_saved()
