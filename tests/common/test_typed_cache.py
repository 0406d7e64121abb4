"""Equal arguments of different types are different arguments."""

import numpy as np
import pytest

import xpnn.functional as F
from xpnn.common.typed_cache import typed_cache


def test_types_within_tuples_count():
    calls = []

    @typed_cache(8)
    def kind(*args):
        calls.append(args)
        return str(args)

    for args in [(1,), (True,), (1.0,), ((1, 1),), ((1, True),), ((1, (0, 1)),), ((1, (False, 1)),)]:
        assert kind(*args) == kind(*args) == str(args)
    assert len(calls) == 7


def test_signs_of_zeros_count():
    repeated = typed_cache(8)(lambda *args: str(args))
    for zero in (0.0, -0.0, 0, False):
        for args in ((zero,), ((1, (zero,)),)):
            assert repeated(*args) == repeated(*args) == str(args)


def test_lists_and_errors():
    calls = []

    @typed_cache(8)
    def twice(values):
        calls.append(values)
        return [2 * each for each in values]

    assert twice([1, 2]) == twice([1, 2]) == [2, 4] and len(calls) == 2
    with pytest.raises(TypeError, match="int"):
        twice(3)


@pytest.mark.parametrize("wrong", [(True, 1), (1.0, 1), (np.True_, 1)])
@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
def test_a_call_before_does_not_make_other_types_right(name, wrong):
    x, weight = np.ones((1, 1, 5, 5), np.float32), np.ones((1, 1, 2, 2), np.float32)
    for call in (lambda **o: F.conv(x, weight, **o), lambda **o: F.max_pool(x, 2, **o)):
        call(**{name: (1, 1)})
        with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
            call(**{name: wrong})
