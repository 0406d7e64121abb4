"""Attention: each position gets a weighted mean of the values of all positions; weights compare queries with keys.

For one head, with queries ``Q (L, d)``, keys ``K (S, d)`` and values ``V (S, d)``::

    P = softmax(Q K^T / sqrt(d))        Y = P V

    dV = P^T dY        dP = dY V^T        dS = P * (dP - sum of dP * P over the last axis)
    dQ = dS K / sqrt(d)        dK = dS^T Q / sqrt(d)

Causal attention computes with ``-inf`` in place of the scores of later positions, whose probability is then 0. Dropout
of probabilities computes with ``D = keep * P / (1 - p)`` in place of ``P`` in ``Y`` and ``dV``, and
``dP = keep * (dY V^T) / (1 - p)``.

Source: A. Vaswani et al., "Attention is all you need", 2017, eq. 1 and section 3.2.
"""

from math import inf, sqrt

from array_api_compat import device

from ..backends import operations_of
from ..backends.narrow import NarrowFormat
from ..backends.operations import Operations
from ..backends.without_autograd import without_graph
from ..common import checks
from ..common.types import Array, Namespace
from .activations.softmax import softmax, softmax_backward
from .core.array_checks import namespace, require_same_dtype, require_shape
from .dropout import check_probability, dropout, dropout_backward


@without_graph
def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool = False,
    keep: Array | None = None,
    p: float = 0.0,
    xp: Namespace | None = None,
) -> Array:
    """``softmax(q k^T / sqrt(d)) v`` of each sample and head: ``(N, H, L, e)``.

    Parameters
    ----------
    q : array
        Queries ``(N, H, L, d)``.
    k, v : array
        Keys ``(N, H, S, d)`` and values ``(N, H, S, e)``, of the same sequence or another one.
    causal : bool
        Whether position ``i`` sees the positions up to ``i`` only.
    keep : array, optional
        Booleans ``(N, H, L, S)``: which probabilities are kept, as in `dropout`.
    p : float
        Share of the probabilities that ``keep`` drops.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit together, no keys, mixed dtypes, or ``p`` without ``keep``.
    """
    xp = namespace(xp, ("keep",), q=q, k=k, v=v, keep=keep)
    _check(q, k, v)
    p = _checked_share(p, keep)
    return attend(q, k, v, checks.flag("causal", causal), keep, p, operations_of(xp))[0]


@without_graph
def attention_backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool = False,
    keep: Array | None = None,
    p: float = 0.0,
    xp: Namespace | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients of `attention` for ``dy (N, H, L, e)``: ``(dq, dk, dv)``; it computes the probabilities again."""
    xp = namespace(xp, ("keep",), dy=dy, q=q, k=k, v=v, keep=keep)
    _check(q, k, v)
    p = _checked_share(p, keep)
    require_shape(dy, (*q.shape[:-1], v.shape[-1]), "dy")
    require_same_dtype(dy=dy, q=q)
    ops = operations_of(xp)
    probabilities = _probabilities(q, k, checks.flag("causal", causal), ops)
    return attention_gradients(dy, q, k, v, probabilities, keep, p, ops)


def attend(
    q: Array,
    k: Array,
    v: Array,
    causal: bool,
    keep: Array | None,
    p: float,
    ops: Operations,
    narrow: NarrowFormat | None = None,
) -> tuple[Array, Array]:
    """`attention` of arrays that fit together, and the probabilities before dropout."""
    probabilities = _probabilities(q, k, causal, ops, narrow)
    dropped = probabilities if keep is None else dropout(probabilities, keep, p, xp=ops.xp)
    return _product(dropped, v, ops, narrow), probabilities


def attention_gradients(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    probabilities: Array,
    keep: Array | None,
    p: float,
    ops: Operations,
    narrow: NarrowFormat | None = None,
) -> tuple[Array, Array, Array]:
    """`attention_backward` of arrays that fit together, from the probabilities before dropout."""
    xp, scale = ops.xp, _scale(q)
    dropped = probabilities if keep is None else dropout(probabilities, keep, p, xp=xp)
    dv = _product(xp.matrix_transpose(dropped), dy, ops, narrow)
    dprobabilities = _product(dy, xp.matrix_transpose(v), ops, narrow)
    if keep is not None:
        dprobabilities = dropout_backward(dprobabilities, keep, p, xp=xp)
    dscores = softmax_backward(dprobabilities, probabilities, axis=-1, xp=xp)
    dq = _product(dscores, k, ops, narrow) * scale
    return dq, _product(xp.matrix_transpose(dscores), q, ops, narrow) * scale, dv


def _product(a: Array, b: Array, ops: Operations, narrow: NarrowFormat | None) -> Array:
    """``a b``, of factors that are rounded to 16 bits in mixed precision."""
    return ops.matmul(a, b) if narrow is None else ops.matmul(narrow.rounded(a), narrow.rounded(b))


def _probabilities(q: Array, k: Array, causal: bool, ops: Operations, narrow: NarrowFormat | None = None) -> Array:
    xp = ops.xp
    scores = _product(q * _scale(q), xp.matrix_transpose(k), ops, narrow)
    if causal:
        scores = xp.where(_past(q, k, ops), scores, -inf)
    return softmax(scores, axis=-1, xp=xp)


def _scale(q: Array) -> float:
    return 1.0 / sqrt(q.shape[-1])


def _past(q: Array, k: Array, ops: Operations) -> Array:
    """``[j <= i]`` for queries ``i`` and keys ``j``."""
    xp, length, keys = ops.xp, q.shape[-2], k.shape[-2]

    def make() -> Array:
        at = xp.arange(length, device=device(q))
        return xp.expand_dims(xp.arange(keys, device=device(q)), axis=0) <= xp.expand_dims(at, axis=1)

    return ops.constant(make, q, "causal", length, keys)


def _checked_share(p: float, keep: Array | None) -> float:
    p = check_probability(p)
    if keep is None and p > 0.0:
        raise ValueError(f"p={p} needs keep, an array of booleans that says which probabilities are kept")
    return p


def _check(q: Array, k: Array, v: Array) -> None:
    require_same_dtype(q=q, k=k, v=v)
    if q.ndim != 4 or q.shape[-1] == 0:
        raise ValueError(f"q must have shape (N, heads, L, d) with d at least 1, got {tuple(q.shape)}")
    n, heads, _, features = q.shape
    if k.ndim != 4 or k.shape[2] == 0:
        raise ValueError(f"k must have shape (N, heads, S, d) with S at least 1, got {tuple(k.shape)}")
    require_shape(k, (n, heads, k.shape[2], features), "k")
    require_shape(v, (n, heads, k.shape[2], v.shape[-1] if v.ndim else 0), "v")
