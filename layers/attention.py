"""Attention: each position of a sequence gets a mean of the values of all positions, weighted by how well keys fit.

For one head, with queries ``Q (L, d)``, keys ``K (S, d)`` and values ``V (S, d)``::

    P = softmax(Q K^T / sqrt(d))        Y = P V

    dV = P^T dY        dP = dY V^T        dS = P * (dP - sum of dP * P over the last axis)
    dQ = dS K / sqrt(d)        dK = dS^T Q / sqrt(d)

Causal attention computes with ``-inf`` in place of the scores of later positions, whose probability is then 0. Dropout
of probabilities computes with ``D = keep * P / (1 - p)`` in place of ``P`` in ``Y`` and ``dV``, and
``dP = keep * (dY V^T) / (1 - p)``.

Source: A. Vaswani et al., "Attention is all you need", 2017, eq. 1 and section 3.2.
"""

from math import inf, prod, sqrt
from typing import Any, ClassVar, Unpack

from array_api_compat import device

from ..backends import operations_of
from ..backends.operations import Operations
from ..backends.without_autograd import without_graph
from ..common import checks
from ..common.types import Array, Namespace
from .activations.softmax import softmax, softmax_backward
from .core.array_checks import namespace, require_same_dtype, require_shape
from .core.output_shape import Shape
from .core.placement import Placement
from .dense import dense, dense_backward
from .dropout import Dropping, check_probability, dropout, dropout_backward
from .initialisers import Initialiser, constant, glorot_uniform

HEADS = (0, 2, 1, 3)


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
    q: Array, k: Array, v: Array, causal: bool, keep: Array | None, p: float, ops: Operations
) -> tuple[Array, Array]:
    """`attention` of arrays that fit together, and the probabilities before dropout."""
    probabilities = _probabilities(q, k, causal, ops)
    dropped = probabilities if keep is None else dropout(probabilities, keep, p, xp=ops.xp)
    return ops.matmul(dropped, v), probabilities


def attention_gradients(
    dy: Array, q: Array, k: Array, v: Array, probabilities: Array, keep: Array | None, p: float, ops: Operations
) -> tuple[Array, Array, Array]:
    """`attention_backward` of arrays that fit together, from the probabilities before dropout."""
    xp, scale = ops.xp, _scale(q)
    dropped = probabilities if keep is None else dropout(probabilities, keep, p, xp=xp)
    dv = ops.matmul(xp.matrix_transpose(dropped), dy)
    dprobabilities = ops.matmul(dy, xp.matrix_transpose(v))
    if keep is not None:
        dprobabilities = dropout_backward(dprobabilities, keep, p, xp=xp)
    dscores = softmax_backward(dprobabilities, probabilities, axis=-1, xp=xp)
    dq = ops.matmul(dscores, k) * scale
    return dq, ops.matmul(xp.matrix_transpose(dscores), q) * scale, dv


def _probabilities(q: Array, k: Array, causal: bool, ops: Operations) -> Array:
    xp = ops.xp
    scores = ops.matmul(q * _scale(q), xp.matrix_transpose(k))
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


class MultiHeadAttention(Dropping):
    """Self-attention over sequences ``(N, L, E)`` with several heads; see `attention`.

    The input is multiplied by ``in_proj_weight``, which gives queries, keys and values; each head attends with its own
    ``E / num_heads`` features of them, and ``out_proj.weight`` is applied to the joined results. Names and shapes of
    the parameters are those of PyTorch's ``MultiheadAttention``, whose state loads.

    Parameters
    ----------
    embed_dim, num_heads : int
        ``E``, a multiple of the number of heads.
    bias : bool
        Whether there are ``in_proj_bias (3 E,)`` and ``out_proj.bias (E,)``, initially zeros.
    dropout : float
        Probability of dropping each probability in training.
    causal : bool
        Whether each position sees itself and earlier ones only.
    weight_init : initialiser
        For ``in_proj_weight (3 E, E)`` and ``out_proj.weight (E, E)``; ``glorot_uniform()`` by default.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Attributes
    ----------
    stream : Generator
        The source of the masks of dropout.

    Raises
    ------
    ValueError
        From the constructor, if ``embed_dim`` is no multiple of ``num_heads``; from `forward` for an input of another
        shape.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnn as nn
    >>> layer = nn.MultiHeadAttention(8, 2, causal=True, backend="numpy")
    >>> layer(np.ones((1, 5, 8), np.float32)).shape
    (1, 5, 8)
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("embed_dim", ...),
        ("num_heads", ...),
        ("bias", True),
        ("dropout", 0.0),
        ("causal", False),
    )

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        bias: bool = True,
        dropout: float = 0.0,
        causal: bool = False,
        *,
        weight_init: Initialiser | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.embed_dim = checks.integer("embed_dim", embed_dim, 1)
        self.num_heads = checks.integer("num_heads", num_heads, 1)
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim must be a multiple of num_heads, got embed_dim={embed_dim}, num_heads={num_heads}"
            )
        self.bias, self.causal = checks.flag("bias", bias), checks.flag("causal", causal)
        self.dropout = check_probability(dropout, "dropout")
        for name, rows in (("in_proj_", 3 * self.embed_dim), ("out_proj.", self.embed_dim)):
            self.add_parameter(f"{name}weight", (rows, self.embed_dim), weight_init, glorot_uniform())
            if self.bias:
                self.add_parameter(f"{name}bias", (rows,), constant(0.0))

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Four products with matrices ``(E, E)`` and, for each pair of positions, two of length ``E``."""
        return prod(x_shape) * (4 * self.embed_dim + 2 * x_shape[1])

    def _output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[1] == 0 or shape[2] != self.embed_dim:
            raise ValueError(f"input must have shape (N, L, {self.embed_dim}) with L at least 1, got {shape}")
        return shape

    def _forward(self, x: Array) -> Array:
        n, length, features = self._output_shape(tuple(x.shape))
        xp, ops = self.backend.xp, operations_of(self.backend.xp)
        size = features // self.num_heads
        joined = dense(x, self.parameter_value("in_proj_weight"), self.parameter_value("in_proj_bias"), xp=xp)
        split = xp.reshape(joined, (n, length, 3, self.num_heads, size))
        q, k, v = (xp.permute_dims(split[:, :, i, :, :], HEADS) for i in range(3))
        keep = None
        if self.training and self.dropout > 0.0:
            keep = self._mask((n, self.num_heads, length, length), self.dropout)
        y, probabilities = attend(q, k, v, self.causal, keep, self.dropout, ops)
        y = xp.reshape(xp.permute_dims(y, HEADS), (n, length, features))
        self.save_for_backward(x, q, k, v, probabilities, keep, y)
        return dense(y, self.parameter_value("out_proj.weight"), self.parameter_value("out_proj.bias"), xp=xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        x, q, k, v, probabilities, keep, y = self.saved
        xp, ops = self.backend.xp, operations_of(self.backend.xp)
        dy, dweight, dbias = dense_backward(dy, y, self.parameter_value("out_proj.weight"), xp=xp)
        self.accumulate_grad("out_proj.weight", dweight)
        self.accumulate_grad("out_proj.bias", dbias)
        n, length, features = x.shape
        dy = xp.permute_dims(xp.reshape(dy, (n, length, self.num_heads, features // self.num_heads)), HEADS)
        gradients = attention_gradients(dy, q, k, v, probabilities, keep, self.dropout, ops)
        dq, dk, dv = (xp.permute_dims(each, HEADS) for each in gradients)
        joined = xp.reshape(xp.stack([dq, dk, dv], axis=2), (n, length, 3 * features))
        weight = self.parameter_value("in_proj_weight")
        dx, dweight, dbias = dense_backward(joined, x, weight, input_grad=input_grad, xp=xp)
        self.accumulate_grad("in_proj_weight", dweight)
        self.accumulate_grad("in_proj_bias", dbias)
        return dx
