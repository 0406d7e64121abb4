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


@pytest.mark.parametrize("name", CASES)
def test_backward_is_the_derivative_along_a_direction(name):
    """Central differences in float64, for the input and for each parameter, along one random direction each."""
    case, step = CASES[name], 1e-6
    b = nn.get_backend("numpy", "float64")
    rng = np.random.default_rng(7)
    subject, x, target = case.prepare(b)

    def value(x):
        for layer in () if target is not None else (part for _, part in subject.named_layers()):
            if isinstance(layer, nn.Dropout):
                layer.stream.position = 0
        return subject(x) if target is None else subject(x, target)

    weights = rng.standard_normal(np.shape(value(x)))
    dx = subject.backward(weights) if target is None else subject.backward(weights[()])

    def slope(ahead, behind):
        return float(np.sum(weights * ahead) - np.sum(weights * behind)) / (2 * step)

    along = rng.standard_normal(x.shape)
    found = slope(value(x + step * along), value(x - step * along))
    assert found == pytest.approx(float(np.sum(dx * along)), rel=1e-5, abs=1e-5)
    for key, parameter in () if target is not None else subject.named_parameters():
        original, gradient = parameter.value, parameter.grad
        along = rng.standard_normal(parameter.shape)
        ends = []
        for sign in (1, -1):
            parameter.value = original + sign * step * along
            ends.append(value(x))
        parameter.value = original
        assert slope(*ends) == pytest.approx(float(np.sum(gradient * along)), rel=1e-5, abs=1e-5), key


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_written_to_input_or_upstream_gradient(at, name):
    case = CASES[name]
    subject, x, target = case.prepare(at.backend)
    before = at.get(x).copy()
    y = subject(x) if target is None else subject(x, target)
    dy = at.put(np.ones(tuple(y.shape), np.float32))
    subject.backward(dy)
    assert_match(x, before, level="exact")
    assert_match(dy, np.ones(tuple(y.shape), np.float32), level="exact")
