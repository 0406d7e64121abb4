"""Compiled kernels for what array functions can't do fast on a CPU: the extra ``numba``.

They are compiled at first use, by Numba, and kept on disk: beside these files or, where that is read-only, in the
user's cache. Nothing here is imported before a layer is large enough for a kernel, as Numba takes most of a second.
``XPNN_NUMBA=0`` leaves them out; the array functions then compute everything, as they do where Numba is missing. Both
ways agree to the tolerances of `xpnn.testing`, not bit for bit.

A kernel runs on one thread and lets the interpreter go; it is called within `Operations.parallel`, so that results
depend on blocks and not on threads.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Protocol

from ....common import environment
from ....common.types import Array
from ...contractions.windows import PadWidths, Windows
from ...overrides import chosen, met, watched

VARIABLE = environment.NUMBA


class Kernels(Protocol):
    """What a compiled module offers. Arrays are float32, in one piece of memory, and read only unless said otherwise.

    ``strip (n, *S, C)`` is a part of the input within its padding, ``windows`` lie in it.
    """

    #: The fewest features that `convolve_by_channel` and `correlate_by_channel` take.
    LANES: int

    def width(self, features: int) -> int:
        """How many features the matrix and ``dy`` need for `convolve` and `correlate`: more are to be zeros."""

    def widen(self, rows: Array, out: Array) -> None:
        """``rows (n, F)`` to ``out (n, width)``, with zeros after them."""

    def pad(self, x: Array, above: int, left: int, out: Array) -> None:
        """``x (n, R, W)`` within zeros: ``out (n, R', W')``."""

    def convolve(self, strip: Array, matrix: Array, bias: Array, windows: Windows, out: Array) -> None:
        """Windows of ``strip`` times ``matrix (K*C, F)``, and ``bias (F,)``, to ``out (n*O, F)``."""

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
        """Each channel of ``x (n, *S, C)`` with its own kernel, ``cells (K, C)``, and ``bias (C,)``.

        Windows begin ``before`` cells ahead of the input, and read zeros around it. Goes to ``out (n, O, C)``. With
        ``adjoint`` it is that in ``x``: ``count`` cells of the input, of which the first is the cell ``before`` of the
        padded one, each add up what the windows that read them have in ``x``.
        """

    def correlate_by_channel(self, x: Array, dy: Array, windows: Windows, before: tuple[int, ...], out: Array) -> None:
        """The adjoint of `convolve_by_channel` in the cells: ``dy (n, O, C)`` to ``out (K, C)``."""

    def column_moments(self, x: Array, step: int, mean: Array, sums: Array, squares: Array) -> None:
        """Of each column of ``x (R, C)`` the mean of every ``step``-th row, and the sums of ``t`` and ``t^2``.

        All are ``(C,)``, and ``t`` is ``x - mean``.
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

        There are one or two spatial axes; ``padding`` never wins, the first of equal cells and the first NaN do.
        """

    def scatter_maxima(self, dy: Array, cell: Array, windows: Windows, padding: PadWidths, dx: Array) -> None:
        """The adjoint of `max_cells`: ``dy (n, *O, C)`` to ``dx (n, *S, C)``."""

    def means(self, x: Array, windows: Windows, padding: PadWidths, divisor: Array, out: Array) -> None:
        """Sums over windows of ``x (n, *S, C)`` by ``divisor``, 0-d or ``(1, *O, 1)``, to ``out (n, *O, C)``."""

    def spread_means(self, dy: Array, windows: Windows, padding: PadWidths, divisor: Array, dx: Array) -> None:
        """The adjoint of `means`: ``dy (n, *O, C)`` to ``dx (n, *S, C)``."""

    def positive(self, x: Array, out: Array) -> None:
        """``x`` to ``out``, 0 where ``x <= 0``; both ``(n,)``."""

    def gate(self, dy: Array, y: Array, out: Array) -> None:
        """``dy`` to ``out``, 0 where ``y <= 0``; all ``(n,)``."""

    def descend(self, value: Array, gradient: Array, decay: float, rate: float) -> None:
        """``value -= g rate`` with ``g = gradient + value decay``; all ``(n,)``, and changed in place.

        Here and in the other steps the bits are those of array functions; a decay of 0 is left out.
        """

    def descend_with_momentum(
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
        """``v = v keep + g share``, ``value -= v rate``; with ``ahead``, unless 0, ``value -= (g + v ahead) rate``."""

    def descend_scaled(
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
        """Adam: ``value = value shrink - m / (sqrt(s) factor + eps) rate`` with new moments ``m`` and ``s``."""


def switched_off() -> bool:
    """Whether ``XPNN_NUMBA`` is 0.

    Raises
    ------
    ValueError
        If it is set to anything but 0 or 1.
    """
    return not environment.switch(VARIABLE)


@cache
def installed() -> bool:
    """Whether Numba is there; without importing it."""
    return find_spec("numba") is not None


def load() -> Kernels | None:
    """The compiled kernels; None where they are switched off or Numba is missing."""
    asked = chosen().kernels
    off = switched_off() if asked is None else not asked
    found = None if off or not installed() else _load()
    if found is not None and watched():
        met(["kernels"])
    return found


@cache
def _load() -> Kernels | None:
    # What is installed may still not import: Numba lags behind new versions of NumPy.
    try:
        from . import compiled
    except ImportError:
        return None
    return compiled


def note() -> str:
    """A few words for `xpnn info`, without importing Numba."""
    if switched_off():
        return f"no compiled kernels ({VARIABLE}=0)"
    if not installed():
        return 'no compiled kernels (pip install "numba>=0.60")'
    try:
        return f"kernels by Numba {version('numba')}"
    except PackageNotFoundError:
        return "kernels by Numba"
