"""Start programs as ranks of MPI, and read what each prints."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xpnn as nn

PROGRAMS = Path(__file__).with_name("rank_programs.py")


def launcher():
    """The arguments of `mpiexec`: the one beside this Python, or that of the machine.

    Where the tests are installed MPI is too, except on Windows; so its absence is a failure.
    """
    if sys.platform == "win32":
        pytest.skip("there is no MPICH for Windows, which the extra `mpi` installs elsewhere; groups are untried there")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    assert found and importlib.util.find_spec("mpi4py"), "no mpi4py or no mpiexec; the extra `test` has both"
    of_open_mpi = b"Open MPI" in subprocess.run([found, "--version"], capture_output=True, check=True).stdout
    return [found, *(["--allow-run-as-root", "--oversubscribe"] if of_open_mpi else [])]


def command(count, *arguments, before=()):
    """The arguments of a process that starts so many ranks of this Python, each by the command ``before``."""
    return [*launcher(), "-n", str(count), *before, sys.executable, *map(str, arguments)]


def environment(**more):
    """That of the ranks, which import this package and the helpers of the tests."""
    package = Path(nn.__file__).resolve().parent
    # A checkout of another name is installed.
    own = [str(package.parent)] if package.name == "xpnn" else []
    path = os.pathsep.join(filter(None, [*own, str(PROGRAMS.parent), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "XPNN_NUM_THREADS": "1", **more}


def started(command, **more):
    """The process of a command, whose output is read."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(**more), text=True, **pipes)


def end_of(process, timeout=100):
    """Standard output and error of a process that ends in time."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the ranks did not end in {timeout} s: {process.communicate()}")


def start(count, name, *arguments, **more):
    """The process of so many ranks of the function ``name`` of `rank_programs`."""
    return started(command(count, PROGRAMS, name, *map(json.dumps, arguments)), **more)


def run(count, name, *arguments, **more):
    """What each rank returned from the function ``name`` of `rank_programs`, by rank; fails if any did not."""
    process = start(count, name, *arguments, **more)
    out, errors = end_of(process)
    results = results_in(out)
    assert process.returncode == 0 and len(results) == count, out + errors
    return [results[rank] for rank in range(count)]


def results_in(out):
    """The results of the ranks that printed one."""
    lines = [line.partition("RESULT ")[2] for line in out.splitlines() if "RESULT " in line]
    return dict(map(json.loads, lines))
