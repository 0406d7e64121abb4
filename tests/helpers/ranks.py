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


def mpiexec():
    """The launcher beside this Python, or that of the machine."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def require_mpi():
    if importlib.util.find_spec("mpi4py") is None or mpiexec() is None:
        pytest.skip("no mpi4py, or no mpiexec: pip install 'xpnn[mpi]'")


def command(count, *arguments):
    """The arguments of a process that starts so many ranks of this Python."""
    require_mpi()
    of_open_mpi = b"Open MPI" in subprocess.run([mpiexec(), "--version"], capture_output=True, check=True).stdout
    options = ["--allow-run-as-root", "--oversubscribe"] if of_open_mpi else []
    return [mpiexec(), *options, "-n", str(count), sys.executable, *map(str, arguments)]


def environment(**more):
    """That of the ranks, which import this package and use a thread each."""
    paths = [str(Path(nn.__file__).resolve().parents[1]), str(PROGRAMS.parent), os.environ.get("PYTHONPATH", "")]
    folder = Path(nn.__file__).parent
    # A checkout of another name is installed, and found as the tests find it.
    paths = paths if folder.name == "xpnn" else paths[1:]
    path = os.pathsep.join(filter(None, paths))
    return {**os.environ, "PYTHONPATH": path, "XPNN_NUM_THREADS": "1", **more}


def start(count, name, *arguments, **more):
    """The process of so many ranks of the function ``name`` of `rank_programs`."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    parts = [json.dumps(argument) for argument in arguments]
    return subprocess.Popen(command(count, PROGRAMS, name, *parts), env=environment(**more), text=True, **pipes)


def run(count, name, *arguments, timeout=100, **more):
    """What each rank returned from the function ``name`` of `rank_programs`, by rank; fails if any did not."""
    process = start(count, name, *arguments, **more)
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"{count} ranks of {name} did not end in {timeout} s: {process.communicate()}")
    results = results_in(out)
    assert process.returncode == 0 and len(results) == count, out + errors
    return [results[rank] for rank in range(count)]


def results_in(out):
    """The results of the ranks that printed one."""
    lines = [line.partition("RESULT ")[2] for line in out.splitlines() if "RESULT " in line]
    return dict(map(json.loads, lines))
