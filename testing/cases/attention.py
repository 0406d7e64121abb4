"""Cases of embeddings, learned positions, orders of axes, and attention."""

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

from ...layers import Embedding, MultiHeadAttention, Permute, PositionEmbedding
from ..tolerances import Part
from . import inputs
from .case import LayerCase

TOKENS, SEQUENCE = (4, 6), (3, 5, 8)


def embeddings() -> Iterator[LayerCase]:
    """Embedding, PositionEmbedding and Permute."""
    yield _embedding("plain", TOKENS, 7)
    yield _embedding("padding row", TOKENS, 7, padding_idx=2)
    yield _embedding("one row", TOKENS, 1)
    yield _embedding("many repeats", (40, 30), 3)
    yield _embedding("more rows than indices", TOKENS, 300, padding_idx=-1)
    yield _embedding("wide rows", TOKENS, 7, 150)
    yield _embedding("one index a sample", (9,), 7)
    yield _embedding("three axes", (3, 2, 4), 7)
    yield _embedding("empty batch", (0, 6), 7)
    yield _embedding("strided input", TOKENS, 7, layout="strided")
    yield _embedding("read-only input", TOKENS, 7, layout="read-only")
    yield _embedding("float64", TOKENS, 7, dtype="float64")
    yield _positions("plain", SEQUENCE, 5)
    yield _positions("shorter sequence", SEQUENCE, 9)
    yield _positions("NaN", SEQUENCE, 5, make=inputs.with_nan)
    yield _positions("empty batch", (0, 5, 8), 5)
    yield _positions("strided input", SEQUENCE, 5, layout="strided")
    yield _positions("float64", SEQUENCE, 5, dtype="float64")
    yield _permute("plain", SEQUENCE, 2, 1)
    yield _permute("channels last", (2, 3, 4, 5), 2, 3, 1, layout="channels last")
    yield _permute("strided input", (2, 3, 4, 5), 3, 1, 2, layout="strided")
    yield _permute("empty batch", (0, 4, 3), 2, 1)


def attentions() -> Iterator[LayerCase]:
    """MultiHeadAttention."""
    for variant, options in (("", {}), ("causal", {"causal": True})):

        def case(name: str, *rest: Any, variant: str = variant, options: Any = options, **more: Any) -> LayerCase:
            return _attention(", ".join(filter(None, (name, variant))), *rest, **{**options, **more})

        yield case("plain") if not variant else _attention("causal", causal=True)
        yield case("one head", heads=1)
        yield case("one position", (3, 1, 8))
        yield case("dropout", dropout=0.3)
        yield case("NaN", make=inputs.with_nan)
        yield case("long sequence", (2, 70, 8))
    yield _attention("a head for each feature", heads=8)
    yield _attention("no bias", bias=False)
    yield _attention("drops all", dropout=1.0)
    yield _attention("dropout, evaluation", dropout=0.3, training=False)
    yield _attention("probabilities near 0 and 1", make=inputs.tails)
    yield _attention("empty batch", (0, 5, 8))
    yield _attention("strided input", layout="strided")
    yield _attention("read-only input", layout="read-only")
    yield _attention("float64", dtype="float64")


def _embedding(
    variant: str,
    shape: tuple[int, ...],
    rows: int,
    features: int = 3,
    *,
    layout: str = "plain",
    dtype: str = "float32",
    **options: Any,
) -> LayerCase:
    build, make = partial(Embedding, rows, features, **options), partial(inputs.indices, rows=rows)
    terms: dict[Part, int] = {"parameter": prod(shape)}
    return LayerCase(f"Embedding/{variant}", "embedding", terms, dtype, build, shape, make, layout)


def _positions(
    variant: str,
    shape: tuple[int, ...],
    length: int,
    *,
    make: inputs.Maker = inputs.real,
    layout: str = "plain",
    dtype: str = "float32",
) -> LayerCase:
    build, name = partial(PositionEmbedding, length, shape[2]), f"PositionEmbedding/{variant}"
    return LayerCase(name, "position", {"parameter": shape[0]}, dtype, build, shape, make, layout)


def _permute(variant: str, shape: tuple[int, ...], *axes: int, layout: str = "plain") -> LayerCase:
    build = partial(Permute, *axes)
    return LayerCase(f"Permute/{variant}", "copy", {}, "float32", build, shape, inputs.real, layout)


def _attention(
    variant: str,
    shape: tuple[int, ...] = SEQUENCE,
    *,
    heads: int = 2,
    make: inputs.Maker = inputs.real,
    layout: str = "plain",
    dtype: str = "float32",
    training: bool = True,
    **options: Any,
) -> LayerCase:
    n, length, features = shape
    build = partial(MultiHeadAttention, features, heads, **options)
    # Three products after one another: with a matrix of weights, with the other positions, and with weights again.
    one = 2 * features + 2 * length
    terms: dict[Part, int] = {"forward": one, "input": 2 * one, "parameter": 2 * one + n * length}
    name = f"MultiHeadAttention/{variant}"
    return LayerCase(name, "attention", terms, dtype, build, shape, make, layout, training)
