"""The same number of threads for PyTorch and NumPy, restored afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def same_threads(count: int, torch: Any | None) -> Iterator[None]:
    """Within the ``with`` block PyTorch, if it is given, and NumPy's BLAS use that number of threads."""
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
