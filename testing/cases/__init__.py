"""The parity catalogue: layers and losses in simple and difficult configurations, whole nets and training runs.

The test suite and ``xpnn parity`` run the same cases. The cases of a new layer belong into the file of its kind.
"""

from functools import cache
from itertools import chain

from .activations import activations, softmaxes
from .attention import attentions, embeddings
from .case import Case, LayerCase, LossCase, part_of
from .convolutions import convolutions, dense_layers, transposed_convolutions
from .graphs import graphs
from .losses import classifications, regressions
from .nets import NetCase, TrainingCase, nets, trainings
from .norms import batch_norms, other_norms, sample_norms
from .pool_corners import pool_corners
from .pools import average_pools, lp_pools, max_pools
from .shapes import containers, dropouts, shapes

__all__ = ["Case", "LayerCase", "LossCase", "NetCase", "TrainingCase", "cases", "part_of", "pool_corners"]


@cache
def _all() -> tuple[Case, ...]:
    makers = (
        convolutions,
        transposed_convolutions,
        dense_layers,
        embeddings,
        attentions,
        max_pools,
        average_pools,
        lp_pools,
        activations,
        softmaxes,
        batch_norms,
        sample_norms,
        other_norms,
        dropouts,
        shapes,
        containers,
        graphs,
        regressions,
        classifications,
        nets,
        trainings,
    )
    return tuple(chain.from_iterable(make() for make in makers))


def cases() -> list[Case]:
    """All cases; related ones follow each other."""
    return list(_all())
