"""Self-attention with several heads.

Each head computes `xpnn.layers.attention.attention` of its own features.

Source: A. Vaswani et al., "Attention is all you need", 2017, section 3.2.2.
"""

from math import prod
from typing import Any, ClassVar, Unpack

from ..backends import operations_of
from ..common import checks
from ..common.types import Array
from .attention import attend, attention_gradients
from .core.output_shape import Shape
from .core.placement import Placement
from .dense import dense, dense_backward
from .dropout import Dropping, check_probability
from .initialisers import Initialiser, constant, glorot_uniform

# From axes (N, L, heads, d) to (N, heads, L, d), and back.
HEADS = (0, 2, 1, 3)


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
        xp, narrow = self.backend.product_xp, self.backend.narrow
        size = features // self.num_heads
        joined = self._dense(x, "in_proj_")
        split = xp.reshape(joined, (n, length, 3, self.num_heads, size))
        q, k, v = (xp.permute_dims(split[:, :, i, :, :], HEADS) for i in range(3))
        keep = None
        if self.training and self.dropout > 0.0:
            keep = self._mask((n, self.num_heads, length, length), self.dropout)
        y, probabilities = attend(q, k, v, self.causal, keep, self.dropout, operations_of(xp), narrow)
        y = xp.reshape(xp.permute_dims(y, HEADS), (n, length, features))
        self.save_for_backward(x, q, k, v, probabilities, keep, y)
        return self._dense(y, "out_proj.")

    def _dense(self, x: Array, name: str) -> Array:
        weight, bias, b = self.parameter_value(f"{name}weight"), self.parameter_value(f"{name}bias"), self.backend
        if b.narrow is not None:
            x, weight = b.narrow.rounded(x), b.narrow.rounded(weight)
        return dense(x, weight, bias, xp=b.product_xp)

    def _dense_backward(self, dy: Array, x: Array, name: str, input_grad: bool = True) -> Array | None:
        """The input's gradient; adds those of the parameters."""
        weight, b = self.parameter_value(f"{name}weight"), self.backend
        if b.narrow is not None:
            dy, x, weight = b.narrow.rounded(dy), b.narrow.rounded(x), b.narrow.rounded(weight)
        dx, dweight, dbias = dense_backward(dy, x, weight, input_grad=input_grad, xp=b.product_xp)
        self.accumulate_grad(f"{name}weight", dweight)
        self.accumulate_grad(f"{name}bias", dbias)
        return dx

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        x, q, k, v, probabilities, keep, y = self.saved
        xp, narrow, ops = self.backend.product_xp, self.backend.narrow, operations_of(self.backend.product_xp)
        dy = self._dense_backward(dy, y, "out_proj.")
        n, length, features = x.shape
        dy = xp.permute_dims(xp.reshape(dy, (n, length, self.num_heads, features // self.num_heads)), HEADS)
        gradients = attention_gradients(dy, q, k, v, probabilities, keep, self.dropout, ops, narrow)
        dq, dk, dv = (xp.permute_dims(each, HEADS) for each in gradients)
        joined = xp.reshape(xp.stack([dq, dk, dv], axis=2), (n, length, 3 * features))
        return self._dense_backward(joined, x, "in_proj_", input_grad)
