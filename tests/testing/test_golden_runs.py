"""200 steps of training in exact numerics have the committed bits on every backend."""

import pytest

import xpnn as nn
from xpnn.testing import golden_runs


@pytest.mark.parametrize("optimizer", golden_runs.OPTIMIZERS)
def test_golden_run_has_the_committed_bits(at, optimizer):
    if at.read_only:
        pytest.skip("the same computation as on numpy")
    if at.name.startswith("strict"):
        pytest.skip("computes with NumPy, slowly; tests/test_exact.py holds a shorter run to numpy's hash there")
    pytest.importorskip("sklearn", reason="scikit-learn, which brings the digits, is not installed")
    assert golden_runs.golden_run(at.backend.spec, optimizer) == golden_runs.GOLDEN[optimizer]


def test_golden_net_has_every_kind_of_layer_whose_bits_are_hard_to_reproduce():
    kinds = {type(layer).__name__ for _, layer in golden_runs.golden_net(backend="numpy").named_layers()}
    assert {"Conv2d", "BatchNorm2d", "ReLU", "Tanh", "MaxPool2d", "Dropout", "Dense"} <= kinds


def test_one_changed_bit_changes_the_hash(monkeypatch):
    pytest.importorskip("sklearn")
    before = golden_runs.golden_run("numpy", "Adam", steps=3)
    assert golden_runs.golden_run("numpy", "Adam", steps=3) == before
    assert (
        golden_runs.golden_run(nn.get_backend("numpy", numerics="exact", slice_products=3), "Adam", steps=3) != before
    )
    monkeypatch.setattr(golden_runs, "SEED", golden_runs.SEED + 1)
    assert golden_runs.golden_run("numpy", "Adam", steps=3) != before


def test_hashes_of_all_runs_are_committed():
    assert golden_runs.GOLDEN.keys() == golden_runs.OPTIMIZERS.keys()
    digests = golden_runs.GOLDEN.values()
    assert all(len(digest) == 64 for digest in digests) and len(set(digests)) == 2
