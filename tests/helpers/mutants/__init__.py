"""Mistakes that are planted in the library one by one and that the parity catalogue must notice.

None raises an exception, so only the tolerances can notice them.
"""

from . import (
    activations,
    attention,
    contractions,
    convolution,
    cutting,
    losses,
    normalisation,
    optimizers,
    other_layers,
    pool,
)
from .mutant import Mutant

FAMILIES = {
    module.__name__.rpartition(".")[2]: module.MUTANTS
    for module in (
        contractions,
        convolution,
        pool,
        activations,
        cutting,
        normalisation,
        losses,
        attention,
        other_layers,
        optimizers,
    )
}

__all__ = ["FAMILIES", "Mutant"]
