"""The catalogue's convolutions and dense layers in mixed precision, within bounds of the 16-bit formats."""

from functools import cache

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.narrow import ROUNDOFF
from xpnn.testing.cases import cases, part_of
from xpnn.testing.parity import TRUTH, run_host, scale_of
from xpnn.testing.tolerances import MIXED

CASES = [case for case in cases() if case.op in MIXED and case.dtype != "float64"]


@cache
def truths():
    return {case.name: run_host(case, TRUTH, "float64") for case in CASES}


def shares(b, roundoff):
    """The largest error of each case's arrays, as a share of the bound in units of ``roundoff``."""
    found = {}
    for case in CASES:
        truth, arrays = truths()[case.name], run_host(case, b)
        assert arrays.keys() == truth.keys()
        worst = 0.0
        for name, array in arrays.items():
            wanted = truth[name]
            assert array.dtype == np.float32 and array.shape == wanted.shape
            finite = np.isfinite(wanted)
            np.testing.assert_array_equal(np.isfinite(array), finite, err_msg=f"{case.name} {name}")
            largest = max(float(np.abs(wanted[finite]).max(initial=0.0)), scale_of(name, truth))
            error = float(np.abs(array[finite] - wanted[finite]).max(initial=0.0))
            limit = MIXED[case.op][part_of(name)].units() * roundoff * largest
            worst = max(worst, error / limit if limit else float(error > 0.0))
        found[case.name] = worst
    return found


@pytest.mark.parametrize("precision", ROUNDOFF)
def test_products_are_within_the_bounds_of_their_format(at, precision):
    if at.backend.spec.startswith("strict") or at.read_only:
        pytest.skip("no 16-bit floats, or NumPy once more")
    b = nn.get_backend(at.backend, precision=precision)
    found = shares(b, ROUNDOFF[precision])
    beyond = {name: share for name, share in found.items() if share > 1.0}
    assert not beyond and len(found) > 130


def test_the_bounds_notice_three_bits_less():
    """Factors of bfloat16 in place of float16 are beyond the bounds in most cases, all but those of few numbers."""
    found = shares(nn.get_backend("numpy", precision="bfloat16"), ROUNDOFF["float16"])
    assert sum(share > 1.0 for share in found.values()) > 0.7 * len(found)
