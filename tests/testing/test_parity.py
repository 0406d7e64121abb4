"""What a parity run detects and reports."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.engines import numba
from xpnn.testing import cases, tolerance
from xpnn.testing.cases import NetCase, part_of
from xpnn.testing.compare import EDGES, compare, same_bits
from xpnn.testing.outcomes import worst
from xpnn.testing.parity import Parity, run_host
from xpnn.testing.tolerances import EPS, PARTS, TABLE, Bound, bound

CASES = {case.name: case for case in cases()}
DENSE = CASES["Dense/plain"]


def judged(case=DENSE, parity=None, **changes):
    """The outcome if a backend returns some arrays changed by ``changes``."""
    parity = parity or Parity("numpy")
    found = run_host(case, "numpy")
    return parity.judge(case, {name: changes.get(name, lambda a: a)(array) for name, array in found.items()})


def test_right_results_pass_with_the_same_bits():
    outcome = judged()
    assert outcome.passed and outcome.same_bits and outcome.problem == ""
    assert [measured.name for measured in outcome.arrays] == ["y", "dx", "dweight", "dbias"]
    assert all(measured.truth.ulps < 3.0 and measured.reference.ulps == 0.0 for measured in outcome.arrays)
    assert outcome.arrays[0].truth.ulps > 0.0


def test_truth_is_computed_in_float64_from_the_same_float32_numbers():
    truth = Parity("numpy").truth(DENSE)
    assert {array.dtype.name for array in truth.values()} == {"float64"}
    layer, x, _ = DENSE.prepare("numpy", "float64")
    weight = layer.parameters["weight"].value
    assert np.array_equal(x, x.astype(np.float32)) and np.array_equal(weight, weight.astype(np.float32))
    assert np.allclose(truth["y"], x @ weight.T + layer.parameters["bias"].value, rtol=1e-14)


@pytest.mark.parametrize("name", ["y", "dx", "dweight", "dbias"])
def test_an_error_above_the_bound_fails_and_names_the_array_and_the_index(name):
    def moved(array):
        far = array.copy()
        index = np.unravel_index(np.argmax(np.abs(far)), far.shape)
        terms = DENSE.terms[part_of(name)]
        far[index] *= 1 + 3.0 * tolerance("dense", "float32", terms, part_of(name))
        return far

    outcome = judged(**{name: moved})
    assert not outcome.passed and not outcome.same_bits
    assert outcome.problem.startswith(f"{name} against float64: at (")
    assert "times what is allowed" in outcome.problem


def test_one_ulp_passes_with_other_bits():
    outcome = judged(y=lambda y: np.nextafter(y, np.float32(np.inf)))
    assert outcome.passed and not outcome.same_bits


@pytest.mark.parametrize("change", [lambda a: a.astype(np.float64), lambda a: a[None], lambda a: a[:-1]])
def test_another_dtype_or_shape_fails(change):
    outcome = judged(dx=change)
    assert "dx is float" in outcome.problem and "expected float32 (5, 7)" in outcome.problem


def test_a_missing_or_additional_array_fails():
    found = run_host(DENSE, "numpy")
    without = {name: array for name, array in found.items() if name != "dbias"}
    assert "returns y, dx, dweight; expected" in Parity("numpy").judge(DENSE, without).problem
    assert "expected" in Parity("numpy").judge(DENSE, found | {"extra": found["y"]}).problem


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_in_place_of_a_number_fails(wrong):
    def spoiled(array):
        array = array.copy()
        array[0, 0] = wrong
        return array

    outcome = judged(y=spoiled)
    assert "NaN or infinity differs" in outcome.problem
    lost = judged(CASES["Dense/NaN"], y=lambda y: np.nan_to_num(y))
    assert "NaN or infinity differs" in lost.problem


def test_an_exception_becomes_an_outcome_with_its_file_and_line():
    class Broken(nn.Dense):
        def _forward(self, x):
            raise KeyError("no such kernel")

    outcome = Parity("numpy").run(replace(DENSE, build=partial(Broken, 7, 6)))
    assert not outcome.passed and not outcome.arrays
    assert "KeyError: 'no such kernel'" in outcome.problem and "test_parity.py:" in outcome.problem


def test_integers_must_be_equal():
    case = CASES["MaxPool2d/indices"]
    assert judged(case).passed
    outcome = judged(case, indices=lambda i: i + (i == i.max()))
    assert "indices against float64" in outcome.problem


def test_a_bias_gradient_that_cancels_is_measured_by_its_layers_other_gradients():
    """Before a batch norm the bias has gradient 0, up to the rounding errors of the sum."""

    def net(**placement):
        return nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Dense(12, 4), **placement
        )

    case = NetCase("net", "net", dict.fromkeys(PARTS, 500), build=net, shape=(4, 2, 4, 4))
    outcome = Parity("numpy").run(case)
    (bias,) = (measured for measured in outcome.arrays if measured.name == "d0.bias")
    assert outcome.passed and bias.truth.ulps < 20


def test_exact_numerics_requires_the_bits_of_the_reference(monkeypatch):
    monkeypatch.setattr(Parity, "exact", True)
    assert judged().passed
    assert "y has other bits than on numpy" in judged(y=lambda y: np.nextafter(y, np.float32(np.inf))).problem


def test_worst_leaves_out_infinite_errors():
    outcomes = [judged(), judged(y=lambda y: y * np.nan)]
    ulps, case, name = worst(outcomes, forward=True)
    assert (case, name) == ("Dense/plain", "y") and ulps == outcomes[0].arrays[0].truth.ulps
    assert worst([], forward=True) is None


def test_every_bound_grows_with_the_length_of_the_sum_as_declared():
    assert [Bound(2.0, growth).units(16) for growth in ("constant", "sqrt", "linear")] == [2.0, 8.0, 32.0]
    assert Bound(2.0).units(0) == 2.0
    assert tolerance("dense", "float32", 16) == 16 * 2.0**-24 and EPS["float64"] == 2.0**-53
    with pytest.raises(ValueError, match=r"level must be 'exact', .*got 'glue'"):
        bound("glue")


def test_every_operation_of_a_case_is_in_the_table_and_every_operation_has_a_case():
    general = {"exact", "elementwise", "reduction", "network"}
    # Compiled kernels choose other algorithms of convolution.
    by_arrays_only = {"Winograd F2", "banded convolution"} if numba.used() else set()
    assert {case.op for case in CASES.values()} | by_arrays_only == TABLE.keys() - general
    assert all(rows.keys() == set(PARTS) for rows in TABLE.values())


def test_bounds_are_far_below_what_half_precision_or_tf32_would_need():
    """TF32 keeps 11 bits of a factor, so its products are off by 2**-12: no bound on a product may reach that."""
    for name, case in CASES.items():
        if case.op in ("convolution", "dense") and case.dtype == "float32":
            longest = max(case.terms.values())
            # Errors of rounded factors grow with sqrt(K) too, relative to the largest sum of K products.
            assert tolerance(case.op, "float32", 1) < 2.0**-12 / 100, name
            assert tolerance(case.op, "float32", longest) < 2.0**-12, name


def test_comparison_counts_errors_by_size():
    desired = np.float32([1.0, 1.0, 1.0, 1.0])
    actual = desired + np.float32([0.0, 2.0**-23, 3 * 2.0**-23, 1.0])
    found = compare(actual, desired, Bound(1.0))
    assert found.ulps == 2.0**23 and found.index == (3,) and found.got == "2.0" and found.wanted == "1.0"
    assert sum(found.histogram) == 4 and found.histogram[0] == 1 and found.histogram[-1] == 1
    assert found.histogram[EDGES.index(1.0)] == 1 and found.histogram[EDGES.index(4.0)] == 1


def test_bits_are_compared_with_the_sign_of_zero_and_without_that_of_nan():
    zeros, nans = np.float32([0.0, -0.0]), np.float32([np.nan, np.nan])
    assert not same_bits(zeros, zeros[::-1]) and same_bits(zeros, zeros.copy())
    assert same_bits(nans, np.copysign(nans, -1)) and not same_bits(nans, zeros)
    assert not same_bits(zeros, zeros.astype(np.float64)) and not same_bits(zeros, zeros[None])
    assert same_bits(np.asfortranarray(np.eye(3, 2)), np.eye(3, 2))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case, NetCase)])
def test_no_value_of_a_net_is_near_a_kink(name):
    """Near a kink a float32 error would make gradients jump, and the case would fail by chance."""
    net, x, _ = CASES[name].prepare("numpy", "float64")
    margins = []

    def relu(layer, x):
        margins.append(np.abs(x).min() / np.sqrt(np.mean(x * x)))
        return type(layer).forward(layer, x)

    def pool(layer, x):
        k, (n, c, h, w) = layer.kernel_size, x.shape
        cells = x.reshape(n, c, h // k, k, w // k, k).transpose(0, 1, 2, 4, 3, 5).reshape(-1, k * k)
        first, second = np.sort(cells, axis=1)[:, -1], np.sort(cells, axis=1)[:, -2]
        # After a ReLU a window may hold zeros only; those have no gradient.
        margins.append((first - second)[first > 0].min() / np.sqrt(np.mean(x * x)))
        return type(layer).forward(layer, x)

    for _, layer in net.named_layers():
        watch = {nn.ReLU: relu, nn.MaxPool2d: pool}.get(type(layer))
        if watch:
            vars(layer)["forward"] = partial(watch, layer)
    net(x)
    assert margins and min(margins) > 1e-5


def test_cases_of_one_name_give_the_same_numbers_in_either_dtype_and_on_every_backend(at):
    if at.read_only:
        pytest.skip("NumPy's")
    for name in ("Conv2d/depthwise", "CrossEntropy/plain", "Conv2d/strided input"):
        _, here, _ = CASES[name].prepare(at.backend, "float32")
        _, there, _ = CASES[name].prepare("numpy", "float64")
        assert np.array_equal(at.get(here), there)


def test_a_training_step_copies_two_arrays_in_and_none_out(at):
    """Convolution, batch norm, dropout, pooling and Adam must not copy to or from the host."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Dense(64, 5),
        backend=at.backend,
    )
    loss, optimizer = nn.CrossEntropy(label_smoothing=0.1), nn.Adam(net, weight_decay=1e-4)
    x, y = np.ones((6, 1, 8, 8), np.float32), np.arange(6) % 5

    def step():
        optimizer.zero_grad()
        inputs, targets = at.backend.asarray(x), at.backend.asarray(y)
        loss(net(inputs), targets)
        net.backward(loss.backward(), input_grad=False)
        optimizer.step()

    step()
    before = at.backend.transfers
    step()
    after = at.backend.transfers
    assert after["to_device"] == (before["to_device"][0] + 2, before["to_device"][1] + x.nbytes + y.nbytes)
    assert after["to_host"] == before["to_host"]
