"""200 steps of training in exact numerics have the committed bits on every backend."""

import pytest

import xpnn as nn
from xpnn.testing import golden_runs as golden


@pytest.mark.parametrize("optimizer", golden.OPTIMIZERS)
def test_golden_run_has_the_committed_bits(at, optimizer):
    if at.read_only:
        pytest.skip("the same computation as on numpy")
    if at.name.startswith("strict"):
        pytest.skip("computes with NumPy, slowly; tests/test_exact.py holds a shorter run to numpy's hash there")
    pytest.importorskip("sklearn", reason="scikit-learn, which brings the digits, is not installed")
    assert golden.golden_run(at.backend.spec, optimizer) == golden.GOLDEN[optimizer]


def test_golden_net_has_every_kind_of_layer_whose_bits_are_hard_to_reproduce():
    kinds = {type(layer).__name__ for _, layer in golden.golden_net(backend="numpy").named_layers()}
    assert {"Conv2d", "BatchNorm2d", "ReLU", "Tanh", "MaxPool2d", "Dropout", "Dense"} <= kinds


def test_one_changed_bit_changes_the_hash(monkeypatch):
    pytest.importorskip("sklearn")
    before = golden.golden_run("numpy", "Adam", steps=3)
    assert golden.golden_run("numpy", "Adam", steps=3) == before
    assert golden.golden_run(nn.get_backend("numpy", numerics="exact", slice_products=3), "Adam", steps=3) != before
    monkeypatch.setattr(golden, "SEED", golden.SEED + 1)
    assert golden.golden_run("numpy", "Adam", steps=3) != before


def test_hashes_of_all_runs_are_committed():
    assert golden.GOLDEN.keys() == golden.OPTIMIZERS.keys()
    assert all(len(digest) == 64 for digest in golden.GOLDEN.values()) and len(set(golden.GOLDEN.values())) == 2
