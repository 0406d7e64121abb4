"""Uploads on an emulated device whose streams run late: which rules of the uploader, left out, damage a batch.

Run as a program with a mode of lateness in CUDACPU_LAZY; prints the rules as JSON, "" for the uploader as it is.
"""

import json
from pathlib import Path

import numpy as np

import xpnn as nn
from xpnn.backends.cuda import pinned

RULES = (
    "staging.copied.synchronize()",
    "self._stream.wait_event(staging.consumed)",
    "current.wait_event(staging.copied)",
    "self._stream.record(staging.copied)",
    "current.record(staging.consumed)",
)
SOURCE = Path(pinned.__file__).read_text(encoding="utf-8")
BATCHES, AHEAD = 16, 2


def without(rule: str) -> type[pinned.PinnedUploader]:
    """The uploader's class with a rule left out."""
    assert not rule or SOURCE.count(rule) == 1, f"{rule} is not one line of the uploader"
    scope = {"__name__": "xpnn.backends.cuda.without", "__package__": "xpnn.backends.cuda"}
    exec(compile(SOURCE.replace(rule, "None") if rule else SOURCE, pinned.__file__, "exec"), scope)
    return scope["PinnedUploader"]


def batch(i: int) -> np.ndarray:
    """Some hundred numbers, all of them the batch's own."""
    return np.full((7, 31), i, np.int32)


def damages(rule: str) -> bool:
    """Whether any of many batches, two on their way at a time, arrives as another."""
    import cupy

    b = nn.get_backend("cupy")
    uploader, waiting, arrived = without(rule)(b, cupy), [], []
    for i in range(BATCHES):
        waiting.append(uploader.send([batch(i)]))
        if len(waiting) == AHEAD:
            (array,) = uploader.receive(waiting.pop(0))
            # A kernel that reads the batch whenever the stream gets to it.
            arrived.append(array + 0)
    b.synchronize()
    return any(not np.array_equal(array.get(), batch(i)) for i, array in enumerate(arrived))


if __name__ == "__main__":
    print(json.dumps([rule for rule in ("", *RULES) if damages(rule)]))
