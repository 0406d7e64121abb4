"""Convolution: one bilinear map and its gradients, by the algorithm that suits a shape."""

from .chooser import forward, input_gradient, weight_gradient
from .problem import Problem

__all__ = ["Problem", "forward", "input_gradient", "weight_gradient"]
