"""The number of threads that compute.

``XPNN_NUM_THREADS`` sets it, the calling thread included. Otherwise it is the number of cores that this process may
use, by its affinity and the quota of its control group.
"""

from functools import cache

from ...common import environment
from ...common.cores import available_cores

VARIABLE = environment.NUM_THREADS


def thread_count() -> int:
    """The number of threads that compute.

    Raises
    ------
    ValueError
        If ``XPNN_NUM_THREADS`` is set to anything but an integer of at least 1.
    """
    return _given(environment.given(VARIABLE))


@cache
def _given(text: str) -> int:
    # Cached by the text, because every layer calls this.
    given = environment.value(VARIABLE) if text else None
    return available_cores() if given is None else int(given)
