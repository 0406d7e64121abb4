"""Pictures of nets and of their training. They need matplotlib: without it importing this package fails."""

from .activations import plot_activations
from .confusion import plot_confusion
from .curves import plot_curves
from .filters import plot_filters

__all__ = ["plot_activations", "plot_confusion", "plot_curves", "plot_filters"]
