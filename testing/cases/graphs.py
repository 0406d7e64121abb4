"""Cases of graphs, and of the layers of several inputs in them, which get values of one input."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ...layers import (
    Add,
    BatchNorm2d,
    Concat,
    Conv2d,
    GlobalAvgPool,
    Graph,
    Multiply,
    ReLU,
    Sequential,
    Sigmoid,
    Softsign,
    Tanh,
)
from ...layers.core.layer import Layer
from ..tolerances import Part
from . import inputs
from .case import LayerCase
from .convolutions import PLANE


def graphs() -> Iterator[LayerCase]:
    """Graph, Add, Multiply, Concat."""
    for name, join in (("Add", Add), ("Multiply", Multiply), ("Concat", Concat)):
        yield _join(name, "plain", partial(_pair, join))
        yield _join(name, "three inputs", partial(_three, join))
        yield _join(name, "one value twice", partial(_twice, join))
        yield _join(name, "strided input", partial(_three, join), layout="strided")
        yield _join(name, "empty batch", partial(_three, join), (0, 4, 3, 3))
        yield _join(name, "size-1 axes", partial(_three, join), (1, 1, 1, 1))
        yield _join(name, "NaN", partial(_pair, join), make=inputs.with_nan)
        yield _join(name, "float64", partial(_three, join), dtype="float64")
    yield _join("Concat", "last axis", partial(_pair, partial(Concat, -1)))
    yield _join("Add", "channels broadcast", partial(_scaled, Add), terms=56)
    yield _join("Multiply", "squeeze and excitation", partial(_scaled, Multiply), terms=56)
    yield _join("Multiply", "squeeze and excitation, empty batch", partial(_scaled, Multiply), (0, 4, 3, 3), terms=9)
    yield _graph("plain", _branches)
    yield _graph("one layer in two nodes", _tied)
    yield _graph("chains of convolution, batch norm and ReLU", _chains)
    yield _graph("channels last", _chains, layout="channels last")


def _join(
    name: str,
    variant: str,
    build: Callable[..., Layer],
    shape: tuple[int, ...] = PLANE,
    *,
    terms: int = 1,
    layout: str = "plain",
    dtype: str = "float32",
    make: inputs.Maker = inputs.real,
) -> LayerCase:
    # The functions before the join, and sums of their gradients.
    lengths: dict[Part, int] = {"forward": terms, "input": 4 * terms}
    return LayerCase(f"{name}/{variant}", "join", lengths, dtype, build, shape, make, layout)


def _graph(variant: str, build: Callable[..., Layer], *, layout: str = "plain") -> LayerCase:
    terms: dict[Part, int] = {"forward": 108, "input": 108, "parameter": 504, "buffer": 168}
    return LayerCase(f"Graph/{variant}", "net", terms, "float32", build, PLANE, layout=layout)


def _pair(join: Callable[[], Layer], **placement: Any) -> Layer:
    return Graph({"tanh": (Tanh(), "input"), "joined": (join(), ("input", "tanh"))}, **placement)


def _three(join: Callable[[], Layer], **placement: Any) -> Layer:
    nodes = {"a": (Tanh(), "input"), "b": (Softsign(), "a"), "joined": (join(), ("b", "input", "a"))}
    return Graph(nodes, **placement)


def _twice(join: Callable[[], Layer], **placement: Any) -> Layer:
    return Graph({"tanh": (Tanh(), "input"), "joined": (join(), ("tanh", "tanh"))}, **placement)


def _scaled(join: Callable[[], Layer], **placement: Any) -> Layer:
    nodes = {
        "pool": (GlobalAvgPool(), "input"),
        "gate": (Sigmoid(), "pool"),
        "joined": (join(), ("input", "gate")),
    }
    return Graph(nodes, **placement)


def _branches(**placement: Any) -> Layer:
    """Three consumers of one value, a sum with ReLU, and a container as a node."""
    nodes = {
        "stem": (Conv2d(4, 4, 3, padding=1), "input"),
        "left.conv": (Conv2d(4, 4, 1), "stem"),
        "right": (Sequential(Tanh(), Conv2d(4, 4, 3, padding=1)), "stem"),
        "sum": (Add(), ("left.conv", "right", "stem")),
        "act": (ReLU(), "sum"),
        "joined": (Concat(), ("act", "right")),
    }
    return Graph(nodes, **placement)


def _tied(**placement: Any) -> Layer:
    conv = Conv2d(4, 4, 3, padding=1, bias=False)
    nodes = {
        "first": (conv, "input"),
        "tanh": (Tanh(), "first"),
        "second": (conv, "tanh"),
        "product": (Multiply(), ("second", "tanh")),
    }
    return Graph(nodes, **placement)


def _chains(**placement: Any) -> Layer:
    nodes = {
        "conv": (Conv2d(4, 6, 3, padding=1), "input"),
        "norm": (BatchNorm2d(6), "conv"),
        "act": (ReLU(), "norm"),
        "conv2": (Conv2d(6, 4, 3, padding=1), "act"),
        "norm2": (BatchNorm2d(4), "conv2"),
        "sum": (Add(), ("norm2", "input")),
    }
    return Graph(nodes, **placement)
