"""Mistakes to plant in the library one by one: what the parity catalogue must notice.

All compute quietly, so it is the tolerances that notice, not an exception.
"""

from . import activations, contractions, convolution, losses, normalisation, optimizers, other_layers, pool
from .mutant import Mutant

FAMILIES = {
    module.__name__.rpartition(".")[2]: module.MUTANTS
    for module in (contractions, convolution, pool, activations, normalisation, losses, other_layers, optimizers)
}

__all__ = ["FAMILIES", "Mutant"]
