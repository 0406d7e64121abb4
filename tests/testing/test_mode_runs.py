"""The catalogue and the corner cases of pooling in all modes, and faults in one algorithm that these detect."""

import re
from typing import NamedTuple

import numpy as np
import pytest
from planting import plant

import xpnn as nn
from xpnn.backends import operations_of, overrides
from xpnn.backends.engines import numba
from xpnn.layers.convolution import Problem, algorithms
from xpnn.layers.windows.geometry import place_windows
from xpnn.testing import cases
from xpnn.testing.cases import pool_corners
from xpnn.testing.mode_runs import ModeRuns, by_loops

CASES = {case.name: case for case in cases()}
SUBJECTS = list(dict.fromkeys(case.subject for case in CASES.values() if case.single))
CORNERS = list(pool_corners())
KINDS = list(dict.fromkeys(case.subject for case in CORNERS))
# Modes that are left out by default: other modes nearly always find the same faults.
RARE = re.compile(r"read-only|large arrays|kernels, strided|exact, (channels|kernels)|shared, kernels|blocks, ")
# Larger inputs, in cells, are not run in exact numerics, whose catalogue is tested elsewhere.
LARGE = 3000

# array-api-strict computes with NumPy, and the catalogue is tested on it.
on = {"indirect": True, "scope": "session"}
every_place = pytest.mark.parametrize("at", ["numpy", "torch", "cupy"], **on)
every_place_at_night = pytest.mark.parametrize("at", ["numpy", "strict-device1", "torch", "cupy"], **on)


@pytest.fixture(scope="session")
def cross(at):
    return ModeRuns(at.backend)


def problems(cross, some, chosen=lambda mode: True):
    return [
        f"{case.name}, {ran.mode}: {ran.problem}" for case in some for ran in cross.run(case, chosen) if ran.problem
    ]


def by_default(case):
    large = np.prod(case.shape) > LARGE
    return lambda mode: not RARE.search(mode.name) and not (large and mode.numerics == "exact")


@every_place
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_case_agrees_with_loops_in_every_mode(cross, subject):
    some = [case for case in CASES.values() if case.subject == subject and case.single]
    assert not [line for case in some for line in problems(cross, [case], by_default(case))]


@pytest.mark.fuzz
@every_place_at_night
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_case_agrees_with_loops_in_all_modes(cross, subject):
    some = [case for case in CASES.values() if case.subject == subject and case.single]
    assert not problems(cross, some)


@every_place
@pytest.mark.parametrize("kind", KINDS)
def test_every_corner_of_pooling_agrees_with_loops(cross, kind):
    some = [case for case in CORNERS if case.subject == kind]
    names = ("arrays", "kernels", "exact")
    assert not problems(cross, some, lambda mode: mode.name in names)


@pytest.mark.fuzz
@every_place_at_night
@pytest.mark.parametrize("kind", KINDS)
def test_every_corner_of_pooling_agrees_with_loops_in_all_modes(cross, kind):
    assert not problems(cross, [case for case in CORNERS if case.subject == kind])


def test_corner_cases_are_complete():
    assert {case.subject for case in CORNERS} == {
        f"{p}{n}d" for p in ("MaxPool", "AvgPool", "LpPool") for n in (1, 2, 3)
    }
    assert len({case.name for case in CORNERS}) == len(CORNERS)
    along = {
        (case.subject.rstrip("123d"), k, s, d, p, case.build.keywords["ceil_mode"])
        for case in CORNERS
        for k, s, d, p in zip(
            case.build.args[-1],
            case.build.keywords["stride"],
            case.build.keywords.get("dilation", (1, 1, 1)),
            case.build.keywords["padding"],
            strict=False,
        )
    }
    assert len(along) == 9 * 4 * 2 * (3 + 3 + 2)
    some = CORNERS[::20]
    assert 0 < sum(isinstance(by_loops(case), ValueError) for case in some) < len(some) / 2


def test_all_layers_that_move_or_mix_cells_have_loops():
    others = {"Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "PReLU", "Softmax", "LogSoftmax", "Softmin", "Hardmax"}
    elementwise = {case.subject for case in CASES.values() if case.op in ("rectifier", "exponential", "shifted")}
    containers = {"Residual", "Parallel", "Sequential", "Graph", "Add", "Multiply", "Concat", "vit"}
    some = {case.subject: case for case in CASES.values() if case.single and np.prod(case.shape) < 1000}
    assert some.keys() == set(SUBJECTS)
    without = {subject for subject, case in some.items() if by_loops(case) is None}
    assert without == others | elementwise | containers


def test_modes_of_a_convolution_are_all_that_serve_its_shape(monkeypatch):
    monkeypatch.setenv("XPNN_NUMBA", "0")
    ran = {each.mode for each in ModeRuns("numpy").run(CASES["Conv2d/64 channels"])}
    tiles = {f"Winograd F{m}{how}" for m in (2, 4, 5) for how in ("", ", filters shared")}
    bands = {"banded, narrow", "banded, wide"}
    assert ran >= {"arrays", "exact", "columns", "adjoint", "large weight", "banded rows", *tiles, *bands}
    assert "depthwise" not in ran
    ran = {each.mode for each in ModeRuns("numpy").run(CASES["Conv2d/depthwise"])}
    assert "depthwise" in ran and not ran & {"large weight", *tiles, *bands}
    ran = {each.mode for each in ModeRuns("numpy").run(CASES["Conv1d/stride over kernel"])}
    assert "columns" in ran and not ran & {"adjoint", "banded rows", *tiles, *bands}
    # Tiles and bands multiply an infinity by 0, which is NaN.
    ran = {each.mode for each in ModeRuns("numpy").run(CASES["Conv2d/infinity"])}
    assert "columns" in ran and not ran & {*tiles, *bands, "banded rows"}


def test_a_requested_algorithm_computes(monkeypatch):
    called = []
    usual = algorithms.Winograd.forward
    monkeypatch.setattr(
        algorithms.Winograd, "forward", lambda self, *given: called.append(self.m) or usual(self, *given)
    )
    layer, x, _ = CASES["Conv2d/plain"].prepare("numpy")
    layer(x)
    assert called == []
    with overrides.using(overrides.Choices(convolution="Winograd F5")) as met:
        layer(x)
    assert called == [5] and {"columns", "Winograd F2"} <= met
    layer(x)
    assert called == [5]


def test_every_algorithm_has_a_case_that_it_serves():
    shape, ones = (2, 4, 9, 8), (1, 1)
    geometry = place_windows(shape[2:], (3, 3), ones, 1, ones)
    problem = Problem(2, shape[2:], 4, 6, 1, geometry.windows, geometry.padding, "float32")
    ops = operations_of(nn.get_backend("numpy").xp)
    found = set(algorithms.serving(problem, ops)) | set(algorithms.input_gradients(problem, ops))
    assert found - {"direct"} == {
        *("columns", "adjoint", "large weight", "banded rows", "banded, narrow", "banded, wide"),
        *(f"Winograd F{m}{how}" for m in (2, 4, 5) for how in ("", ", filters shared")),
    }


def test_kernels_run_however_small_the_case_is(compiled_kernels, monkeypatch):
    found = ModeRuns("numpy").run(CASES["MaxPool2d/plain"])
    assert {"kernels", "kernels, small blocks", "kernels, channels last"} <= {each.mode for each in found}
    ran = {each.mode for each in ModeRuns("numpy").run(CASES["Conv2d/plain"])}
    assert {"direct", "kernels", "exact, kernels"} <= ran
    monkeypatch.setattr(numba, "installed", lambda: False)
    assert not [each.mode for each in ModeRuns("numpy").run(CASES["MaxPool2d/plain"]) if "kernels" in each.mode]


def test_choices_are_restored_after_an_exception():
    with pytest.raises(KeyError), overrides.using(overrides.Choices(large=True, kernels=False)):
        raise KeyError
    assert overrides.chosen() == overrides.Choices() and not overrides.is_collecting()


class Fault(NamedTuple):
    """A fault in one algorithm or kernel, the cases that it affects, and exactly the modes in which it is found."""

    words: str
    package: str
    where: str
    old: str
    new: str
    cases: str
    modes: set[str]
    not_in: set[str]
    needs_kernels: bool = False


FAULTS = [
    Fault(
        "windows of dilated cells count as disjoint",
        "layers.pool",
        "scatter",
        "(s > (k - 1) * d for k, s, d in zip(w.kernel, w.stride, w.dilation, strict=True))",
        "(s >= k for k, s in zip(w.kernel, w.stride, strict=True))",
        r"(Max|Lp)Pool1d/corner kernel \(2,\), stride \(2,\), padding \(\(0, 0\),\), .*dilation \(2,\)",
        {"float64", "arrays", "channels last"},
        {"exact"},
    ),
    Fault(
        "tiles at the edge begin a cell too late",
        "layers.convolution",
        "write_dy_tiles",
        "tiling.output_padding",
        "tuple(((min(1, a), max(0, a - 1)) for _, a in tiling.output_padding))",
        "Conv2d/64 channels|Conv2d/plain",
        {"Winograd F4", "Winograd F4, filters shared", "Winograd F5"},
        {"arrays", "columns", "banded rows", "exact", "float64"},
    ),
    Fault(
        "a kernel ignores dilation",
        "backends.engines.numba.pools",
        "_tables",
        "placed.windows",
        "Windows(placed.windows.kernel, placed.windows.stride, (1,) * len(placed.padding), placed.windows.count)",
        "MaxPool2d/dilation",
        {"kernels", "kernels, small blocks"},
        {"arrays", "exact", "float64"},
        True,
    ),
    Fault(
        "a kernel divides the window that ceil_mode adds by all of its cells",
        "backends.engines.numba.pools",
        "_cells_of_windows",
        "sum(low <= cell < high for cell in cells)",
        "len(cells)",
        "AvgPool2d/ceil_mode",
        {"kernels", "kernels, channels last"},
        {"arrays", "exact", "float64"},
        True,
    ),
    Fault(
        "count_include_pad is ignored by array functions",
        "layers.pool",
        "_divisor",
        "(0, before + spatial[axis] + after) if count_include_pad else (before, before + spatial[axis])",
        "(0, before + spatial[axis] + after)",
        "AvgPool2d/padding not counted",
        {"float64", "arrays", "exact"},
        set(),
    ),
    Fault(
        "a band begins after the padding of the other side",
        "layers.convolution",
        "_band",
        "problem.padding[-1][0]",
        "problem.padding[-1][1]",
        "Conv2d/asymmetric padding",
        {"banded rows"},
        {"arrays", "columns", "adjoint", "exact", "float64"},
    ),
    Fault(
        "only the first block of rows counts in the gradient of a weight",
        "backends.engines.numba.direct",
        "DirectConvolution.weight_gradient",
        "correlate.bind(items, *self._operands(x, blocks), upstream, self._zeros, blocks.count, part, sums)",
        "correlate.bind(items, *self._operands(x, blocks), upstream, self._zeros, 1, part, sums)",
        "Conv2d/plain",
        {"kernels, small blocks"},
        {"arrays", "small blocks", "exact"},
        True,
    ),
    Fault(
        "a window of padding alone is accepted",
        "layers.pool",
        "_geometry",
        "not n or not (certain or _sees_input(axis, n, geometry))",
        "not n",
        r"LpPool1d/corner kernel \(1,\), stride \(1,\), padding \(\(0, 2\),\), ceil_mode False",
        {"float64", "arrays", "exact"},
        set(),
    ),
    Fault(
        "bins are one cell too long",
        "layers.pool",
        "bins",
        "-(-(i + 1) * n // m)",
        "min(n, -(-(i + 1) * n // m) + 1)",
        "AdaptiveAvgPool1d/plain",
        {"float64", "arrays", "exact"},
        set(),
    ),
    Fault(
        "the weight is read in the wrong memory order",
        "layers.convolution.large_weight",
        "forward",
        "order = (last, *kernel)",
        "order = (*kernel, last)",
        "Conv2d/plain",
        {"large weight"},
        {"arrays", "columns", "exact"},
    ),
]


@pytest.mark.usefixtures("array_functions")
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.words for fault in FAULTS])
def test_a_planted_fault_is_noticed_and_its_mode_named(fault):
    # Kernels stay switched off elsewhere than in their modes, so that float64 is computed by array functions.
    if fault.needs_kernels:
        pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
    some = [case for case in (*CASES.values(), *CORNERS) if re.match(f"({fault.cases})", case.name)]
    assert some, fault.cases
    cross = ModeRuns("numpy")
    assert not problems(cross, some)
    with plant(fault.package, fault.where, fault.old, fault.new):
        failed = {ran.mode for case in some for ran in cross.run(case) if ran.problem}
    assert failed >= fault.modes and not failed & fault.not_in
    assert not problems(cross, some)
