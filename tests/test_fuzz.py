"""Geometry drawn by Hypothesis, in all modes, against loops: a few hundred draws by default, thousands at night.

By default the draws are the same in every run. ``pytest -m fuzz`` draws others each time, from a seed that it prints;
``XPNN_FUZZ_SEED`` repeats a run.
"""

import os

import pytest
from geometries import FAMILIES
from hypothesis import HealthCheck, given, note, seed, settings

from xpnn.layers.convolution import trim_padding
from xpnn.testing.mode_runs import ModeRuns

quiet = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
# Numbers are about 1. Where an output or a gradient has few entries, each a sum, all of them may cancel.
FLOOR = 0.25
# Fewer elsewhere than on NumPy, which is the reference of the others.
EXAMPLES = {"numpy": 30, "torch": 8, "cupy": 8}
EXAMPLES_AT_NIGHT = {"numpy": 600, "strict-device1": 100, "torch": 200, "cupy": 200}


def every_place(examples):
    return pytest.mark.parametrize("at", examples, indirect=True, scope="session")


def hold(at, family, chosen):
    cross = ModeRuns(at.backend, FLOOR)

    @chosen
    @given(FAMILIES[family])
    def agrees(case):
        note(case.name)
        assert not [f"{ran.mode}: {ran.problem}" for ran in cross.run(case) if ran.problem]

    agrees()


@every_place(EXAMPLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_drawn_agrees_with_loops_in_every_mode(at, family):
    hold(at, family, settings(quiet, max_examples=EXAMPLES[at.name], derandomize=True))


@pytest.fixture
def little_counts_as_much(monkeypatch):
    """Padding of any size is left out where no result depends on it."""
    monkeypatch.setattr(trim_padding, "LITTLE_PADDING", 0)
    trim_padding.trim.cache_clear()
    yield
    monkeypatch.undo()
    trim_padding.trim.cache_clear()


@every_place(["numpy"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if "convolutions" in name])
def test_what_is_drawn_agrees_where_padding_is_left_out(at, family, little_counts_as_much):
    hold(at, family, settings(quiet, max_examples=10, derandomize=True))


@pytest.mark.fuzz
@every_place(EXAMPLES_AT_NIGHT)
@pytest.mark.parametrize("family", FAMILIES)
def test_thousands_that_are_drawn_agree_with_loops_in_every_mode(at, family):
    chosen = settings(quiet, max_examples=EXAMPLES_AT_NIGHT[at.name])
    hold(at, family, lambda function: seed(int(os.environ["XPNN_FUZZ_SEED"]))(chosen(function)))
