"""The same number of threads on both sides, and put back afterwards."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .load import cores

VARIABLE = "XPNN_NUM_THREADS"


def threads() -> int:
    """How many threads we compute with: ``XPNN_NUM_THREADS``, or all cores that this process may use.

    Raises
    ------
    ValueError
        If the variable holds no integer above 0.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return cores()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE} takes an integer >= 1, got {text!r}")
    return int(text)


@contextmanager
def same_threads(count: int, torch: Any | None) -> Iterator[None]:
    """Within the ``with`` block PyTorch, if given, and the BLAS of NumPy compute with that many threads."""
    with ExitStack() as stack:
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            pass
        else:
            stack.enter_context(threadpool_limits(limits=count, user_api="blas"))
        if torch is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(count)
        yield
