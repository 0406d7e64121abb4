"""MPI with arrays on CuPy: two ranks that `mpiexec` starts share a device; also NCCL, started by MPI."""

import json

import cupy_ranks
import pytest
import ranks
from device_counts import require_emulator

PROGRAM = cupy_ranks.__file__
SECONDS = 60.0


def run(case, engine, *before, **variables):
    """Run two ranks; returns the process, its output and errors."""
    process = ranks.started(ranks.command(2, PROGRAM, case, engine, before=before), XPNN_NUMBA="0", **variables)
    return process, *ranks.end_of(process, SECONDS)


def rows_of(*arguments, **variables):
    process, out, errors = run(*arguments, **variables)
    assert process.returncode == 0, errors[-3000:]
    # Lines of two processes may be joined.
    decoder, rows, text = json.JSONDecoder(), [], out.strip()
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
    # Both see one GPU, however many there are.
    process, _, errors = run("exchange", "nccl", CUDA_VISIBLE_DEVICES="0")
    assert process.returncode != 0
    assert "needs one GPU for each process of a machine: this is process 1, counted from 0, and there are 1" in errors
