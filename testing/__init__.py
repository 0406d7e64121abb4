"""Checks for users' tests, in the manner of `numpy.testing`, and the parity catalogue.

`assert_match` and `ulp_distance` compare arrays, `gradcheck` compares gradients with differences, `first_difference`
finds where two copies of a model differ. `cases` is the parity catalogue, `tolerance` its table of error bounds.
"""

from .cases import Case, cases
from .compare import assert_match, ulp_distance
from .difference import Difference, first_difference
from .gradient_check import gradcheck
from .tolerances import tolerance

__all__ = [
    "Case",
    "Difference",
    "assert_match",
    "cases",
    "first_difference",
    "gradcheck",
    "tolerance",
    "ulp_distance",
]
