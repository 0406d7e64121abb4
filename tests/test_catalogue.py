"""Every layer and loss of the catalogue, on every backend, in both dtypes; and the table in the docs that says so.

``pytest tests/test_catalogue.py --catalogue=docs/catalogue.md`` writes the table from what was run.
"""

from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.losses import Loss
from xpnn.testing import assert_match, cases

CASES = {case.name: case for case in cases()}
DOCS = Path(__file__).parents[1] / "docs/catalogue.md"
# Containers and abstract bases compute nothing of their own; they are tested with their parts.
BASES = {"Layer", "Container", "Sequential", "Residual", "Parallel", "Loss"}
SHORT = {"MSE", "MAE", "MSLE", "MAPE"}


@pytest.fixture(scope="module")
def reference():
    """Each case in float64 on NumPy."""
    return {name: case.run("numpy", "float64") for name, case in CASES.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_case_matches_float64_on_numpy(at, reference, record_property, name, dtype):
    found = CASES[name].run(at.backend, dtype)
    assert found.keys() == reference[name].keys()
    for part, array in found.items():
        desired = reference[name][part]
        kind = dtype if desired.dtype.kind == "f" else desired.dtype.name
        level = "exact" if kind not in ("float32", "float64") else "network"
        terms = CASES[name].terms
        assert_match(array, desired, level=level, terms=terms, dtype=kind, name=f"{name} {part}")
        at.backend.owns(array)
    record_property("catalogue", (name, at.backend.spec, dtype))


@pytest.mark.parametrize("name", CASES)
def test_case_gives_the_same_bits_twice(at, name):
    one, two = CASES[name].run(at.backend), CASES[name].run(at.backend)
    for part, array in one.items():
        assert np.array_equal(at.get(array), at.get(two[part]), equal_nan=True), part


def test_every_public_layer_and_loss_has_a_case():
    public = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    ours = {name for name in public if issubclass(getattr(nn, name), nn.Layer | Loss)}
    assert ours - BASES - SHORT == CASES.keys()


def test_docs_list_every_case():
    rows = [line.split("`")[1] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == list(CASES)
