"""The same number of threads on both sides, and put back afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ...backends.execution.cores import VARIABLE
from ...backends.execution.cores import thread_count as threads

__all__ = ["VARIABLE", "same_threads", "threads"]


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
