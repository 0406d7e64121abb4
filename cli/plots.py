"""Pictures of a run; needs matplotlib."""

from .pictures.activations import plot_activations
from .pictures.confusion import plot_confusion
from .pictures.curves import plot_curves
from .pictures.filters import plot_filters

__all__ = ["plot_activations", "plot_confusion", "plot_curves", "plot_filters"]
