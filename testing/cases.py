"""The catalogue of cases: every layer and loss once, in its plain form, with inputs that any backend can repeat.

A case is run on a backend and gives named arrays: outputs, the input's gradient and every parameter's gradient. Weights
and inputs are drawn on the host from the case's own name, so two backends compute the same thing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .. import layers
from ..backends import BackendLike, Generator, get_backend
from ..backends.types import Array
from ..layers.base import Layer


@dataclass(frozen=True)
class Case:
    """A layer with the shape of its input, or a loss with the shapes of prediction and target.

    Attributes
    ----------
    name : str
        The class.
    build : callable
        Makes the layer or loss from placement keywords.
    shape : tuple of int
        Of the input or prediction, batch axis first.
    terms : int
        Length of the longest sum behind a value, from which tolerances follow.
    inputs : str
        Where the input lies: ``"real"``, ``"positive"``, ``"probability"`` (0 to 1) or ``"log probability"``.
    target : str
        For a loss: ``"like"`` the input, ``"classes"`` along axis 1, ``"binary"`` or ``"distribution"`` along axis 1.
    """

    name: str
    build: Callable[..., Any]
    shape: tuple[int, ...]
    terms: int
    inputs: str = "real"
    target: str = ""

    def prepare(self, backend: BackendLike, dtype: str | None = None) -> tuple[Any, Array, Array | None]:
        """The layer or loss, its input, and for a loss its target, on a backend.

        Weights and inputs are float32 numbers in either dtype, so that float64 is a reference for float32.
        """
        b = get_backend(backend, dtype)
        generator = Generator(0).fold_in(self.name)
        x = b.asarray(self._input(generator), b.dtype)
        if self.target:
            target = self._target(generator)
            return self.build(), x, b.asarray(target, b.dtype if target.dtype.kind == "f" else None)
        layer: Layer = self.build(backend=b)
        layer.load_state_dict(self.build(backend=get_backend("numpy", "float32")).state_dict())
        return layer, x, None

    def run(self, backend: BackendLike, dtype: str = "float32") -> dict[str, Array]:
        """Forward and backward on a backend: output, gradients and buffers by name."""
        subject, x, target = self.prepare(backend, dtype)
        if target is not None:
            return {"loss": subject(x, target), "dx": subject.backward()}
        b, y = subject.backend, subject(x)
        upstream = Generator(0).fold_in(self.name).fold_in("upstream")
        dy = upstream.uniform(tuple(y.shape), -1.0, 1.0, "float32", "numpy")
        found = {"y": y, "dx": subject.backward(b.asarray(dy, b.dtype))}
        found |= {f"d{name}": parameter.grad for name, parameter in subject.named_parameters()}
        return found | {name: array for _, part in subject.named_layers() for name, array in part.buffers.items()}

    def _input(self, generator: Generator) -> np.ndarray[Any, Any]:
        x = generator.fold_in("input").uniform(self.shape, -2.0, 2.0, "float32", "numpy")
        if self.inputs == "positive":
            x = np.abs(x) + np.float32(0.5)
        elif self.inputs == "probability":
            x = (x + np.float32(2.5)) * np.float32(0.2)
        elif self.inputs == "log probability":
            x = _normalised(np.abs(x) + np.float32(0.5), logarithm=True)
        return np.asarray(x)

    def _target(self, generator: Generator) -> np.ndarray[Any, Any]:
        generator = generator.fold_in("target")
        targets = (self.shape[0], *self.shape[2:])
        if self.target == "classes":
            return np.asarray(generator.permutation(prod(targets)).reshape(targets) % self.shape[1])
        t = np.abs(generator.uniform(self.shape, -2.0, 2.0, "float32", "numpy")) + np.float32(0.5)
        if self.target == "binary":
            t = (t > 1.5).astype(np.float32)
        elif self.target == "distribution":
            t = _normalised(t, logarithm=False)
        return np.asarray(t)


def _normalised(x: np.ndarray[Any, Any], *, logarithm: bool) -> np.ndarray[Any, Any]:
    wide = x.astype(np.float64)
    wide = wide / wide.sum(axis=1, keepdims=True)
    return np.asarray((np.log(wide) if logarithm else wide).astype(np.float32))


def _layer(name: str, shape: tuple[int, ...], *arguments: Any, terms: int = 1, **options: Any) -> Case:
    cls = getattr(layers, name)
    return Case(name, lambda **placement: cls(*arguments, **options, **placement), shape, terms)


def _loss(name: str, shape: tuple[int, ...], inputs: str, target: str, **options: Any) -> Case:
    cls = getattr(layers, name)
    return Case(name, lambda: cls(**options), shape, prod(shape), inputs, target)


def cases() -> list[Case]:
    """One plain case of every layer and loss."""
    line, plane, space = (3, 4, 9), (3, 4, 8, 7), (2, 4, 5, 6, 4)
    shapes = (line, plane, space)
    found = [
        *(_layer(f"Conv{n}d", s, 4, 6, 3, padding=1, terms=300) for n, s in enumerate(shapes, 1)),
        *(_layer(f"ConvTranspose{n}d", s, 4, 6, 3, stride=2, terms=300) for n, s in enumerate(shapes, 1)),
        *(_layer(f"MaxPool{n}d", s, 2) for n, s in enumerate(shapes, 1)),
        *(_layer(f"AvgPool{n}d", s, 2, terms=8) for n, s in enumerate(shapes, 1)),
        *(_layer(f"LpPool{n}d", s, 3, 2, terms=8) for n, s in enumerate(shapes, 1)),
        *(_layer(f"AdaptiveAvgPool{n}d", s, 3, terms=8) for n, s in enumerate(shapes, 1)),
        *(_layer(f"AdaptiveMaxPool{n}d", s, 3) for n, s in enumerate(shapes, 1)),
        _layer("AdaptiveAvgPool", plane, (3, 2), terms=12),
        _layer("AdaptiveMaxPool", plane, (3, 2)),
        *(_layer(f"Global{kind}Pool", plane, terms=56) for kind in ("Avg", "Max", "Lp")),
        _layer("Dense", (5, 7), 7, 6, terms=7),
        _layer("Flatten", plane),
        _layer("Reshape", (3, 4, 6), 6, 4),
        _layer("Pad", plane, ((1, 2), (0, 1)), 0.5),
        _layer("Upsample", plane, 2, terms=4),
        _layer("Identity", plane),
        *(_layer(name, (4, 5, 6)) for name in ACTIVATIONS),
        _layer("PReLU", (4, 5, 6), 5, terms=24),
        _layer("Softmax", (4, 5, 6), terms=5),
        _layer("LogSoftmax", (4, 5, 6), terms=5),
        *(_layer(f"BatchNorm{n}d", s, 4, terms=240) for n, s in enumerate(shapes, 1)),
        *(_layer(f"InstanceNorm{n}d", s, 4, terms=120) for n, s in enumerate(shapes, 1)),
        _layer("LayerNorm", (5, 3, 8), (3, 8), terms=24),
        _layer("GroupNorm", plane, 2, 4, terms=112),
        _layer("Dropout", plane, 0.5),
        *(_layer(f"Dropout{n}d", s, 0.5) for n, s in enumerate(shapes, 1)),
        *(_loss(name, (6, 5), "positive", "like") for name in DIFFERENCES),
        _loss("BinaryCrossEntropy", (6, 5), "probability", "binary"),
        _loss("BinaryCrossEntropyWithLogits", (6, 5), "real", "binary"),
        _loss("CrossEntropy", (6, 5), "real", "classes", label_smoothing=0.1),
        _loss("NLL", (6, 5), "log probability", "classes"),
        _loss("KLDivergence", (6, 5), "log probability", "distribution", reduction="batchmean"),
    ]
    return found


DIFFERENCES = (
    "MeanSquaredError",
    "MeanAbsoluteError",
    "L1",
    "L2",
    "MeanSquaredLogError",
    "MeanAbsolutePercentageError",
    "Huber",
    "SmoothL1",
)
ACTIVATIONS = (
    "ReLU",
    "LeakyReLU",
    "ELU",
    "SELU",
    "CELU",
    "GELU",
    "SiLU",
    "Mish",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Softplus",
    "Softsign",
)
