"""MPI with arrays on CuPy: two ranks that `mpiexec` starts share a device; also NCCL, started by MPI."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cupy_ranks
import pytest
from device_counts import require_emulator

import xpnn as nn

HELPERS = Path(cupy_ranks.__file__).parent
SECONDS = 60.0


def mpiexec():
    """The launcher of mpi4py's MPI; wheels install it beside Python, or in the folder ``bin`` beside mpi4py."""
    found = importlib.util.find_spec("mpi4py")
    if found is None or found.origin is None:
        pytest.skip("mpi4py is not installed")
    folders = [Path(sys.executable).parent, Path(found.origin).parents[1] / "bin"]
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    launcher = shutil.which("mpiexec", path=path)
    if launcher is None:
        pytest.skip("there is no mpiexec")
    return launcher


def run(case, engine, *before, **variables):
    """Run two ranks; returns what they did."""
    root = Path(nn.__file__).resolve().parents[1]
    paths = os.pathsep.join([str(root), str(HELPERS), os.environ.get("PYTHONPATH", "")])
    command = [mpiexec(), "-n", "2", *before, sys.executable, str(HELPERS / "cupy_ranks.py"), case, engine]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths, "XPNN_NUMBA": "0", **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def rows_of(*arguments, **variables):
    ran = run(*arguments, **variables)
    assert ran.returncode == 0, ran.stderr[-3000:]
    # Lines of two processes may be joined.
    decoder, rows, text = json.JSONDecoder(), [], ran.stdout.strip()
    while text:
        row, end = decoder.raw_decode(text)
        rows.append(row)
        text = text[end:].strip()
    return sorted(rows, key=lambda row: row["rank"])


@pytest.fixture(scope="module")
def rows(on_gpu):
    """What two ranks found, which compare exchanges and gradients themselves; on an emulated device queues run late."""
    return rows_of("everything", "mpi", CUDA_EMULATOR_LATE="all")


def test_device_arrays_are_exchanged_through_the_host(rows):
    assert [row["rank"] for row in rows] == [0, 1] and len({row["calls"] for row in rows}) == 1
    assert all("MPI (" in row["description"] for row in rows)


def test_gradients_in_buckets_are_those_of_the_whole_batch(rows):
    assert [row["buckets"] for row in rows] == [3, 3]


def test_fit_in_exact_numerics_has_the_bits_of_one_process_on_numpy(rows):
    model, history = cupy_ranks.fit("numpy", "exact")
    for row in rows:
        assert row["exact"] == cupy_ranks.digest(model)
        assert row["exact loss"] == history["train_loss"][-1]
    assert rows[0]["fast"] == rows[1]["fast"]


def test_an_mpi_that_reads_device_memory_is_given_it(on_gpu):
    require_emulator("only an emulated device lets MPI read its memory here")
    rows = rows_of("exchange", "mpi", CUDA_EMULATOR_LATE="all", MPICH_GPU_SUPPORT_ENABLED="1")
    assert all("reads device memory" in row["description"] for row in rows)


def test_nccl_is_started_through_mpi_where_each_process_sees_another_gpu(on_gpu):
    # As `srun --gpus-per-task=1` does.
    own = ["sh", "-c", 'NCCL_DOUBLE_BUS="gpu ${PMI_RANK:-$OMPI_COMM_WORLD_RANK}" exec "$@"', "sh"]
    rows = rows_of("exchange", "nccl", *own)
    assert {row["description"] for row in rows} == {"NCCL 2.28.9"} and [row["rank"] for row in rows] == [0, 1]


def test_nccl_refuses_more_processes_than_gpus(on_gpu):
    import cupy

    if cupy.cuda.runtime.getDeviceCount() > 1:
        pytest.skip("two processes have a GPU each")
    ran = run("exchange", "nccl")
    assert ran.returncode != 0
    assert (
        "needs one GPU for each process of a machine: this is process 1, counted from 0, and there are 1" in ran.stderr
    )
