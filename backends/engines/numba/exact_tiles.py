"""Tiles of Winograd's convolution in exact numerics: what forward and the weight's gradient have in common."""

from collections.abc import Sequence
from math import frexp, prod
from typing import Any, Protocol

from ....common.types import Array
from ...recording.calls import empty
from .blas import gemm_address
from .bound import Bound, address_of
from .exact_winograd_jobs import OUTPUTS, POINTS
from .winograd import Convolution

# Channels and features are multiples of it.
MULTIPLE = 16
# Bits of quanta, which are known from 576 times their value modulo 2**64.
MOST_BITS = 56
# Most tiles whose quanta are added as transformed totals, so that these have at most `MOST_BITS`.
GROUP_TERMS = 1 << 16
# Fewest terms of a product whose right operand is cut in two.
FEWEST_TERMS = 8
# Largest sums of entries of a row of the transforms of inputs, kernels and gradients, along both axes.
OF_INPUT, OF_KERNEL, OF_UPSTREAM = 100.0, 49.0, 225.0
# As in `xpnn.backends.engines.numba.winograd`, where numbers have half as many bytes.
PART_BYTES, LARGE_BYTES = 2 << 20, 6 << 20
ITEM_CHANNELS, MOST_PRODUCTS, LEAST_SIDE = 2048, 4 << 20, 64
LINE = 8


class Plan(Protocol):
    """How operands are split: see `xpnn.backends.exact.splitting.Budget`."""

    terms: int
    left_bits: int
    left_count: int
    right_bits: int
    right_count: int
    product_terms: int


class Tiles:
    """What forward and the weight's gradient have in common.

    Parameters
    ----------
    problem : Convolution
    plan : Plan
    blas : int
        From `gemm_address`.
    right : float
        The largest sum of entries of a row of the right operand's transform.
    """

    def __init__(self, problem: Convolution, plan: Plan, blas: int, right: float) -> None:
        self.problem, self.plan, self.blas, self.count = problem, plan, blas, plan.right_count
        self.grid = tuple(-(-size // OUTPUTS) for size in problem.windows.count)
        self.tiles = problem.samples * prod(self.grid)
        #: From which bit the right operand is cut in two, and the terms of exact products of these halves.
        largest = right * 2.0**plan.right_bits
        self.half = max(frexp(largest)[1] // 2, 1)
        of_half = max(2.0 ** (self.half - 1), largest * 2.0**-self.half + 1)
        self.most = int(2.0**53 / (OF_INPUT * 2.0**plan.left_bits * of_half))

    def cut(self, wide: int, inputs: int, weight: int) -> None:
        """Choose parts, for ``wide`` columns and bytes of transformed inputs and weights (or totals)."""
        p, size = self.problem, 8 * POINTS
        if weight > max(LARGE_BYTES, inputs):
            per_feature = size * max(p.channels, self.tiles) * self.count * MULTIPLE
            self.each_tile = self.tiles
            self.each_feature = min(p.features, max(1, _part_bytes(inputs) // per_feature) * MULTIPLE)
        else:
            most = _part_bytes(weight) // (size * max(p.channels, wide))
            self.each_tile, self.each_feature = min(self.tiles, max(1, most)), p.features
        self.tile_parts = parts(self.tiles, self.each_tile)
        self.feature_parts = parts(p.features, self.each_feature)


def _part_bytes(read: int) -> int:
    """Bytes of a part, if each part also reads so many bytes of the transformed weights or input."""
    return max(PART_BYTES, read // 4 if read > LARGE_BYTES else 0)


def parts(count: int, each: int) -> list[int]:
    """``each`` of ``count`` again and again, and the rest."""
    return [min(each, count - first) for first in range(0, count, each)]


def pitch_of(rows: int, columns: int) -> int:
    """Distance of the points' matrices, an odd number of cache lines, so that they lie in different sets of a cache."""
    return (-(-rows * columns // LINE) | 1) * LINE


def pieces(rows: int, columns: int, depth: int) -> tuple[int, int]:
    """Rows and columns of the pieces of a product of matrices, of which each is an item."""
    while rows * columns * depth > MOST_PRODUCTS and max(rows, columns) >= 2 * LEAST_SIDE:
        if rows >= columns:
            rows = -(-rows // 2)
        else:
            columns = -(-columns // 2)
    return rows, columns


def matrices(pitches: Sequence[int]) -> list[Array]:
    """Memory for the matrices of all points, for each of the pitches, from the beginning of a cache line on."""
    memory = empty((POINTS * sum(pitches) + LINE,), "float64")
    start, found = -address_of(memory) // 8 % LINE, []
    for pitch in pitches:
        found.append(memory[start : start + POINTS * pitch])
        start += POINTS * pitch
    return found


def in_order(phases: list[Bound], order: list[tuple[int, int]]) -> Bound:
    """One that runs the given parts of phases."""
    rows, keep = [phases[phase].rows[part] for phase, part in order], [each for phase in phases for each in phase.keep]
    return Bound(rows, keep, True, [phase.signature for phase in phases])


def _suits(problem: Any, plan: Plan, terms: int) -> bool:
    """Whether tiles can compute the problem: 3x3 windows at stride 1 that read all of the padded input, one group."""
    p, w = problem, problem.windows
    if w.kernel != (3, 3) or w.stride != (1, 1) or w.dilation != (1, 1) or p.groups != 1:
        return False
    whole = all(o + 2 == low + size + high for o, size, (low, high) in zip(w.count, p.spatial, p.padding, strict=True))
    few = plan.left_count == 1 and plan.left_bits + plan.right_bits + (terms - 1).bit_length() <= MOST_BITS
    # Incomplete last tiles must not cost more than tiles save.
    pays = POINTS * prod(-(-size // OUTPUTS) for size in w.count) <= 0.6 * 9 * prod(w.count)
    return whole and few and pays and not (p.channels % MULTIPLE or p.features % MULTIPLE) and p.samples > 0


def prepare(make: type[Any], asked: tuple[Any, Plan], terms: int) -> Any:
    """``make(problem, plan, blas)`` for sums of so many terms; None if tiles do not compute the problem."""
    problem, plan = asked
    blas = gemm_address("float64") if _suits(problem, plan, terms) else 0
    made = make(problem, plan, blas) if blas else None
    return made if made is not None and made.most >= FEWEST_TERMS else None
