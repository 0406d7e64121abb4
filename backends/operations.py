"""Operations: what layers need of an array library beyond the functions of the standard.

Layers are written in functions of the Array API standard, as ``xp.exp(x)``. That is correct on every library, but too
slow where it matters: the standard has no product into an existing array, no windows without a copy, no worker threads
and no memory that is reused. So there is one object for each namespace, ``ops = operations_of(xp)``, which has these:

- `Execution`: how work runs. Workers, blocks of a batch, workspaces, constants, and optional engines.
- `Elementwise`: functions of single entries, masks, and reads and writes at an index.
- `Contractions`: matrix products, windows, and the bilinear map behind convolution with its two adjoints.

The requirements:

- `Operations` works on any conforming namespace. It computes with the standard alone and is the reference.
- A backend overrides methods, never adds any, so that layers need not know which library computes.
- An override may differ from the reference in rounding only; `testing/tolerances.py` says by how much.
- A method is looked up and called without a wrapper: a training step calls them many times.
- An optional engine (`prepare`, `kernels`) may refuse any problem by returning None. The layer then uses array
  functions, so that a new engine needs no new layer and can begin with one operation.

The class of a backend is its attribute `operations`: `NumpyOperations`, `CupyOperations`, `TorchOperations`,
`StrictOperations`. `ExactOperations` replaces them in exact numerics.
"""

from .contractions.contractions import Contractions
from .elementwise import Elementwise


class Operations(Contractions, Elementwise):
    """All operations of one namespace, in functions of the standard."""
