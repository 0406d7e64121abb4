"""Checks for users' own tests, in the manner of `numpy.testing`."""

from .cases import Case, cases
from .compare import assert_match, ulp_distance
from .difference import Difference, first_difference
from .gradients import gradcheck
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
