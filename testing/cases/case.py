"""Cases of the parity catalogue: computations that any backend can repeat, and the lengths of their sums.

A case runs on a backend and returns named arrays: the output, the gradients of input and parameters, the buffers.
Weights and inputs are float32 numbers, also in float64, drawn on the host with the case's name as seed, so all backends
and the reference in float64 compute with the same numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...backends import Backend, BackendLike, Generator, get_backend
from ...common.types import Array
from ...layers.core.layer import Layer
from ...layers.losses import Loss
from ..compare import Host
from ..tolerances import Part
from .inputs import Maker, real

#: The backend on which weights are drawn, whatever the environment variables say.
HOST = get_backend("numpy", "float32", "fast")


def part_of(name: str) -> Part:
    """The part of a result to which an array of this name belongs."""
    if name in ("y", "loss", "indices"):
        return "forward"
    if name == "dx":
        return "input"
    return "parameter" if name.startswith("d") else "buffer"


@dataclass(frozen=True)
class Case(ABC):
    """One row of the parity catalogue.

    Attributes
    ----------
    name : str
        Class and configuration: ``"Conv2d/depthwise"``.
    op : str
        Row of `xpnn.testing.tolerances.TABLE`.
    terms : mapping
        The length of the longest sum for ``"forward"``, ``"input"``, ``"parameter"`` and ``"buffer"``; 1 if absent.
    dtype : str
        The default dtype of its computation.
    seed : int
        Seed of its random numbers, together with the name.
    """

    name: str
    op: str
    terms: Mapping[Part, int] = field(default_factory=dict)
    dtype: str = "float32"
    seed: int = field(default=0, kw_only=True)

    #: Whether `run` is one forward and backward of a layer or loss, which `prepare` returns.
    single: ClassVar[bool] = True

    @property
    def subject(self) -> str:
        """The name of the class or net that is tested."""
        return self.name.partition("/")[0]

    @property
    def generator(self) -> Generator:
        """This case's stream of random numbers."""
        return Generator(self.seed).fold_in(self.name)

    def place(self, backend: BackendLike, dtype: str | None = None) -> Backend:
        """The backend with a given dtype, by default the case's."""
        return get_backend(backend, dtype or self.dtype)

    def upstream(self, shape: tuple[int, ...]) -> Host:
        """The gradient of an output of that shape."""
        return np.asarray(self.generator.fold_in("upstream").uniform(shape, -1.0, 1.0, "float32", "numpy"))

    @abstractmethod
    def run(self, backend: BackendLike, dtype: str | None = None) -> dict[str, Array]:
        """Compute on a backend and return arrays by name."""


@dataclass(frozen=True)
class LayerCase(Case):
    """A layer, forward and backward.

    Attributes
    ----------
    build : callable
        Makes the layer from placement keywords.
    shape : tuple of int
        Shape of the input.
    inputs : callable
        Makes the input; one of `xpnn.testing.cases.inputs`.
    layout : str
        Memory layout of input and upstream gradient: ``"plain"``, ``"strided"`` (every second cell, axes permuted),
        ``"channels last"`` (contiguous, as layers with windows return it) or ``"read-only"``. In memory a convolution's
        weight has its features first, but last with ``"strided"``, and its channels last with ``"channels last"``.
    training : bool
        With False only the forward, in evaluation.
    """

    build: Callable[..., Layer] = Layer
    shape: tuple[int, ...] = ()
    inputs: Maker = real
    layout: str = "plain"
    training: bool = True

    def prepare(self, backend: BackendLike, dtype: str | None = None) -> tuple[Layer, Array, None]:
        """The layer with its weights, and its input, on a backend."""
        b = self.place(backend, dtype)
        layer = self.build(backend=b)
        if not self.training:
            layer.eval()
        layer.load_state_dict(host_state(self.build(backend=HOST), self.generator))
        for _, parameter in layer.named_parameters():
            if self.layout in ("channels last", "strided") and len(parameter.shape) > 2:
                parameter.value = with_layout(parameter.value, self.layout, b)
        return layer, self._put(self.inputs(self.generator.fold_in("input"), self.shape), b), None

    def run(self, backend: BackendLike, dtype: str | None = None) -> dict[str, Array]:
        """One forward, and in training one backward."""
        layer, x, _ = self.prepare(backend, dtype)
        b = layer.backend
        before = b.to_numpy(x).copy()
        y, found = layer(x), {}
        if isinstance(y, tuple):
            y, found["indices"] = y
        found["y"] = y
        if self.training:
            dx = layer.backward(self._put(self.upstream(tuple(y.shape)), b))
            # Integers have no gradient.
            found |= {} if dx is None else {"dx": dx}
            found |= {f"d{name}": parameter.grad for name, parameter in layer.named_parameters()}
        if b.to_numpy(x).tobytes() != before.tobytes():
            raise AssertionError(f"{self.name} wrote to its input")
        return found | buffers_of(layer)

    def _put(self, host: Host, b: Backend) -> Array:
        dtype = b.dtype if host.dtype.kind == "f" else None
        if self.layout == "strided":
            wide = np.zeros((2 * host.shape[-1], *reversed(host.shape[:-1])), host.dtype)
            wide[::2, ...] = host.T
            cells = b.asarray(wide, dtype)[::2, ...]
            return b.xp.permute_dims(cells, tuple(reversed(range(host.ndim))))
        if self.layout == "channels last" and host.ndim > 2:
            cells = b.asarray(np.ascontiguousarray(np.moveaxis(host, 1, -1)), dtype)
            return b.xp.permute_dims(cells, (0, host.ndim - 1, *range(1, host.ndim - 1)))
        array = b.asarray(host, dtype)
        if self.layout == "read-only" and isinstance(array, np.ndarray):
            array = np.array(array)
            array.flags.writeable = False
        return array


@dataclass(frozen=True)
class LossCase(Case):
    """A loss and its gradient.

    Attributes
    ----------
    build : callable
        Makes the loss.
    shape : tuple of int
        Shape of the prediction.
    inputs, target : callable
        Make prediction and target from that shape; of `xpnn.testing.cases.inputs`.
    """

    build: Callable[[], Loss] = Loss
    shape: tuple[int, ...] = ()
    inputs: Maker = real
    target: Maker = real

    def prepare(self, backend: BackendLike, dtype: str | None = None) -> tuple[Loss, Array, Array]:
        """The loss, its prediction and its target, on a backend."""
        b = self.place(backend, dtype)
        prediction = self.inputs(self.generator.fold_in("input"), self.shape)
        target = self.target(self.generator.fold_in("target"), self.shape)
        return (
            self.build().to(b),
            b.asarray(prediction, b.dtype),
            b.asarray(target, b.dtype if target.dtype.kind == "f" else None),
        )

    def run(self, backend: BackendLike, dtype: str | None = None) -> dict[str, Array]:
        """The loss, and its gradient."""
        loss, prediction, target = self.prepare(backend, dtype)
        b, value = self.place(backend, dtype), loss(prediction, target)
        if not value.ndim:
            return {"loss": value, "dx": loss.backward()}
        dy = self.upstream(tuple(value.shape))
        return {"loss": value, "dx": loss.backward(b.asarray(dy, b.dtype))}


def with_layout(weight: Array, layout: str, b: Backend) -> Array:
    """A weight ``(F, C, *K)`` in the memory order ``(F, *K, C)`` (channels last) or ``(*K, C, F)`` (strided)."""
    spatial = tuple(range(2, weight.ndim))
    axes = (0, *spatial, 1) if layout == "channels last" else (*spatial, 1, 0)
    ordered = b.asarray(np.ascontiguousarray(b.to_numpy(weight).transpose(axes)), b.dtype)
    return b.xp.permute_dims(ordered, tuple(axes.index(axis) for axis in range(weight.ndim)))


def host_state(layer: Layer, generator: Generator) -> dict[str, Host]:
    """Initial weights and buffers of a layer on NumPy, with random numbers added to constant ones; counts start at 3.

    A layer that ignores a bias of 0 or a running variance of 1 would go unnoticed.
    """
    state = {}
    for name, array in layer.state_dict().items():
        host = np.array(array)
        if host.dtype.kind == "f" and host.size and np.all(host == host.flat[0]):
            host = host + generator.fold_in(name).uniform(host.shape, -0.5, 0.5, "float32", "numpy")
        state[name] = np.asarray(host + 3) if host.dtype.kind == "i" else host
    return state


def buffers_of(layer: Layer) -> dict[str, Array]:
    """All buffers by full name."""
    return {
        f"{path}.{name}" if path else name: array
        for path, part in layer.named_layers()
        for name, array in part.buffers.items()
    }
