"""Messages have one style, and numbers of every library are accepted."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.common import checks


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_are_returned_as_pythons_own(value):
    found = checks.integer("n", value, 1)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), np.float16(0.5)])
def test_numbers_are_returned_as_pythons_own(value):
    found = checks.number("lr", value, above=0)
    assert type(found) is float
    assert found == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks.integer("n", 0, 1), "n must be an integer >= 1, got 0"),
        (lambda: checks.integer("n", True), "n must be an integer, got True"),
        (lambda: checks.integer("n", 1.0, 0, 5), "n must be an integer from 0 to 5, got 1.0"),
        (
            lambda: checks.integer("n", np.zeros((2, 3))),
            r"n must be an integer, got an array of float64, shape \(2, 3\)",
        ),
        (lambda: checks.number("lr", "fast", above=0), "lr must be a number > 0, got 'fast'"),
        (lambda: checks.number("lr", float("nan")), "lr must be a finite number, got nan"),
        (lambda: checks.number("lr", float("inf"), least=0), "lr must be a number >= 0, got inf"),
        (lambda: checks.number("b", 1.0, least=0, below=1), "b must be a number >= 0 and < 1, got 1.0"),
        (lambda: checks.choice("mode", "max", ("min", None)), "mode must be 'min' or None, got 'max'"),
        (lambda: checks.choice("mode", np.ones(3), ("a", "b")), r"mode must be 'a' or 'b', got an array of float64"),
        (lambda: checks.flag("shuffle", 1), "shuffle must be True or False, got 1"),
    ],
)
def test_messages_have_the_given_value_and_what_is_accepted(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_infinity_is_accepted_if_allowed():
    assert checks.number("p", np.float32(np.inf), least=1, infinite=True) == float("inf")


def test_booleans_of_numpy_are_flags():
    assert checks.flag("shuffle", np.True_) is True


def test_classes_are_no_objects():
    with pytest.raises(
        TypeError, match=r"^loss must be a Loss, got the class CrossEntropy; make an object of it: CrossEntropy\(\)$"
    ):
        checks.instance("loss", nn.CrossEntropy, nn.layers.losses.Loss)
    with pytest.raises(TypeError, match=r"^optimizer must be an Optimizer, got 'adam'; try Adam$"):
        checks.instance("optimizer", "adam", nn.Optimizer, "try Adam")


def test_long_values_are_shortened():
    with pytest.raises(ValueError, match="got ") as caught:
        checks.choice("mode", "x" * 10_000, ("a",))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda n: nn.Conv2d(1, 2, n([3, 5]), stride=n([1, 2]), padding=n([0, 1]), dilation=n([2, 1])), None),
        (lambda n: nn.Conv2d(1, 2, 3, padding=n([[1, 2], [0, 1]])), None),
        (lambda n: nn.MaxPool2d(n([2, 3]), n([1, 2])), None),
        (lambda n: nn.AdaptiveAvgPool2d(n([2, 3])), None),
        (lambda n: nn.LayerNorm(n([3, 2])), None),
        (lambda n: nn.Upsample(n([2, 3])), None),
        (lambda n: nn.Pad(n([1, 2])), None),
        (lambda n: nn.Dense(3, 2).output_shape(n([4, 3])), (4, 2)),
    ],
)
def test_vectors_of_numpy_are_sequences_of_integers(make, expected):
    found = repr(make(np.array))
    assert found == repr(make(tuple) if expected is None else expected)
    assert "np." not in found and "array" not in found


@pytest.mark.parametrize("value", [np.array([3.0, 3.0]), np.array([True, True]), np.array(3), np.array([[3, 3]])])
def test_other_arrays_are_no_sequences_of_integers(value):
    with pytest.raises(ValueError, match="kernel_size must be an integer >= 1, or one for each of 2 axes, got"):
        nn.Conv2d(1, 2, value)


def test_accepts_counts_arguments_of_callables():
    assert checks.accepts(lambda a, b: 0, 2) and checks.accepts(lambda *a: 0, 2) and checks.accepts(max, 2)
    assert not checks.accepts(lambda a: 0, 2) and not checks.accepts(nn.Dense, 2) and not checks.accepts("max", 2)
