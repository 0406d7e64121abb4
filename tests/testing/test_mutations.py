"""A tolerance loose enough to pass a planted bug is a bug: each mistake of the table fails a case of the catalogue.

The mistakes are planted in the running library, one by one. Float64 and the reference are computed before, without
them; what is judged is NumPy's own result with the mistake in it.
"""

import re
import sys
from importlib import import_module

import planting
import pytest
from mutants import FAMILIES
from planting import plant

import xpnn
from xpnn.layers.activations import rectifiers
from xpnn.layers.reshaping import pad as layer_of_pad
from xpnn.layers.windows import padding
from xpnn.testing import cases, parity
from xpnn.testing.cases import NetCase
from xpnn.testing.parity import Parity, run_host

# Most mistakes are in array functions.
pytestmark = pytest.mark.usefixtures("array_functions")

CASES = {case.name: case for case in cases()}
ROWS = [
    pytest.param(mutant, id=f"{mutant.where}: {mutant.words}") for mutants in FAMILIES.values() for mutant in mutants
]


class Bench:
    """Runs of cases whose truth and reference are known from a run before any mistake."""

    def __init__(self) -> None:
        self.parity, self.clean = Parity("numpy"), {}

    def prepare(self, case) -> None:
        if case.name not in self.clean:
            outcome = self.parity.run(case)
            assert outcome.passed, outcome.problem
            self.clean[case.name] = run_host(case, "numpy")

    def notices(self, case) -> bool:
        """Whether the case fails now; an exception is not a result, and is raised."""
        return not self.parity.judge(case, run_host(case, "numpy")).passed


@pytest.fixture(scope="module")
def bench():
    return Bench()


def touching(mutant):
    """The cases named by a mutant, without the whole nets: they add layers that have cases of their own."""
    found = [case for case in CASES.values() if case.dtype == mutant.dtype and re.match(mutant.cases, case.name)]
    return [case for case in found if not isinstance(case, NetCase)]


@pytest.mark.parametrize("mutant", ROWS)
def test_planted_mistake_is_noticed(bench, mutant):
    chosen = touching(mutant)
    assert chosen, f"no case of {mutant.dtype} is named {mutant.cases!r}"
    for case in chosen:
        bench.prepare(case)
    with mutant.planted():
        noticed = any(bench.notices(case) for case in chosen)
    assert noticed, f"passes {', '.join(case.name for case in chosen)}"


@pytest.mark.parametrize("mutants", FAMILIES.values(), ids=list(FAMILIES))
def test_clean_code_is_restored_after_each_family_s_mistakes(bench, mutants):
    for mutant in mutants:
        case = touching(mutant)[0]
        bench.prepare(case)
        with mutant.planted():
            pass
        found = run_host(case, "numpy")
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in bench.clean[case.name].items()
        }, mutant.words


def test_truth_and_reference_are_those_of_the_clean_code(bench, monkeypatch):
    """With a mistake planted only the backend computes: truth and reference are known from before."""
    case, runs = CASES["ReLU/plain"], []
    bench.prepare(case)

    def counted(*arguments):
        runs.append(arguments)
        return run_host(*arguments)

    monkeypatch.setattr(parity, "run_host", counted)
    with plant("layers.activations", "relu_backward", "operations_of(xp).relu_backward(dy, y)", "zero(dy, xp) * dy"):
        assert "dx against float64" in bench.parity.run(case).problem
    assert len(runs) == 1
    assert bench.parity.run(case).passed


def test_mistake_reaches_functions_that_others_imported_by_name():
    before = padding.pad.__code__
    with plant("layers.windows", "pad", "not geometry.is_padded", "True"):
        assert layer_of_pad.pad is padding.pad
        assert layer_of_pad.pad.__code__ is not before
    assert layer_of_pad.pad.__code__ is before


def test_mistake_in_a_constant_is_removed_again():
    with plant("layers.activations", "SELU_SCALE", "1.0507009873554805", "1.05"):
        assert rectifiers.SELU_SCALE == 1.05
    assert rectifiers.SELU_SCALE == 1.0507009873554805


def test_mistake_in_a_class_attribute_is_removed_again():
    with plant("layers.activations", "ReLU", "from_output = True", "from_output = False"):
        assert not rectifiers.ReLU.from_output
    assert rectifiers.ReLU.from_output


def test_mistake_is_removed_after_an_error():
    with pytest.raises(ZeroDivisionError), plant("common", "FAR", "30.0", "3.0") as module:
        assert module.FAR == 3.0
        raise ZeroDivisionError
    assert module.FAR == 30.0


EXAMPLE = """
import math

def norm(values, p=2):
    \"\"\"Of numbers.\"\"\"
    total = sum(abs(value) ** p for value in values)
    total = total + 0  # no difference
    return math.pow(total, 1 / p)

class Norm:
    def of(self, values):
        return norm(values)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of xpnn that is not part of it."""
    (tmp_path / "planted_here.py").write_text(EXAMPLE)
    monkeypatch.setattr(xpnn, "__path__", [*xpnn.__path__, str(tmp_path)])
    planting.caches_cleared()
    yield import_module("xpnn.planted_here")
    sys.modules.pop("xpnn.planted_here")
    planting.caches_cleared()


@pytest.mark.parametrize(
    ("where", "old", "new", "found"),
    [
        ("norm", "sum(abs(v) ** q for v in vs)", "max(abs(v) for v in vs)", 2**0.5),
        ("norm", "s = s + 0", "s = s + 20", 5.0),
        ("norm", "return math.pow(s, 1 / q)", "s = 4 * s\nreturn math.pow(s, 1 / q)", 2 * 5**0.5),
        ("norm", "1 / q", "q / 1", 25.0),
        ("Norm.of", "norm(numbers)", "norm(numbers[:1])", 1.0),
    ],
)
def test_names_of_variables_and_comments_make_no_difference(module, where, old, new, found):
    with plant("planted_here", where, old, new):
        assert module.Norm().of([1, 2]) == pytest.approx(found)
    assert module.Norm().of([1, 2]) == pytest.approx(5**0.5)


def test_two_mistakes_of_one_module_are_planted_together(module):
    with plant("planted_here", "norm", "1 / q", "1"):
        with plant("planted_here", "Norm.of", "norm(numbers)", "norm(numbers, 1)"):
            assert module.Norm().of([1, 2]) == 3
        assert module.Norm().of([1, 2]) == 5
    assert module.Norm().of([1, 2]) == pytest.approx(5**0.5)


@pytest.mark.parametrize(
    ("where", "old", "new", "message"),
    [
        ("norms", "1", "2", "norms is defined by no module of planted_here"),
        ("norm", "max(v)", "v", "holds 'max(v)' 0 times, expected once"),
        ("norm", "s + s", "s", "0 times"),
        ("norm", "v", "abs(v)", "times, expected once"),
        ("norm", "math.exp(s, 1 / q)", "s", "0 times"),
        ("norm", "1 / q", "1 / r", "norm knows no 'r'"),
        ("norm", "1 / q", "1 / q", "changes no function and no constant"),
    ],
)
def test_a_mistake_without_a_single_place_or_an_effect_is_refused(module, where, old, new, message):
    with pytest.raises(LookupError, match=re.escape(message)), plant("planted_here", where, old, new):
        pass


def test_mistakes_are_many_and_no_two_alike():
    words = [row.id for row in ROWS]
    assert len(words) >= 300
    assert len(set(words)) == len(words)
