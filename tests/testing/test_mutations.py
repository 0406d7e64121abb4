"""A tolerance loose enough to pass a planted bug is a bug: each mistake of the table fails a case of the catalogue.

The mistakes are planted in the running library, one by one. Float64 and the reference are computed before, without
them; what is judged is NumPy's own result with the mistake in it.
"""

import re
from importlib import import_module

import pytest
from mutants import TABLE
from planting import plant

from xpnn.layers import shape
from xpnn.layers.activations import rectifiers
from xpnn.layers.core import arrays
from xpnn.testing import cases, parity
from xpnn.testing.cases import NetCase
from xpnn.testing.parity import Parity, run_host

# The package has a function of that name.
erf = import_module("xpnn.layers.activations.erf")
CASES = {case.name: case for case in cases()}
ROWS = [
    pytest.param(import_module(f"xpnn.{module}"), mutant, id=f"{module}: {mutant.words}")
    for module, mutants in TABLE.items()
    for mutant in mutants
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
        """Whether the case fails now; what raises is no result and is passed on."""
        return not self.parity.judge(case, run_host(case, "numpy")).passed


@pytest.fixture(scope="module")
def bench():
    return Bench()


def touching(mutant):
    """The cases named by a mutant, without the whole nets: they add layers that have cases of their own."""
    found = [case for case in CASES.values() if case.dtype == mutant.dtype and re.match(mutant.cases, case.name)]
    return [case for case in found if not isinstance(case, NetCase)]


@pytest.mark.parametrize(("module", "mutant"), ROWS)
def test_planted_mistake_is_noticed(bench, module, mutant):
    chosen = touching(mutant)
    assert chosen, f"no case of {mutant.dtype} is named {mutant.cases!r}"
    for case in chosen:
        bench.prepare(case)
    with plant(module, mutant.old, mutant.new):
        noticed = any(bench.notices(case) for case in chosen)
    assert noticed, f"passes {', '.join(case.name for case in chosen)}"


@pytest.mark.parametrize(("module", "mutants"), TABLE.items(), ids=list(TABLE))
def test_clean_code_is_back_after_each_module_s_mistakes(bench, module, mutants):
    for mutant in mutants:
        case = touching(mutant)[0]
        bench.prepare(case)
        with plant(import_module(f"xpnn.{module}"), mutant.old, mutant.new):
            pass
        found = run_host(case, "numpy")
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in bench.clean[case.name].items()
        }, mutant.words


def test_truth_and_reference_are_those_of_the_clean_code(bench, monkeypatch):
    """A run inside of a plant computes on the backend alone: nothing that it is held against."""
    case, runs = CASES["ReLU/plain"], []
    bench.prepare(case)

    def counted(*arguments):
        runs.append(arguments)
        return run_host(*arguments)

    monkeypatch.setattr(parity, "run_host", counted)
    with plant(rectifiers, "primitives(xp).gate(dy, y)", "zero(dy, xp) * dy"):
        assert "dx against float64" in bench.parity.run(case).problem
    assert len(runs) == 1
    assert bench.parity.run(case).passed


def test_mistake_reaches_functions_that_others_imported_by_name():
    assert shape.pad is arrays.pad
    before = shape.pad.__code__
    with plant(arrays, "if not geometry.is_padded:\n        return x", "return x"):
        assert shape.pad is arrays.pad
        assert shape.pad.__code__ is not before
    assert shape.pad.__code__ is before


def test_mistake_in_a_constant_is_taken_out_again():
    with plant(rectifiers, "SELU_SCALE = 1.0507009873554805", "SELU_SCALE = 1.05"):
        assert rectifiers.SELU_SCALE == 1.05
    assert rectifiers.SELU_SCALE == 1.0507009873554805


def test_mistake_in_a_class_attribute_is_taken_out_again():
    with plant(rectifiers, "from_output = True", "from_output = False"):
        assert not rectifiers.ReLU.from_output
    assert rectifiers.ReLU.from_output


def test_mistake_is_taken_out_after_an_error():
    with pytest.raises(ZeroDivisionError), plant(erf, "_FAR = 30.0", "_FAR = 3.0"):
        raise ZeroDivisionError
    assert erf._FAR == 30.0


@pytest.mark.parametrize(
    ("old", "times"), [("max(x, 1)", 0), ("SELU_ALPHA", 3)], ids=["text is absent", "text occurs repeatedly"]
)
def test_mistake_without_a_single_place_is_refused(old, times):
    with pytest.raises(LookupError, match=f"{times} times, expected once"), plant(rectifiers, old, ""):
        pass


def test_mistake_that_changes_nothing_is_refused():
    with pytest.raises(LookupError, match="changes no function"), plant(erf, "# erfc is 0 in", "# Zero is 0 in"):
        pass


def test_mistakes_are_many_and_no_two_alike():
    words = [row.id for row in ROWS]
    assert len(words) >= 300
    assert len(set(words)) == len(words)
