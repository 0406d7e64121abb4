"""The modes of a backend: numerics, kernels, algorithms, block sizes and memory layouts.

A mode changes how a case is computed but not what: in each mode the error must be within the case's bound, and modes
that promise the same bits must have them. `xpnn.testing.mode_runs` runs and judges them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..backends import Backend, get_backend
from ..backends.overrides import Choices
from .cases import Case, LayerCase
from .tolerances import TABLE, Bound, Part, bound

ARRAYS = Choices(kernels=False)
KERNELS = Choices(kernels=True, large=True)
# Bytes of a block: a few rows of the small arrays of cases.
BLOCK = 256
LAYOUTS = ("strided", "channels last", "read-only")
# These algorithms multiply neighbouring cells by zeros, so an infinity in one becomes NaN in the others.
MIXING = ("banded", "Winograd")
# Algorithms that have both array functions and kernels.
COMPILED = ("depthwise", "columns", "Winograd")


@dataclass(frozen=True)
class Mode:
    """How a case is computed.

    Attributes
    ----------
    name : str
        ``"kernels"``, ``"exact, strided"``, ``"Winograd F4"`` and so on.
    choices : Choices
        What overrides the usual choice of algorithm and kernels.
    numerics : str
        ``"fast"`` or ``"exact"``.
    layout : str
        Memory layout of the input; empty for the case's own.
    """

    name: str
    choices: Choices = ARRAYS
    numerics: str = "fast"
    layout: str = ""

    def of(self, case: Case) -> Case:
        """The case with this mode's layout."""
        return replace(case, layout=self.layout) if self.layout and isinstance(case, LayerCase) else case

    def on(self, backend: Backend) -> Backend:
        """The backend with this mode's numerics."""
        return get_backend(backend, numerics=self.numerics)

    def same_bits_as(self, case: Case) -> str:
        """The name of the mode that must have the same bits; ``""`` if there is none."""
        if self.numerics == "exact":
            return "exact on numpy" if self.name == "exact" else "exact"
        return "arrays" if self.name == "read-only" and getattr(case, "layout", "") == "plain" else ""

    @property
    def algorithm(self) -> str:
        """The algorithm of convolutions, without its variant; ``""`` for the usual choice."""
        return self.choices.convolution.partition(",")[0]

    def bound(self, case: Case, part: Part) -> Bound:
        """The bound of the case or of the algorithm, whichever is larger."""
        row = {"banded": "banded convolution", "banded rows": "banded convolution"}.get(self.algorithm, self.algorithm)
        usual = bound(case.op, part)
        return max(usual, bound(row, part), key=lambda each: each.c) if row in TABLE and usual.c else usual

    def terms(self, case: Case, part: Part) -> int:
        """Length of the case's longest sum; tiles at an edge sum over points outside the output too."""
        terms = case.terms.get(part, 1)
        if part == "parameter" and self.algorithm.startswith("Winograd") and isinstance(case, LayerCase):
            m = int(self.algorithm[-1])
            return terms + case.shape[0] * prod(-(-n // m) for n in case.shape[2:]) * (m + 2) ** 2
        return terms


def modes(case: Case, met: set[str], *, is_host: bool = True, has_float64: bool = True) -> Iterator[Mode]:
    """The modes for a case, first ``"arrays"``: array functions with the usual choice of algorithms.

    Parameters
    ----------
    case : Case
    met : set of str
        What `xpnn.backends.overrides` recorded in a run of it: kernels, and algorithms that can compute its
        convolutions.
    is_host : bool
        Whether the backend computes on the host.
    has_float64 : bool
        Whether the device has float64, which exact numerics needs.
    """
    yield Mode("arrays")
    if "kernels" in met:
        yield Mode("kernels", KERNELS)
    if case.single:
        yield Mode("large arrays", Choices(kernels=False, large=True))
        yield Mode("small blocks", replace(ARRAYS, block_bytes=BLOCK))
        if "kernels" in met:
            yield Mode("kernels, small blocks", replace(KERNELS, block_bytes=BLOCK))
        for name in sorted(met - {"kernels"}):
            if not name.startswith(MIXING) or _is_finite(case):
                yield Mode(name, Choices(kernels=name == "direct", large=name == "direct", convolution=name))
                if name == "large weight":
                    # It reads the weight in its own memory layout, of which there are three.
                    for layout in LAYOUTS[:2]:
                        yield Mode(f"{name}, {layout}", Choices(kernels=False, convolution=name), layout=layout)
                if "kernels" in met and name.startswith(COMPILED):
                    yield Mode(f"{name}, kernels", replace(KERNELS, convolution=name))
    if isinstance(case, LayerCase) and case.single:
        for layout in LAYOUTS:
            yield Mode(layout, layout=layout)
            if "kernels" in met:
                yield Mode(f"kernels, {layout}", KERNELS, layout=layout)
    if has_float64 and case.dtype == "float32":
        yield Mode("exact", numerics="exact")
        if "kernels" in met:
            yield Mode("exact, kernels", KERNELS, numerics="exact")
        if case.single:
            yield Mode("exact, small blocks", replace(ARRAYS, block_bytes=BLOCK), numerics="exact")
            if isinstance(case, LayerCase):
                for layout in LAYOUTS:
                    yield Mode(f"exact, {layout}", numerics="exact", layout=layout)


def _is_finite(case: Case) -> bool:
    if not isinstance(case, LayerCase):
        return True
    return bool(np.isfinite(case.inputs(case.generator.fold_in("input"), case.shape)).all())
