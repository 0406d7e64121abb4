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
from ...contractions.windows import PadWidths, Windows
from ...overrides import add_applicable, chosen, is_collecting


class Kernels(Protocol):
    """The functions of `xpnn.backends.engines.numba.kernels`.

    Arrays are float32 and C-contiguous, and only results are written, unless stated otherwise.
    """

    def column_moments(self, x: Array, step: int, mean: Array, sums: Array, squares: Array) -> None:
        """For each column of ``x (R, C)``, the mean of every ``step``-th row, and the sums of ``t`` and ``t^2``.

        All are ``(C,)``, and ``t = x - mean``.
        """

    def normalise(self, x: Array, centre: Array, scale: Array, shift: Array, out: Array) -> None:
        """``(x - centre) scale + shift`` of ``x (R, C)`` to ``out``; the others are ``(C,)``."""

    def column_sums(self, dy: Array, x: Array, centre: Array, sums: Array, products: Array) -> None:
        """Sums of ``dy`` and of ``dy (x - centre)`` over the rows of ``(R, C)``, each ``(C,)``."""

    def normalise_backward(
        self, dy: Array, x: Array, centre: Array, slope: Array, offset: Array, scale: Array, out: Array
    ) -> None:
        """``(dy + (x - centre) slope + offset) scale`` of ``(R, C)`` to ``out``; the others are ``(C,)``."""

    def max_cells(self, x: Array, windows: Windows, padding: PadWidths, best: Array, cell: Array) -> None:
        """Maxima of ``x (n, *S, C)`` to ``best (n, *O, C)``, row-major indices of their cells to ``cell``, int8.

        For one or two spatial axes. Padding is never the maximum; of equal cells the first is, and NaN counts as the
        largest.
        """

    def scatter_maxima(self, dy: Array, cell: Array, windows: Windows, padding: PadWidths, dx: Array) -> None:
        """The adjoint of `max_cells`: ``dy (n, *O, C)`` to ``dx (n, *S, C)``."""

    def means(self, x: Array, windows: Windows, padding: PadWidths, divisor: Array, out: Array) -> None:
        """Sums of windows of ``x (n, *S, C)`` over ``divisor``, 0-d or ``(1, *O, 1)``, to ``out (n, *O, C)``."""

    def spread_means(self, dy: Array, windows: Windows, padding: PadWidths, divisor: Array, dx: Array) -> None:
        """The adjoint of `means`: ``dy (n, *O, C)`` to ``dx (n, *S, C)``."""

    def relu(self, x: Array, out: Array) -> None:
        """ReLU: ``x`` to ``out``, 0 where ``x <= 0``; both ``(n,)``."""

    def relu_backward(self, dy: Array, y: Array, out: Array) -> None:
        """Gradient of ReLU: ``dy`` to ``out``, 0 where ``y <= 0``; all ``(n,)``."""

    def sgd_step(self, value: Array, gradient: Array, decay: float, rate: float) -> None:
        """SGD: ``value -= g rate`` with ``g = gradient + value decay``; all ``(n,)``, updated in place.

        This and the other steps have the bits of array functions; a decay of 0 is skipped.
        """

    def momentum_step(
        self,
        value: Array,
        velocity: Array,
        gradient: Array,
        decay: float,
        keep: float,
        share: float,
        ahead: float,
        rate: float,
    ) -> None:
        """SGD with momentum: ``v = v keep + g share``, ``value -= v rate``.

        With Nesterov momentum ``ahead``, unless 0, ``value -= (g + v ahead) rate``.
        """

    def adam_step(
        self,
        value: Array,
        mean: Array,
        square: Array,
        gradient: Array,
        decay: float,
        shrink: float,
        betas: tuple[float, float],
        factor: float,
        eps: float,
        rate: float,
    ) -> None:
        """Adam: ``value = value shrink - m / (sqrt(s) factor + eps) rate`` with the updated moments ``m`` and ``s``."""


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


#: For each operation, the module in this package with a function ``prepare(problem, dtype)``, which returns an object
#: with the operation's methods, or None.
OPERATIONS: dict[str, str] = {"columns": "columns", "depthwise": "depthwise", "direct": "direct"}


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


@lru_cache(maxsize=4096)
def _prepared(operation: str, problem: Any, dtype: str, block_bytes: int) -> Any:
    # The bytes of a block belong to the key only: operations that cut blocks ask for them.
    return import_module(f"{__name__}.{OPERATIONS[operation]}").prepare(problem, dtype)


def used() -> bool:
    """Whether compiled code computes: it is installed, and enabled by the environment and `xpnn.backends.overrides`."""
    override = chosen().kernels
    off = switched_off() if override is None else not override
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
