"""Run a text as the program of several ranks, and read what each printed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import xpnn as nn

BEGIN = """
import json, sys
import numpy as np
import xpnn as nn
group = nn.distributed.init("mpi", timeout=4) if "RANKS" in sys.argv else None
def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 2, 8, 8)).astype("float32"), rng.integers(0, 5, count)
def weights(model):
    return [float(x) for _, a in sorted(model.state_dict().items()) for x in np.asarray(a).ravel()]
def tell(value):
    sys.stdout.write(f"RESULT {json.dumps([0 if group is None else group.rank, value])}\\n")
    sys.stdout.flush()
"""


def launcher():
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("no mpi4py, or no mpiexec: pip install 'xpnn[mpi]'")
    of_open_mpi = b"Open MPI" in subprocess.run([found, "--version"], capture_output=True, check=True).stdout
    return [found, *(["--allow-run-as-root", "--oversubscribe"] if of_open_mpi else [])]


def start(count, folder, text, **more):
    """The process of so many ranks of a program, or with None of one process without a group."""
    program = Path(folder) / f"program{count}.py"
    program.write_text(BEGIN + textwrap.dedent(text))
    package = Path(nn.__file__).parent
    # A checkout of another name is installed.
    paths = [str(package.parent)] if package.name == "xpnn" else []
    path = os.pathsep.join(filter(None, [*paths, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "XPNN_NUM_THREADS": "1", **more}
    before = [] if count is None else [*launcher(), "-n", str(count)]
    command = [*before, sys.executable, str(program), *([] if count is None else ["RANKS"])]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def end_of(process, timeout=100):
    """Standard output and error of a process that ends in time."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the ranks did not end in {timeout} s: {process.communicate()}")


def results(out):
    lines = [line.partition("RESULT ")[2] for line in out.splitlines() if "RESULT " in line]
    return [value for _, value in sorted(map(json.loads, lines))]


def run(count, folder, text, **more):
    """What each rank told, in order of rank."""
    process = start(count, folder, text, **more)
    out, errors = end_of(process)
    found = results(out)
    assert process.returncode == 0 and len(found) == (count or 1), out + errors
    return found
