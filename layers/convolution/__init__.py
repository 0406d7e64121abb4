"""Convolution: one bilinear map and its gradients, by the algorithm that suits a shape."""

from .banded import Banded
from .chooser import algorithm, forward, input_gradient, weight_gradient
from .problem import Problem
from .winograd import Winograd

__all__ = ["Banded", "Problem", "Winograd", "algorithm", "forward", "input_gradient", "weight_gradient"]
