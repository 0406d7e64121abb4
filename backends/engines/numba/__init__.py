"""Kernels compiled by Numba, for what array functions can't do fast on a CPU: the extra ``numba``.

They are compiled on first use and cached on disk, beside these files or, if the folder is read-only, in the user's
cache. They are imported when a layer is first large enough for a kernel, since importing Numba takes most of a second.
With ``XPNN_NUMBA=0``, and without Numba, array functions compute everything. Kernels and array functions agree to the
tolerances of `xpnn.testing`, not bit for bit.

`prepare` returns an object that computes a whole operation by jobs, which the threads of a pool share; None if there is
none for the problem, and array functions compute. How work is cut into items depends on shapes only, so that results
have the same bits for every number of threads. The functions of `Kernels` run on one thread without the interpreter's
lock, and are called within `Operations.parallel`.
"""

from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Protocol

from ....common import environment
from ....common.types import Array
from ...contractions.windows import Windows
from ...overrides import add_applicable, chosen, is_collecting


class Kernels(Protocol):
    """The functions of `xpnn.backends.engines.numba.kernels`.

    Arrays are float32 and C-contiguous, and only results are written, unless stated otherwise. ``strip (n, *S, C)`` is
    a part of the padded input that contains all ``windows``.
    """

    #: Numbers of a vector register, and the fewest features of `convolve_by_channel` and `correlate_by_channel`.
    VECTOR_LANES: int

    def width(self, features: int) -> int:
        """Number of features that `convolve` and `correlate` require of the matrix and ``dy``, padded with zeros."""

    def widen(self, rows: Array, out: Array) -> None:
        """Copy ``rows (n, F)`` to ``out (n, width)``, followed by zeros."""

    def pad(self, x: Array, above: int, left: int, out: Array) -> None:
        """Copy ``x (n, R, W)`` to ``out (n, R', W')`` and surround it with zeros."""

    def convolve(self, strip: Array, matrix: Array, bias: Array, windows: Windows, out: Array) -> None:
        """Windows of ``strip`` times ``matrix (K*C, F)``, plus ``bias (F,)``, to ``out (n*O, F)``."""

    def correlate(self, strip: Array, dy: Array, zeros: Array, windows: Windows, out: Array) -> None:
        """The adjoint of `convolve` in the matrix: ``dy (n*O, F)`` to ``out (K*C, F)``; ``zeros (F,)``."""

    def convolve_by_channel(
        self,
        x: Array,
        cells: Array,
        bias: Array,
        windows: Windows,
        before: tuple[int, ...],
        out: Array,
        adjoint: bool = False,
    ) -> None:
        """Each channel of ``x (n, *S, C)`` with its own kernel, ``cells (K, C)``, plus ``bias (C,)``.

        Windows begin ``before`` cells ahead of the input, and read zeros around it; the result is ``out (n, O, C)``.
        With ``adjoint`` it is the adjoint in ``x``: ``out`` has ``count`` cells of the input, beginning with cell
        ``before`` of the padded input, and each is the sum over the windows ``x`` that contain it.
        """

    def correlate_by_channel(self, x: Array, dy: Array, windows: Windows, before: tuple[int, ...], out: Array) -> None:
        """The adjoint of `convolve_by_channel` in the cells: ``dy (n, O, C)`` to ``out (K, C)``."""


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


def load() -> Kernels | None:
    """The compiled kernels; None if they are switched off or Numba is missing."""
    found = _load() if used() else None
    if found is not None and is_collecting():
        add_applicable(["kernels"])
    return found


#: For each operation, the module in this package and its function ``prepare(problem, dtype)``, which returns an object
#: with the operation's methods, or None.
OPERATIONS: dict[str, str] = {
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
}


def prepare(operation: str, problem: Any, dtype: str) -> Any:
    """An object with the operation's methods, for a problem and dtype; None if there is none.

    See `xpnn.backends.operations.Operations.prepare`.
    """
    if operation not in OPERATIONS or not used():
        return None
    made = _prepared(operation, problem, dtype)
    if made is not None and is_collecting():
        add_applicable(["kernels"])
    return made


@lru_cache(maxsize=4096)
def _prepared(operation: str, problem: Any, dtype: str) -> Any:
    module, _, name = OPERATIONS[operation].partition(".")
    return getattr(import_module(f"{__name__}.{module}"), name or "prepare")(problem, dtype)


def used() -> bool:
    """Whether compiled code computes: it is installed, and enabled by the environment and `xpnn.backends.overrides`."""
    override = chosen().kernels
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


@cache
def _load() -> Kernels | None:
    # An installed Numba may fail to import: it does not support the newest NumPy at first.
    try:
        from . import kernels
    except ImportError:
        return None
    return kernels


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
