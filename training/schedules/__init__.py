"""Learning-rate schedules: the rate as a function of the step, or of a metric (`ReduceLROnPlateau`).

A schedule holds an optimizer and sets its ``lr`` (one-cycle its momentum too): once when it is made, for step 0, and
at each ``step()``, for the next one. Each group of an optimizer has the rate that follows from its own base rate. The
formulas are PyTorch's, in closed form: no error accumulates.
"""

from .cosine import CosineLR
from .decay import ExponentialLR, StepLR
from .one_cycle import OneCycleLR
from .plateau import ReduceLROnPlateau

__all__ = ["CosineLR", "ExponentialLR", "OneCycleLR", "ReduceLROnPlateau", "StepLR"]
