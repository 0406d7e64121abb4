"""The parity catalogue is complete, and its reference is right: the gradients in float64 are the derivatives."""

from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.losses import Loss
from xpnn.testing import cases
from xpnn.testing.cases import LossCase
from xpnn.training.optimizers import OPTIMIZERS

CASES = {case.name: case for case in cases()}
SINGLE = [name for name, case in CASES.items() if case.single]
# Words in the names of cases that can't be differentiated by differences.
KINKS = (
    "NaN",
    "infinit",
    "zeros",
    "whole",
    "ties",
    "tie everywhere",
    "all sizes",
    "evaluation",
    "variance 0",
    "certain",
    "empty",
    "padding row",
)
SMOOTH = [name for name in SINGLE if not any(word in name for word in KINKS)]
DOCS = Path(__file__).parents[2] / "docs/catalogue.md"
# Containers and abstract bases compute nothing of their own; they are tested with their parts.
BASES = {"Layer", "Container", "Checkpointed", "Sequential", "Residual", "Parallel", "PerInput", "Loss"}


def biggest(array):
    return float(np.abs(array).max(initial=0.0, where=np.isfinite(array)))


@pytest.mark.parametrize("name", SMOOTH)
def test_backward_is_the_derivative_along_a_direction(name):
    """Central differences in float64, for the input and for each parameter, along one random direction each."""
    case, step = CASES[name], 1e-6
    b = nn.get_backend("numpy", "float64")
    rng = np.random.default_rng(7)
    subject, x, target = case.prepare(b, "float64")

    def value(x):
        for layer in () if target is not None else (part for _, part in subject.named_layers()):
            if isinstance(layer, nn.Dropout | nn.MultiHeadAttention):
                layer.stream.position = 0
        y = subject(x) if target is None else subject(x, target)
        return y[0] if isinstance(y, tuple) else y

    weights = rng.standard_normal(np.shape(value(x)))
    dx = subject.backward(weights) if target is None else subject.backward(weights[()])

    def slope(ahead, behind):
        return float(np.sum(weights * ahead) - np.sum(weights * behind)) / (2 * step)

    scale = max(1.0, 0.0 if dx is None else biggest(dx), biggest(value(x)))
    assert (dx is None) == (x.dtype.kind == "i")
    if dx is not None:
        along = rng.standard_normal(x.shape)
        found = slope(value(x + step * along), value(x - step * along))
        assert found == pytest.approx(float(np.sum(dx * along)), rel=1e-5, abs=1e-5 * scale)
    for key, parameter in () if target is not None else subject.named_parameters():
        original, gradient = parameter.value, parameter.grad
        along = rng.standard_normal(parameter.shape)
        ends = []
        for sign in (1, -1):
            parameter.value = original + sign * step * along
            ends.append(value(x))
        parameter.value = original
        wanted = float(np.sum(gradient * along))
        assert slope(*ends) == pytest.approx(wanted, rel=1e-5, abs=1e-5 * max(scale, biggest(gradient))), key


def test_every_public_layer_and_loss_has_a_plain_case():
    public = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    ours = {name for name in public if issubclass(getattr(nn, name), nn.Layer | Loss)}
    assert ours - BASES <= {name.removesuffix("/plain") for name in SINGLE}


def test_catalogue_has_the_difficult_configurations():
    assert len(CASES) >= 250
    for word in (
        *("ties", "NaN", "infinit", "empty batch", "size-1 axes", "even kernel", "stride over kernel", "asymmetric"),
        *("dilation", "groups", "depthwise", "strided input", "read-only input", "float64", "large reduction"),
    ):
        assert sum(word in name for name in CASES) >= 3, word
    kinds = {type(case).__name__ for case in CASES.values()}
    assert kinds == {"LayerCase", "LossCase", "NetCase", "TrainingCase"}
    assert any(isinstance(case, LossCase) and case.single for case in CASES.values())
    assert {CASES[name].subject for name in CASES} >= {kind.__name__ for kind in OPTIMIZERS.values()}


def test_readme_and_docs_count_the_cases():
    readme = (DOCS.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"| {len(CASES)} cases on two backends" in readme
    assert f"parity: {len(CASES)} cases, {len(CASES)} passed, 0 failed" in readme
    exact = sum(case.dtype == "float32" for case in CASES.values())
    docs = (DOCS.parent / "parity.md").read_text(encoding="utf-8")
    assert f" of {len(CASES)} cases" in docs and f"in all {exact} cases" in docs


def test_docs_list_every_subject():
    rows = [line.split("`")[1] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == list(dict.fromkeys(case.subject for case in CASES.values()))
