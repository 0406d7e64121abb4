"""Kernels compiled by Numba, for what array functions can't do fast on a CPU: the extra ``numba``.

They are compiled on first use and cached on disk, beside these files or, if the folder is read-only, in the user's
cache. They are imported when a layer is first large enough for a kernel, since importing Numba takes most of a second.
With ``XPNN_NUMBA=0``, and without Numba, array functions compute everything. Kernels and array functions agree to the
tolerances of `xpnn.testing`, not bit for bit.

`prepare` returns an object that computes a whole operation by jobs, which the threads of a pool share; None if there is
none for the problem, and array functions compute. How work is cut into items depends on shapes only, so that results
have the same bits for every number of threads.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from ....common import environment
from ....common.typed_cache import typed_cache
from ... import overrides
from ...overrides import add_applicable, chosen, is_collecting


def switched_off() -> bool:
    """Whether ``XPNN_NUMBA`` is 0.

    Raises
    ------
    ValueError
        If it is set to anything but 0 or 1.
    """
    return not environment.switch(environment.NUMBA)


@cache
def installed() -> bool:
    """Whether Numba is installed; does not import it."""
    return find_spec("numba") is not None


#: For each operation, the module in this package and its function ``prepare(problem, dtype)``, which returns an object
#: with the operation's methods, or None.
OPERATIONS: dict[str, str] = {
    "columns": "columns",
    "depthwise": "depthwise",
    "direct": "direct",
    "cross entropy": "cross_entropy",
    "dense": "dense",
    "dropout": "dropout",
    "gradient norm": "gradient_norm",
    "random numbers": "random_numbers",
    "sum of rows": "row_sums",
    "update": "optimizer_steps",
    "winograd": "winograd",
    "max pool": "pools.prepare_max",
    "average pool": "pools.prepare_average",
    "adaptive pool": "pools.prepare_adaptive",
    "batch norm": "channel_norm.prepare_batch_norm",
    "group norm": "channel_norm.prepare_group_norm",
    "layer norm": "layer_norm",
    "elementwise": "elementwise",
    "activation": "activations",
    "softmax": "softmax",
    # Of exact numerics, with the bits of its array functions.
    "exact batch norm": "exact_batch_norm",
    "exact elementwise": "exact_elementwise",
    "exact max pool": "exact_pools.prepare_max",
    "exact rows": "exact_rows.prepare_rows",
    "exact samples": "exact_rows.prepare_samples",
    "exact update": "exact_updates",
    "exact tiles": "exact_winograd.prepare_forward",
    "exact tiles gradient": "exact_winograd_gradient.prepare_gradient",
    "exact windows": "exact_columns.prepare_forward",
    "exact windows gradient": "exact_columns.prepare_gradient",
    "exact windows adjoint": "exact_columns.prepare_input_gradient",
    "exact magnitudes": "exact_magnitudes",
}


def prepare(operation: str, problem: Any, dtype: str) -> Any:
    """An object with the operation's methods, for a problem and dtype; None if there is none.

    See `xpnn.backends.operations.Operations.prepare`.
    """
    if operation not in OPERATIONS or not used():
        return None
    made = _prepared(operation, problem, dtype, chosen().block_bytes)
    if made is not None and is_collecting():
        add_applicable(["kernels"])
    return made


@typed_cache(maxsize=4096)
def _prepared(operation: str, problem: Any, dtype: str, block_bytes: int) -> Any:
    # The bytes of a block belong to the key only: operations that cut blocks ask for them.
    module, _, name = OPERATIONS[operation].partition(".")
    return getattr(import_module(f"{__name__}.{module}"), name or "prepare")(problem, dtype)


def used() -> bool:
    """Whether compiled code computes: it is installed, and enabled by the environment and `xpnn.backends.overrides`."""
    override = chosen().kernels if overrides.active else None
    # The usual values of the variable first, since every operation asks.
    off = (
        (environment.given(environment.NUMBA) not in ("", "1") and switched_off()) if override is None else not override
    )
    return not off and installed() and _works()


@cache
def _works() -> bool:
    # An installed Numba may fail to import: it does not support the newest NumPy at first.
    try:
        import_module(f"{__name__}.pool")
    except ImportError:
        return False
    return True


def note() -> str:
    """The state of the kernels in a few words, for `xpnn info`; does not import Numba."""
    if switched_off():
        return f"no compiled kernels ({environment.NUMBA}=0)"
    if not installed():
        return 'no compiled kernels (pip install "numba>=0.60")'
    try:
        return f"kernels by Numba {version('numba')}"
    except PackageNotFoundError:
        return "kernels by Numba"
