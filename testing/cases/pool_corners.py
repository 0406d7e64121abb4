"""Corner cases of pooling: all kernels, strides, dilations and paddings up to 3, with and without `ceil_mode`.

They are too many and too small for the catalogue; `xpnn parity --modes` and the tests run them in all modes. Pools over
one axis have a case for each combination. Pools over two and three axes combine several in one case, one for each axis.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

from ... import layers
from ..tolerances import Part
from . import inputs
from .case import LayerCase

POOLS = ("MaxPool", "AvgPool", "LpPool")
SIZES = (7, 6, 5)
SIDES = ((0, 0), (1, 1), (1, 0), (0, 2))


def pool_corners() -> Iterator[LayerCase]:
    """Corner cases of max, average and Lp pools over one to three axes; some have windows that cover only padding."""
    for name in POOLS:
        axis = list(product((1, 2, 3), (1, 2, 3), (1, 2) if name == "AvgPool" else (1, 2, 3), SIDES))
        for ceil_mode, axes in product((False, True), (1, 2, 3)):
            part = len(axis) // axes
            for i in range(part):
                along = [axis[(i + a * part) % len(axis)] for a in range(axes)]
                yield _corner(name, along, ceil_mode, i)


def _corner(name: str, along: list[Any], ceil_mode: bool, i: int) -> LayerCase:
    kernel, stride, dilation, padding = (tuple(each) for each in zip(*along, strict=True))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "dilation": dilation}
    if name == "AvgPool":
        options["count_include_pad"] = bool(i % 2)
    if name == "MaxPool":
        options["return_indices"] = True
    arguments: tuple[Any, ...] = (2.0 if i % 3 else 3.0, kernel) if name == "LpPool" else (kernel,)
    axes = len(along)
    build = partial(getattr(layers, f"{name}{axes}d"), *arguments, **options)
    settings = ", ".join(f"{key} {value}" for key, value in (("kernel", kernel), *options.items()))
    op = {"MaxPool": "max pool", "AvgPool": "average pool", "LpPool": "Lp pool"}[name]
    terms: dict[Part, int] = {"forward": 3**axes, "input": 3**axes}
    make = inputs.ties if name == "MaxPool" and i % 2 else inputs.real
    return LayerCase(f"{name}{axes}d/corner {settings}", op, terms, "float32", build, (2, 3, *SIZES[:axes]), make)
