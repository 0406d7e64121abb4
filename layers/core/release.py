"""How long what a forward keeps for backward is kept.

A layer called by hand may be asked for its gradient several times after one forward, so it keeps what backward needs
until the next forward. A training step asks once: within `released`, each layer and loss lets go as soon as its own
backward is done, and at its end the step holds no activations at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_released: ContextVar[bool] = ContextVar("xpnn_released", default=False)
#: Whether a backward drops what the forward before it kept.
releases = _released.get


@contextmanager
def released() -> Iterator[None]:
    """Within the ``with`` block, one backward for each forward: what it needs is dropped as soon as it is done.

    The peak of a step's memory falls, its results stay the same bits. A second backward after one forward is then the
    `RuntimeError` of a backward without a forward. It counts for this thread, and for work that runs in its context.

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
