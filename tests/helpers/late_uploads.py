"""Uploads on an emulated device with delayed streams: finds the rules of the uploader without which a batch is damaged.

Run as a program, with a mode of delay in CUDA_EMULATOR_LATE; prints these rules as JSON, and "" if the unchanged
uploader damages a batch.
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
    """The uploader's class without a rule."""
    assert not rule or SOURCE.count(rule) == 1, f"{rule} is not one line of the uploader"
    scope = {"__name__": "xpnn.backends.cuda.without", "__package__": "xpnn.backends.cuda"}
    exec(compile(SOURCE.replace(rule, "None") if rule else SOURCE, pinned.__file__, "exec"), scope)
    return scope["PinnedUploader"]


def batch(i: int) -> np.ndarray:
    """A few hundred numbers, all equal to the number of the batch."""
    return np.full((7, 31), i, np.int32)


def damages(rule: str) -> bool:
    """Whether any of many batches, two of them in transfer at a time, arrives with other numbers."""
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
