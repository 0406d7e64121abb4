"""The parity catalogue on every backend here, in both dtypes; and the table in the docs that says so.

``pytest tests/test_catalogue.py --catalogue=docs/catalogue.md`` writes the table from what was run.
"""

import numpy as np
import pytest

from xpnn.testing import cases
from xpnn.testing.compare import same_bits
from xpnn.testing.parity import Parity, run_host

CASES = {case.name: case for case in cases()}
SINGLE = [name for name, case in CASES.items() if case.single]
# One case of each layer and loss; NumPy runs all of them in float64, as the truth.
PLAIN = list({CASES[name].subject: name for name in reversed(SINGLE)}.values())[::-1]
SUBJECTS = list(dict.fromkeys(CASES[name].subject for name in SINGLE))
TRUTHS: dict = {}
REFERENCES: dict = {}
FIRST: dict = {}

# Read-only inputs are cases of their own; what runs on strict's second device runs on its first.
pytestmark = pytest.mark.parametrize(
    "at",
    ["numpy", "strict-device1", "strict-no-float64", "torch", "cupy", "torch-cuda"],
    indirect=True,
    scope="session",
)


@pytest.fixture(scope="session")
def parity(at):
    """Runs on this backend, beside NumPy's."""
    found = Parity(at.backend)
    found._truths, found._references = TRUTHS, REFERENCES
    return found


def runs_here(at, name, dtype):
    return "float64" not in (dtype, CASES[name].dtype) or at.wide_enough


@pytest.mark.parametrize("name", CASES)
def test_case_matches_float64_and_numpy(at, parity, record_property, name):
    if not runs_here(at, name, "float32"):
        pytest.skip("no float64 on this device")
    found = FIRST[at.name, name] = run_host(CASES[name], at.backend)
    outcome = parity.judge(CASES[name], found)
    assert outcome.passed, outcome.problem
    assert outcome.arrays
    record_property("catalogue", (CASES[name].subject, at.backend.spec, CASES[name].dtype))


@pytest.mark.parametrize("name", PLAIN)
def test_case_runs_in_float64(at, record_property, name):
    if not at.wide_enough:
        pytest.skip("no float64 on this device")
    truth = TRUTHS.setdefault(name, run_host(CASES[name], "numpy", "float64"))
    found = run_host(CASES[name], at.backend, "float64")
    for part, array in found.items():
        assert array.dtype == truth[part].dtype, part
        assert np.allclose(array, truth[part], rtol=1e-9, atol=1e-9 * biggest(truth[part]), equal_nan=True), part
    record_property("catalogue", (CASES[name].subject, at.backend.spec, "float64"))


def biggest(array):
    return float(np.abs(array).max(initial=0.0, where=np.isfinite(array)))


def test_second_run_in_reversed_order_gives_the_same_bits(at):
    if at.name == "strict-no-float64":
        pytest.skip("the same computation as on strict's second device")
    for name in reversed(CASES):
        if not runs_here(at, name, "float32"):
            continue
        again = run_host(CASES[name], at.backend)
        first = FIRST.get((at.name, name)) or run_host(CASES[name], at.backend)
        assert again.keys() == first.keys()
        for part, array in again.items():
            assert same_bits(array, first[part]), f"{name} {part}"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_nothing_is_written_to_input_or_upstream_gradient(at, subject):
    case = next(CASES[name] for name in SINGLE if CASES[name].subject == subject)
    made, x, target = case.prepare(at.backend, "float32")
    before = at.get(x).copy()
    y = made(x) if target is None else made(x, target)
    ones = np.ones(tuple(y.shape), np.float32)
    dy = at.put(ones)
    made.backward(dy)
    assert same_bits(at.get(x), before)
    assert same_bits(at.get(dy), ones)
