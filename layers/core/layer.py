"""What every layer is, and the one boundary between storing and computing.

`Layer.forward` and `Layer.backward` check what comes in, widen it (`Backend.up`), let the subclass compute, and
narrow the result (`Backend.down`). A subclass writes `_forward` and `_backward` in plain array functions and never
sees the boundary, so exact numerics need no second set of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, Unpack

from ...backends import Backend, BackendLike, Generator, ambient_backend, get_backend, origins, to_host
from ...backends.backend import FLOATS
from ...backends.inputs import describe
from ...backends.recording.slots import Slot
from ...common import checks
from ...common.types import Array, DType, dtype_name
from ..initialisers import Initialiser
from ..summary import Shape, Summary, knows_shapes, probed, summarise, told
from .arrays import require_float
from .buffers import Buffers
from .parameter import Parameter
from .placement import Placement, checked, foreign, moved, place, says_where
from .release import releases


class Layer:
    """Base of all layers: called with an array ``(N, ...)``, it returns one.

    `backward` takes the gradient of a scalar with respect to that output and returns the one with respect to the
    input, adding those with respect to the parameters to ``parameters[name].grad``.

    A subclass defines ``_forward(x)`` and ``_backward(dy, input_grad)``, if it likes ``_output_shape(shape)`` for
    `summary`, and, in ``signature``, its constructor's
    arguments as (attribute, default) for `repr`; ``...`` stands for no default.

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
        Whether `forward` keeps what `backward` needs; in evaluation it keeps nothing.

    Raises
    ------
    TypeError, ValueError
        From `forward` and `backward`, before anything is computed, naming the layer: for an array of another
        backend, or of a dtype or shape that the layer does not take.
    RuntimeError
        From `backward` without a `forward` in training before it.

    Notes
    -----
    A layer keeps what backward needs of its last forward alone. So a net that passes a layer twice needs two layers,
    which may share their parameters: ``b.parameters["weight"] = a.parameters["weight"]``. Gradients then add up, and
    optimizers, clipping and counts take the parameter once. Containers refuse one layer in two places.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = ()
    #: Whether `output_shape` puts this layer's name before an error; those of a container's layers have one.
    _names_errors: ClassVar[bool] = True

    def __init__(self, **placement: Unpack[Placement]) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.buffers = Buffers(self)
        self.training = True
        self._own = checked(placement, type(self).__name__)
        self._inherited: Placement = {}
        self._ambient = ambient_backend()
        self._backend: Backend | None = None
        self._path = ""
        self._saved: Any = None
        self._output: tuple[tuple[int, ...], str] | None = None
        self._doubts = 0
        # Whether fast numerics were asked for by name, here or by a container.
        self._is_fast = placement.get("numerics") == "fast"

    @property
    def backend(self) -> Backend:
        """Where this layer computes; settled on first use."""
        if self._backend is None:
            self._backend = place(self._ambient, self._inherited, self._own)
        return self._backend

    @property
    def generator(self) -> Generator:
        """This layer's stream of random numbers: by its seed and its name in the model."""
        seed = self._own.get("seed", self._inherited.get("seed"))
        return Generator(0 if seed is None else seed).fold_in(self._path)

    def to(self, backend: BackendLike, dtype: DType | str | None = None) -> Self:
        """Move parameters, gradients, optimizer states and buffers; gives this layer back.

        A name keeps the dtype and numerics that this layer has; a `Backend` brings its own.
        """
        if not isinstance(backend, Backend):
            here = self.backend
            backend = get_backend(backend, here.dtype_name, here.numerics, here.precision, here.products)
        else:
            self._is_fast = False
        target = get_backend(backend, dtype)
        self._own = {**self._own, "backend": target}
        self._own.pop("dtype", None)
        self._own.pop("numerics", None)
        self._move(target)
        return self

    def _join(self, path: str, inherited: Placement) -> None:
        """Become part of a container: take its name and, where nothing of its own is given, its placement."""
        self._path, self._inherited = path, inherited
        if self._backend is not None and says_where(inherited):
            self._move(place(self._ambient, inherited, self._own))

    def _move(self, target: Backend) -> None:
        if target == self._backend:
            return
        for parameter in self.parameters.values():
            parameter.move(target)
        self.buffers.move(target)
        self._backend = target
        self._saved = self._output = None

    def __call__(self, x: Array) -> Array:
        """`forward`."""
        return self.forward(x)

    def forward(self, x: Array) -> Array:
        """The output for ``x (N, ...)``."""
        b = self.backend
        try:
            self._check(x, "input")
            with b.context():
                y = b.down(self._forward(b.up(x)))
        except (TypeError, ValueError) as error:
            raise named(self, error) from error
        self._remember(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The gradient with respect to the last input; adds those of the parameters to their ``grad``.

        Parameters
        ----------
        dy : array
            Gradient with respect to the last output, of its shape and dtype. It may be given again, or another one:
            see `xpnn.layers.core.release.released` for steps that ask once.
        input_grad : bool
            With False a layer may skip the input's gradient, which the first layer of a net does not need, and
            return None.
        """
        b = self.backend
        try:
            self._check_upstream(dy)
            with b.context():
                dx = self._backward(b.up(dy), input_grad)
                dx = None if dx is None else b.down(dx)
        except (TypeError, ValueError) as error:
            raise named(self, error) from error
        if releases():
            self._saved = self._output = None
        return self._made(dx)

    def _forward(self, x: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no _forward")

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        raise NotImplementedError(f"{type(self).__name__} defines no _backward")

    def _remember(self, y: Array) -> None:
        """Keep the form of the output, which an upstream gradient must have."""
        self._output = (tuple(y.shape), dtype_name(y.dtype)) if self.training else None
        self._doubts = origins.doubts
        if origins.watching:
            origins.made(y, self.backend, type(self).__name__)

    def _made(self, gradient: Any) -> Any:
        """The gradient, remembered as one that this layer computed."""
        if origins.watching and gradient is not None and not (self._is_fast and self.backend.numerics == "fast"):
            origins.made(gradient, self.backend, type(self).__name__)
        return gradient

    def _check_upstream(self, dy: Array) -> None:
        """Raise unless ``dy`` can be the gradient of the last output."""
        if self._output is None:
            raise no_forward(self, ", in training mode")
        self._check(dy, "upstream gradient")
        shape, dtype = self._output
        if tuple(dy.shape) != shape or dtype_name(dy.dtype) != dtype:
            raise ValueError(f"the upstream gradient is {describe(dy)}; the output was {dtype}, shape {shape}")
        self._check_origin(dy)

    def _check_origin(self, dy: Array) -> None:
        """Raise where exact numerics would go on with a gradient of fast numerics."""
        if origins.watching and self.backend.numerics == "exact":
            origins.require_exact(dy, "the upstream gradient", "this layer", self._doubts)

    def _check(self, x: Array, what: str) -> None:
        b = self.backend
        if not b.owns(x):
            raise TypeError(foreign(x, b, what))
        require_float(x, f"the {what}")
        b.require_stored(x, f"the {what}")
        if self.parameters and dtype_name(x.dtype) != b.dtype_name:
            raise TypeError(
                f"the {what} is {dtype_name(x.dtype)}, the parameters are {b.dtype_name}; convert it, or the layer "
                f"with .to({b.spec!r}, {dtype_name(x.dtype)!r})"
            )

    def _save(self, *arrays: Any) -> None:
        """Keep what `_backward` needs, in training only."""
        self._saved = arrays if self.training else None

    def _add_parameter(
        self, name: str, shape: tuple[int, ...], initialiser: Initialiser | None, usual: Initialiser | None = None
    ) -> None:
        if initialiser is None:
            initialiser = usual
        if not checks.takes(initialiser, 3):
            raise TypeError(
                f"{type(self).__name__}: {name}_init must be an initialiser, such as nn.initialisers.normal(0.1), got "
                f"{checks.shown(initialiser)}; set values that are known with parameters[{name!r}].value = array"
            )
        self.parameters[name] = Parameter(shape=shape, initialiser=initialiser, owner=self, name=name)

    def _value(self, name: str) -> Array | None:
        """A parameter's value, to compute with; None where the layer has no such parameter."""
        parameter = self.parameters.get(name)
        if parameter is None:
            return None
        parameter.belong_to(self)
        return self.backend.up(parameter.value)

    def _accumulate(self, name: str, gradient: Array) -> None:
        """Add to a parameter's gradient, where the layer has that parameter."""
        if name in self.parameters:
            self.parameters[name].belong_to(self)
            self.parameters[name].accumulate(self._made(self.backend.down(gradient)))

    def train(self, mode: bool = True) -> Self:
        """Train: keep what backward needs, use batch statistics, drop out. Gives this layer back."""
        self.training = checks.flag("mode", mode)
        if not self.training:
            self._saved = self._output = None
        return self

    def eval(self) -> Self:
        """Evaluate: keep nothing for backward. Gives this layer back."""
        return self.train(False)

    def release(self) -> None:
        """Drop what this layer and all within keep for backward."""
        for _, layer in self.named_layers():
            layer._saved = layer._output = None

    def zero_grad(self) -> None:
        """Forget the gradients: ``grad`` becomes None."""
        for _, parameter in self.named_parameters():
            parameter.zero_grad()

    def named_layers(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all within, each with its full name; this one's is ``path``."""
        yield path, self

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their full names, as in `state_dict`; one of several places once, with its first name."""
        seen: set[Parameter] = set()
        for path, layer in self.named_layers():
            for name, parameter in layer.parameters.items():
                parameter.belong_to(layer)
                if parameter not in seen:
                    seen.add(parameter)
                    yield join(path, name), parameter

    def slots(self) -> Iterator[Slot]:
        """Where state is kept from step to step, for `Backend.compile`: arrays, modes, plain settings, backends."""
        layers = [layer for _, layer in self.named_layers()]
        yield Slot.constant(
            f"{type(self).__name__}.backend", self, "backend", lambda: tuple([layer.backend for layer in layers])
        )
        for path, layer in self.named_layers():
            yield from layer._slots(path or type(layer).__name__)

    def _slots(self, path: str) -> Iterator[Slot]:
        """This layer's own slots."""
        for name, parameter in self.parameters.items():
            yield from parameter.slots(join(path, name))
        for name in self.buffers:
            yield Slot.item(join(path, name), self.buffers, name, partial(self.buffers.own, name))
        for name, value in vars(self).items():
            if not name.startswith("_") and isinstance(value, bool | int | float | str):
                yield Slot.attribute(join(path, name), self, name)

    def state_dict(self) -> dict[str, Array]:
        """Full name to array, of all parameters and buffers: the arrays themselves, on their backend."""
        state = {}
        for path, layer in self.named_layers():
            state.update({join(path, name): parameter.value for name, parameter in layer.parameters.items()})
            state.update({join(path, name): array for name, array in layer.buffers.items()})
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace all parameters and buffers by copies of the arrays in ``state``, from any backend.

        Floats are rounded to this layer's dtype.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or an array is of another shape or not of floats: all that is wrong is
            listed, and nothing is replaced.
        """
        checks.mapping("state", state, "give what state_dict() gave, or what is read from a file")
        places: dict[str, tuple[Layer, str]] = {}
        for path, layer in self.named_layers():
            places.update({join(path, name): (layer, name) for name in (*layer.parameters, *layer.buffers)})
        hosts = {name: to_host(array, name) for name, array in state.items()}
        problems = [f"missing {name}" for name in places if name not in state]
        problems += [f"unknown {name}" for name in state if name not in places]
        for name, (layer, key) in places.items():
            wanted = layer.parameters[key].shape if key in layer.parameters else layer.buffers.shape(key)
            if name in hosts and hosts[name].shape != wanted:
                problems.append(f"{name} has shape {hosts[name].shape}, expected {wanted}")
            floats = key in layer.parameters or layer.buffers.holds_floats(key)
            if name in hosts and (hosts[name].dtype.name in FLOATS) != floats:
                kind = " or ".join(FLOATS) if floats else "integers"
                problems.append(f"{name} holds {hosts[name].dtype.name}, expected {kind}")
        problems += self._torn(places, hosts)
        if problems:
            raise ValueError(f"{type(self).__name__}.load_state_dict: {'; '.join(problems)}")
        loaded = {name: moved(hosts[name], layer.backend) for name, (layer, _) in places.items()}
        for name, (layer, key) in places.items():
            if key in layer.parameters:
                layer.parameters[key].value = loaded[name]
            else:
                layer.buffers[key] = loaded[name]

    def _torn(self, places: Mapping[str, tuple[Layer, str]], hosts: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with arrays for one parameter under several names."""
        first: dict[Parameter, str] = {}
        for name, (layer, key) in places.items():
            if key not in layer.parameters or name not in hosts:
                continue
            other = first.setdefault(layer.parameters[key], name)
            # Bytes, for NaN is equal to NaN here.
            if other != name and hosts[other].tobytes() != hosts[name].tobytes():
                yield f"{other} and {name} are one parameter, but differ"

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """The shape of `forward`'s output in evaluation, from that of the input alone: nothing is computed.

        A layer that does not say in ``_output_shape`` what its shapes are is asked by a forward of zeros: of one sample
        where that fits, of all else, and of that layer alone.

        Parameters
        ----------
        input_shape : sequence of int
            With the batch axis, as in ``(1, 3, 32, 32)``.

        Raises
        ------
        ValueError
            That of `forward` for a shape that does not fit.
        """
        shape = checks.shape("input_shape", input_shape, empty=True)
        if not knows_shapes(self):
            found = probed(self, shape)
        else:
            try:
                found = self._output_shape(shape)
            except (TypeError, ValueError) as error:
                raise (named(self, error) if self._names_errors else error) from error
        told(self, shape, found)
        return found

    def _output_shape(self, shape: Shape) -> Shape:
        """The shape of the output, checked as `_forward` checks it; optional."""
        raise NotImplementedError(f"{type(self).__name__} defines no _output_shape")

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Multiplications in the products of a forward; elementwise work is not counted."""
        return 0

    def summary(self, input_shape: Sequence[int]) -> Summary:
        """Layers, output shapes, parameters and multiply-adds for an input of that shape; print it for a table.

        All follows from shapes, see `output_shape`; nothing is computed, and the model is left as it was. With memory:
        of the parameters, and of the outputs of all layers for that batch, which training keeps.

        Parameters
        ----------
        input_shape : sequence of int
            With the batch axis, as in ``(1, 3, 32, 32)``.
        """
        return summarise(self, input_shape)

    def __repr__(self) -> str:
        parts = []
        for name, default in self.signature:
            value = getattr(self, name)
            if default is ...:
                parts.append(repr(value))
            elif value != default:
                parts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


def join(path: str, name: str) -> str:
    """A full name from a container's and a child's; what has no name adds none."""
    return f"{path}.{name}" if path and name else path or name


def no_forward(owner: Any, mode: str = "") -> RuntimeError:
    """What is wrong with a backward for which nothing was kept."""
    return RuntimeError(f"{owner!r}: backward needs a forward before it{mode} (within released(), one for each)")


def named(owner: Any, error: TypeError | ValueError) -> Exception:
    """The error with its owner's name in front; other subclasses of it pass as they are."""
    return type(error)(f"{owner!r}: {error}") if type(error) in (TypeError, ValueError) else error
