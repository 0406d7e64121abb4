"""Checks for users' own tests, in the manner of `numpy.testing`."""

from .compare import assert_match, ulp_distance
from .gradients import gradcheck

__all__ = ["assert_match", "gradcheck", "ulp_distance"]
