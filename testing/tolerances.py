"""The table of tolerances: error bounds for each operation and part of its result.

A bound is ``c * g(K) * u`` with ``u`` the unit roundoff of the dtype, ``K`` the length of the longest sum in the
computation of a value, and ``g`` constant, ``sqrt(K)`` or ``K``. It is relative to the largest value of the array, or,
if an operation has no sums in which terms cancel, to each value. All bounds are for the distance from the true result;
two computed results may differ by twice as much.

The growth with ``K``: the computed sum of ``K`` terms, in any order, is within ``K u sum|terms|`` of the true one (N.
Higham, "Accuracy and stability of numerical algorithms", 2002, sections 3.1 and 4.2), and with roundings that are
independent within ``lambda sqrt(K) u sum|terms|``, ``lambda`` about 4 for one failure in thousands (N. Higham and T.
Mary, "A new approach to probabilistic rounding error analysis", 2019). Libraries add in blocks, so their errors are
much smaller. The tests insert bugs into the code and check that all of them exceed these bounds.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal, TypeAlias

from ..common import checks

#: Unit roundoff: half the distance from 1 to the next number.
EPS = {"float32": 2.0**-24, "float64": 2.0**-53}

Part: TypeAlias = Literal["forward", "input", "parameter", "buffer"]
PARTS: tuple[Part, ...] = ("forward", "input", "parameter", "buffer")


@dataclass(frozen=True)
class Bound:
    """Largest error allowed, in units of roundoff.

    Attributes
    ----------
    c : float
        The factor.
    growth : {"constant", "sqrt", "linear"}
        Growth with the length of the sums.
    of : {"largest", "each"}
        Whether the error is relative to the largest value of the array or to each value.
    """

    c: float
    growth: Literal["constant", "sqrt", "linear"] = "sqrt"
    of: Literal["largest", "each"] = "largest"

    def units(self, terms: int = 1) -> float:
        """The bound for sums of ``terms`` terms, in units of roundoff."""
        terms = max(terms, 1)
        return self.c * {"constant": 1.0, "sqrt": sqrt(terms), "linear": float(terms)}[self.growth]


EXACT = Bound(0.0, "constant", "each")


def _all(bound: Bound) -> dict[Part, Bound]:
    return dict.fromkeys(PARTS, bound)


TABLE: dict[str, dict[Part, Bound]] = {
    # General rows, for arrays of unknown operations.
    # Equal bits: values that are copied or permuted, or rounded once.
    "exact": _all(EXACT),
    # A few elementary functions, which differ by up to 4 ULP between libraries, and a few other operations.
    "elementwise": _all(Bound(16.0)),
    # One sum of K products in each of the two results.
    "reduction": _all(Bound(8.0)),
    # A net: the errors of each layer are passed on and amplified by the following ones.
    "network": _all(Bound(64.0)),
    # Operations.
    # Values are moved, not computed.
    "copy": _all(EXACT),
    # A sum or product of a few values, which elementary functions gave in the cases, and sums of their gradients.
    "join": _all(Bound(16.0)),
    # Forward moves or repeats values; the gradient adds K of them.
    "spread": {**_all(EXACT), "input": Bound(2.0)},
    # K products of cells with weights, which are rounded too.
    "interpolation": _all(Bound(2.0)),
    # K products added to a bias: lambda = 4, relative to sum|terms|, of which the largest output is a good part.
    "convolution": _all(Bound(4.0)),
    # The same sums, with zeros between the products.
    "banded convolution": _all(Bound(4.0)),
    # Winograd's transforms magnify errors. Measured for random normal and uniform inputs of 32 to 512 channels: at most
    # 0.6, 1.5 and 4.3 forward, and 0.6, 1.2 and 1.9 in a weight's gradient, for which columns have 0.8.
    "Winograd F2": _all(Bound(4.0)),
    "Winograd F4": _all(Bound(8.0)),
    "Winograd F5": _all(Bound(20.0)),
    "dense": _all(Bound(4.0)),
    # Rows are copied; the gradient adds K of them.
    "embedding": {**_all(EXACT), "parameter": Bound(2.0)},
    # Rows are added and rounded once.
    "position": {**_all(EXACT), "forward": Bound(1.0, "constant", "each"), "parameter": Bound(2.0)},
    # Four products with weights and other positions after one another, of K terms together, and a softmax of scores
    # that spans less than 20.
    "attention": _all(Bound(4.0)),
    # A maximum is one of its inputs; the gradient adds those of overlapping windows.
    "max pool": {**_all(EXACT), "input": Bound(1.0, "linear")},
    # K terms and a division. Inputs have both signs, so terms cancel.
    "average pool": _all(Bound(4.0)),
    # x^p and the p-th root are within 4 ULP each and the root takes a p-th of the error of the sum; the gradient raises
    # the quotient x/y, with the errors of both, to the power p - 1.
    "Lp pool": {**_all(Bound(16.0)), "forward": Bound(12.0, "sqrt", "each")},
    # A comparison and one product, in float32 by a constant rounded to it: 2 roundings. PReLU sums over the batch.
    "rectifier": {**_all(Bound(2.0, "constant", "each")), "parameter": Bound(4.0)},
    # exp or tanh within 4 ULP and 2 to 4 operations: relative to each value, also in the tails. Gradients are
    # multiplied by 1 - y or y + alpha, which has the absolute but not the relative precision of a tail.
    "exponential": {**_all(Bound(16.0, "constant")), "forward": Bound(16.0, "constant", "each")},
    # 1 + erf(x), or x / 6 + 1 / 2, near 0 has absolute but not relative precision. The derivative of GELU's tanh form
    # has 1 - tanh^2 times about x^3.
    "shifted": {**_all(Bound(8.0, "constant")), "input": Bound(24.0, "constant")},
    # exp(x - max): the difference is rounded once and exp magnifies that |x - max| times; inputs span about 20.
    "softmax": _all(Bound(16.0)),
    # Mean and variance are sums of K. The variance sums squared differences from the mean, so a large mean adds no
    # error. The gradient subtracts two means of products with them.
    "normalisation": {**_all(Bound(4.0)), "input": Bound(8.0)},
    # Scaled by 1 / (1 - p), rounded once, and multiplied.
    "dropout": _all(Bound(2.0, "constant", "each")),
    # A few elementary functions for each of K terms of a sum; the gradient has only the sums of its softmax.
    "loss": {**_all(Bound(3.0)), "input": Bound(8.0, "constant")},
    # A net of L layers passes on the errors of each layer, forward and backward: K is L times the longest sum.
    "net": _all(Bound(4.0)),
    # Steps of an optimizer: each adds rounding errors of the weights, which change the next gradient.
    "training": _all(Bound(4.0)),
}

# Products in mixed precision, in units of the 16-bit format's roundoff (`xpnn.backends.narrow.ROUNDOFF`). Each of K
# products has the errors of two rounded factors, at most 2 units, which are independent: their sum grows with sqrt(K),
# as does the largest sum of products of both signs, and so their quotient does not grow. A bias has a gradient in which
# rounded terms cancel.
_MIXED: dict[Part, Bound] = {**_all(Bound(4.0, "constant")), "parameter": Bound(8.0, "constant")}
MIXED: dict[str, dict[Part, Bound]] = {"convolution": _MIXED, "banded convolution": _MIXED, "dense": _MIXED} | {
    f"Winograd {name}": _MIXED for name in ("F2", "F4", "F5")
}


def bound(op: str, part: Part = "forward") -> Bound:
    """The bound for a part of an operation's result.

    Raises
    ------
    ValueError
        For an operation that is not in the table.
    """
    return TABLE[checks.choice("level", op, TABLE)][checks.choice("part", part, PARTS)]


def tolerance(op: str, dtype: str, terms: int = 1, part: Part = "forward") -> float:
    """Largest error allowed, relative to the largest value of the array (or to each: see `Bound`)."""
    terms, dtype = checks.integer("terms", terms, 0), checks.choice("dtype", dtype, EPS)
    return bound(op, part).units(terms) * EPS[dtype]
