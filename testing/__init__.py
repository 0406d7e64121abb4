"""Checks for users' own tests, in the manner of `numpy.testing`."""

from .cases import Case, cases
from .compare import assert_match, ulp_distance
from .gradients import gradcheck

__all__ = ["Case", "assert_match", "cases", "gradcheck", "ulp_distance"]
