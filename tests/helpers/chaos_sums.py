"""The arithmetic of the chaos namespace: every way that a correct library may compute one array operation.

`Dice` chooses, and the functions below compute on NumPy arrays. Each kind of choice can be fixed; if all are fixed, the
seed changes nothing.
"""

from math import prod

import numpy as np

#: What libraries and processors may do differently, each at every call.
KINDS = {
    "order": "sums and products over an axis, and contractions, run in any order and blocking",
    "width": "their accumulators may be wider than the array",
    "fma": "products within a contraction may be rounded before they are added, or not",
    "ulp": "elementary functions are off by up to 2 units in the last place",
    "sqrt": "square roots are off by up to 1 unit in the last place in some elements",
    "reciprocal": "a division by or of a Python number multiplies by a reciprocal",
    "subnormal": "subnormal numbers read as zero, or are written as zero",
    "zero": "sums, contractions, extremes and rounding may give a zero of either sign",
    "nan": "a computed NaN has either sign",
    "garbage": "memory that was not written holds anything",
    "ties": "equal elements come out of an unstable argsort, and unique values at all, in any order",
    "alias": "what selects or reshapes may be a view or a copy",
}

# Contractions up to this many products are also computed term by term, in orders that no BLAS offers.
TERM_BY_TERM = 1 << 16


class Dice:
    """The seeded generator behind all choices.

    Parameters
    ----------
    seed : int
        Of the generator.
    fixed : collection of str
        The `KINDS` that are left as NumPy has them.
    """

    def __init__(self, seed, fixed=()):
        if unknown := set(fixed) - KINDS.keys():
            raise ValueError(f"unknown kinds {sorted(unknown)}; the kinds are {', '.join(KINDS)}")
        self.rng = np.random.default_rng(seed)
        self.fixed = frozenset(fixed)
        self.throw_call()

    def throws(self, kind):
        """Whether to deviate from NumPy this time."""
        return kind not in self.fixed and self.rng.random() < 0.5

    def throw_call(self):
        """Choose the treatment of subnormals for a whole array operation, like a mode of the processor."""
        self.reads_zero, self.writes_zero = self.throws("subnormal"), self.throws("subnormal")

    def read(self, x):
        """An operand as the processor reads it."""
        return flush(x) if self.reads_zero else x

    def write(self, x):
        """A computed value as the processor writes it, with NaN of either sign."""
        if self.writes_zero:
            x = flush(x)
        if "nan" in self.fixed or not is_float(x) or not np.isnan(x).any():
            return x
        return np.where(np.isnan(x), np.copysign(x, self.signs(x)), x)

    def zeros(self, x):
        """The same values, with zeros of either sign."""
        if "zero" in self.fixed or not is_float(x) or np.all(x):
            return x
        return np.where(x == 0, np.copysign(x, self.signs(x)), x)

    def signs(self, x):
        """+1 and -1 at random, like ``x`` in shape and dtype."""
        return (self.rng.integers(0, 2, x.shape) * 2 - 1).astype(x.dtype)

    def nudged(self, x, most, kind, share=1.0):
        """Finite nonzero elements moved by up to ``most`` units in the last place, in this share of the elements."""
        if kind in self.fixed or not is_float(x):
            return x
        steps = self.rng.integers(-most, most + 1, x.shape) * (self.rng.random(x.shape) < share)
        moved = x
        for step in range(most):
            further = np.nextafter(moved, np.copysign(np.inf, steps).astype(x.dtype))
            moved = np.where((np.abs(steps) > step) & np.isfinite(further), further, moved)
        return np.where(np.isfinite(x) & (x != 0), moved, x)

    def accumulator(self, dtype):
        """A dtype to accumulate in."""
        if not self.throws("width"):
            return dtype
        wider = [np.dtype(np.longdouble)] if dtype == np.float64 else [np.dtype(np.float64), np.dtype(np.longdouble)]
        return wider[self.rng.integers(len(wider))]

    def order(self, count):
        """A permutation of that many terms."""
        return np.arange(count) if "order" in self.fixed else self.rng.permutation(count)

    def blocks(self, count):
        """Slices that cover that many terms: one, or up to six of unequal lengths, some of which may be empty."""
        if not self.throws("order"):
            return [slice(0, count)]
        cuts = sorted(self.rng.integers(0, count + 1, self.rng.integers(1, 6)).tolist())
        return [slice(*ends) for ends in zip([0, *cuts], [*cuts, count], strict=True)]


def is_float(x):
    """Whether an array holds floating-point numbers."""
    return x.dtype.kind == "f"


def flush(x):
    """Subnormal numbers as zeros of their sign."""
    if not isinstance(x, np.ndarray) or not is_float(x):
        return x
    subnormal = (np.abs(x) < np.finfo(x.dtype).smallest_normal) & (x != 0)
    return np.where(subnormal, np.copysign(x.dtype.type(0), x), x) if subnormal.any() else x


def folded(terms, add):
    """Terms along the first axis one after another; NumPy would take a single column in pairs."""
    one_column = terms.size == len(terms) > 0
    return add.accumulate(terms, axis=0)[-1] if one_column else add.reduce(terms, axis=0)


def halved(dice, terms, add):
    """Terms along the first axis: one half is added to the other until one term is left."""
    while len(terms) > 2:
        half = len(terms) // 2
        upper = add(terms[:half], terms[half : 2 * half])
        terms = np.concatenate([flush(upper) if dice.writes_zero else upper, terms[2 * half :]])
    return add.reduce(terms, axis=0)


def added(dice, terms, add=np.add):
    """The sum (or, by ``np.multiply``, the product) of terms along the first axis."""
    terms = terms[dice.order(len(terms))]
    parts = []
    for block in dice.blocks(len(terms)):
        part = terms[block]
        parts.append(halved(dice, part, add) if dice.throws("order") else folded(part, add))
    return folded(np.stack(parts), add)


def terms_first(x, axis):
    """The reduced axes as one first axis, and the shapes of the result without and with them."""
    axes = range(x.ndim) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    held = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    count = prod(x.shape[i] for i in axes)
    return np.moveaxis(x, tuple(axes), tuple(range(len(axes)))).reshape((count, *kept)), kept, held


def reduced(dice, name, x, *, axis=None, dtype=None, keepdims=False, correction=0.0):
    """``sum``, ``prod``, ``mean``, ``var`` and ``std`` of floating-point numbers."""
    x = x if dtype is None else x.astype(dtype)
    terms, kept, held = terms_first(dice.read(x), axis)
    terms = terms.astype(dice.accumulator(x.dtype))
    if name in ("sum", "prod"):
        total = added(dice, terms, np.add if name == "sum" else np.multiply)
    else:
        total = quotient(dice, added(dice, terms), len(terms))
        if name != "mean":
            apart = terms - total
            total = quotient(dice, added(dice, apart * apart), max(len(terms) - correction, 0))
        if name == "std":
            total = rooted(dice, total)
    return dice.zeros(dice.write(total.astype(x.dtype))).reshape(held if keepdims else kept)


def cumulated(dice, name, x, *, axis=None, dtype=None, include_initial=False):
    """``cumulative_sum`` and ``cumulative_prod``: within blocks first, then across the blocks."""
    x = x if dtype is None else x.astype(dtype)
    add = np.add if name == "cumulative_sum" else np.multiply
    axis = 0 if axis is None else axis
    terms = np.moveaxis(dice.read(x), axis, 0).astype(dice.accumulator(x.dtype))
    rows = [np.full((1, *terms.shape[1:]), add.identity, terms.dtype)]
    for block in dice.blocks(len(terms)):
        if block.stop > block.start:
            rows.append(add(rows[-1][-1:], add.accumulate(terms[block], axis=0)))
    rows = np.concatenate(rows)[0 if include_initial else 1 :]
    return dice.zeros(dice.write(np.moveaxis(rows, 0, axis).astype(x.dtype)))


def contracted(dice, a, b):
    """``matmul`` of floating-point numbers."""
    dtype, vector, covector = np.result_type(a, b), a.ndim == 1, b.ndim == 1
    a, b = dice.read(a)[None, :] if vector else dice.read(a), dice.read(b)[:, None] if covector else dice.read(b)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul of shapes {a.shape} and {b.shape}")
    width, order = dice.accumulator(dtype), dice.order(a.shape[-1])
    a, b = a[..., order].astype(width), b[..., order, :].astype(width)
    parts = [multiplied(dice, a[..., block], b[..., block, :]) for block in dice.blocks(len(order))]
    while len(parts) > 1:
        where = int(dice.rng.integers(len(parts) - 1))
        parts[where : where + 2] = [parts[where] + parts[where + 1]]
    result = dice.zeros(dice.write(parts[0].astype(dtype)))
    result = result[..., 0, :] if vector else result
    return result[..., 0] if covector else result


def multiplied(dice, a, b):
    """One block of a contraction: by BLAS, in its order, or term by term with products rounded or not."""
    if prod(a.shape) * b.shape[-1] > TERM_BY_TERM or dice.throws("order"):
        return np.matmul(a, b)
    wider = a.dtype
    if dice.throws("fma"):
        # The product of two float32 fits a float64. That of two float64 is cut to the 64 bits of a longdouble: an
        # FMA to within its last double rounding.
        wider = np.dtype(np.float64) if a.dtype == np.float32 else np.dtype(np.longdouble)
    total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), a.dtype)
    for k in range(a.shape[-1]):
        product = a[..., :, k, None].astype(wider) * b[..., k, None, :].astype(wider)
        total = (total.astype(wider) + (flush(product) if dice.writes_zero else product)).astype(a.dtype)
    return total


def tensordotted(dice, a, b, *, axes=2):
    """``tensordot``, as one matrix product."""
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    left, right = ([axis % x.ndim for axis in chosen] for x, chosen in zip((a, b), axes, strict=True))
    rows = [axis for axis in range(a.ndim) if axis not in left]
    columns = [axis for axis in range(b.ndim) if axis not in right]
    if (over := [a.shape[i] for i in left]) != [b.shape[i] for i in right]:
        raise ValueError(f"tensordot of shapes {a.shape} and {b.shape} over axes {left} and {right}")
    shape = (*(a.shape[i] for i in rows), *(b.shape[i] for i in columns))
    a = a.transpose((*rows, *left)).reshape(prod(a.shape[i] for i in rows), prod(over))
    b = b.transpose((*right, *columns)).reshape(prod(over), prod(b.shape[i] for i in columns))
    return contracted(dice, a, b).reshape(shape)


def vecdotted(dice, a, b, *, axis=-1):
    """``vecdot``, as many products of a row and a column."""
    a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
    return contracted(dice, a[..., None, :], b[..., :, None])[..., 0, 0]


def traced(dice, x, *, offset=0, dtype=None):
    """``linalg.trace``: the sum of a diagonal."""
    return reduced(dice, "sum", np.diagonal(x, offset, -2, -1), axis=-1, dtype=dtype)


def rooted(dice, x):
    """``sqrt``. IEEE 754 fixes its result, but not every library follows that in every dtype."""
    return dice.nudged(np.sqrt(x), 1, "sqrt", share=0.25)


def quotient(dice, a, b, whole=False):
    """``divide`` and ``floor_divide``, where one of both may be a Python number."""
    if isinstance(a, np.ndarray) and is_float(a) and not isinstance(b, np.ndarray) and dice.throws("reciprocal"):
        divided = a * (a.dtype.type(1) / a.dtype.type(b))
        return np.floor(divided) if whole else divided
    if isinstance(b, np.ndarray) and is_float(b) and not isinstance(a, np.ndarray) and dice.throws("reciprocal"):
        # As torch does: `Tensor.__rtruediv__` is ``self.reciprocal() * other``.
        divided = (b.dtype.type(1) / b) * b.dtype.type(a)
        return np.floor(divided) if whole else divided
    return np.floor_divide(a, b) if whole else np.divide(a, b)


def argsorted(dice, sort, x, *, axis=-1, descending=False, stable=True):
    """``argsort``; equal elements are in any order unless it is ``stable``."""
    if stable or "ties" in dice.fixed:
        return sort(x, axis=axis, descending=descending, stable=True)
    shuffled = dice.rng.permutation(x.shape[axis])
    return shuffled[sort(np.take(x, shuffled, axis=axis), axis=axis, descending=descending, stable=True)]


def uniques(dice, all_of, kind, x):
    """``unique_*``: the standard does not fix the order of the values."""
    found = all_of(x)
    if "ties" not in dice.fixed:
        order = dice.rng.permutation(len(found.values))
        inverse = np.argsort(order)[found.inverse_indices]
        found = type(found)(found.values[order], found.indices[order], inverse, found.counts[order])
    return found.values if kind is None else kind(*(getattr(found, field) for field in kind._fields))
