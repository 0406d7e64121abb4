"""Free what a forward saved for backward as soon as its backward is done.

Outside of `released`, backward may be called several times after one forward, so a layer holds what it saved until its
next forward. A training step calls backward once: within `released` each layer and loss frees what it saved at the end
of its own backward, and after the step no activations are in memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_released: ContextVar[bool] = ContextVar("xpnn_released", default=False)
#: Whether the caller is within `released`.
is_within_released = _released.get


@contextmanager
def released() -> Iterator[None]:
    """Within the ``with`` block, backward frees what forward saved for it, and can be called once for each forward.

    The peak memory of a step is lower; its results have the same bits. A second backward after one forward raises the
    `RuntimeError` of a backward without a forward. The block applies to this thread, and to work that runs in its
    context.

    Examples
    --------
    >>> import xpnn as nn
    >>> model, loss = nn.Dense(3, 2), nn.CrossEntropy()
    >>> def step(x, target):
    ...     value = loss(model(x), target)
    ...     with nn.released():
    ...         model.backward(loss.backward(), input_grad=False)
    ...     return value
    """
    token = _released.set(True)
    try:
        yield
    finally:
        _released.reset(token)
