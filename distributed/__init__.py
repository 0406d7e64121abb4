"""Training on more than one process: MPI or NCCL, one interface, and errors where another process fails.

`init` joins the processes to a `Group`, which `xpnn.fit` accepts as ``group``::

    group = nn.distributed.init("mpi")      # mpiexec -n 4 python train.py
    nn.fit(model, (x, y), group=group)
"""

from .batch_norms import synchronise_batch_norms
from .errors import RankError
from .exchanges import Traffic
from .group import Group
from .start import init

__all__ = ["Group", "RankError", "Traffic", "init", "synchronise_batch_norms"]
