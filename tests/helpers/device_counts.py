"""Counts of the calls to an emulated CUDA device, and tests in which its streams run as late as they may."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

#: Calls that make the host wait for the device or copies between the two. Kernels, copies within the device, fills and
#: allocations are only queued.
HIDDEN = ("waits", "to_device", "to_host")


def require_emulator(reason: str) -> Any:
    """The package of the emulated device; the test is skipped where CuPy does not compute on one."""
    emulator = pytest.importorskip("cuda_emulator", reason=reason)
    if not hasattr(emulator, "counts"):
        # pytest makes a module of this name for the tests in the folder of the emulator.
        pytest.skip(reason)
    return emulator


@contextmanager
def device_counts() -> Iterator[dict[str, int]]:
    """A dict that holds, after the ``with`` block, how often each kind of call was made within it; no zeros.

    The names are those of the emulator: ``kernels``, ``to_device``, ``to_host``, ``within``, ``fills``, ``waits``,
    ``allocations``, ``others``. The test is skipped where the device is not emulated.
    """
    emulator = require_emulator("counts are those of an emulated CUDA device")
    found: dict[str, int] = {}
    before = emulator.counts()
    yield found
    after = emulator.counts()
    found.update({name: after[name] - n for name, n in before.items() if after[name] != n})


def hidden(counts: dict[str, int]) -> dict[str, int]:
    """The waits and copies among counts."""
    return {name: n for name, n in counts.items() if name in HIDDEN}


#: The emulator's modes in which streams do nothing until something waits for them: which streams those are.
MODES = ("all", "blocking", "nonblocking", "random")


def run_tests_late(file: str, expression: str, mode: str) -> None:
    """Run tests of a file in a process with delayed streams, in one of `MODES`.

    ``expression`` is that of pytest's ``-k``; it must leave out the test that calls this.
    """
    require_emulator("only an emulated device lets a test delay its streams")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", expression]
    # The last mode delays at random, with this seed.
    late = {**os.environ, "CUDA_EMULATOR_LATE": mode, "CUDA_EMULATOR_SEED": "1"}
    run = subprocess.run(command, env=late, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]


def run_late(program: str) -> None:
    """Run a Python program in a process whose streams do nothing until something waits for them."""
    require_emulator("only an emulated CUDA device can delay its streams so far")
    late = {**os.environ, "CUDA_EMULATOR_LATE": "all"}
    ran = subprocess.run([sys.executable, "-c", program], env=late, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
