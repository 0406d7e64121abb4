"""Groups by NCCL: two processes on CuPy, on a double of NCCL, which exchanges between them.

The double replaces `cupy.cuda.nccl`; what is started, and by which variables, is as `torchrun` does it.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cupy_ranks
import pytest

import xpnn as nn
from xpnn.distributed import nccl, rendezvous

nccl_double = pytest.importorskip("nccl_double", reason="CuPy is not installed", exc_type=ImportError)
HELPERS = Path(__file__).resolve().parents[1] / "helpers"
SECONDS = 60.0


@pytest.fixture(autouse=True)
def cupy(on_gpu):
    """These tests need CuPy, with a device."""
    return pytest.importorskip("cupy")


def free_port():
    with socket.create_server(("", 0)) as listener:
        return listener.getsockname()[1]


def environment(rank, size, port, **others):
    root = Path(nn.__file__).resolve().parents[1]
    paths = os.pathsep.join([str(root), str(HELPERS), os.environ.get("PYTHONPATH", "")])
    torchrun = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # As if each process saw a GPU of its own.
    given = {"PYTHONPATH": paths, "XPNN_NUMBA": "0", "NCCL_DOUBLE_BUS": f"gpu {rank}", **torchrun, **others}
    return {**os.environ, **{name: str(value) for name, value in given.items() if value is not None}}


@contextlib.contextmanager
def started(case, size=2, environments=None):
    """Processes of ranks; those that still run are killed at the end."""
    port = free_port()
    ranks = [environment(rank, size, port) for rank in range(size)] if environments is None else environments
    command = [sys.executable, str(HELPERS / "cupy_ranks.py"), case, "nccl"]
    processes = [
        subprocess.Popen(command, env=each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in ranks
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def rows_of(case, **options):
    with started(case, **options) as processes:
        rows = []
        for process in processes:
            out, problems = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, problems[-3000:]
            rows.append(json.loads(out))
    return rows


def failure_of(process):
    """The last line that a process printed, which must have failed."""
    _, problems = process.communicate(timeout=SECONDS)
    assert process.returncode not in (0, None), problems
    return [line for line in problems.splitlines() if "Error" in line or line.startswith("xpnn:")][-1]


@pytest.fixture(scope="module")
def rows():
    """What two ranks found, which compare exchanges and gradients themselves."""
    # On an emulated device each queue runs as late as it may.
    port = free_port()
    return rows_of(
        "everything", environments=[environment(rank, 2, port, CUDA_EMULATOR_LATE="all") for rank in range(2)]
    )


def test_exchanges_of_host_and_device_arrays(rows):
    assert [row["rank"] for row in rows] == [0, 1] and {row["size"] for row in rows} == {2}
    assert {row["description"] for row in rows} == {"NCCL 2.28.9"} and len({row["calls"] for row in rows}) == 1


def test_gradients_in_buckets_are_those_of_the_whole_batch(rows):
    assert [row["buckets"] for row in rows] == [3, 3]


def test_fit_leaves_the_same_bits_on_all_ranks(rows):
    for numerics in ("fast", "exact"):
        assert rows[0][numerics] == rows[1][numerics]
        assert rows[0][f"{numerics} loss"] == rows[1][f"{numerics} loss"]
    assert rows[0]["exact gpu"] == "cupy:0"


def test_fit_in_exact_numerics_has_the_bits_of_one_process_on_numpy(rows):
    model, history = cupy_ranks.fit("numpy", "exact")
    assert rows[0]["exact"] == cupy_ranks.digest(model)
    assert rows[0]["exact loss"] == history["train_loss"][-1]


def test_a_rank_that_hangs_is_named_by_one_that_waits_for_its_device():
    with started("hanging") as (waits, _):
        begun = time.monotonic()
        assert "rank 1 (" in (line := failure_of(waits)) and "hangs" in line
        assert time.monotonic() - begun < 30.0


def test_a_rank_that_dies_is_named_and_the_port_is_free_again():
    port = free_port()
    with started("dying", environments=[environment(rank, 2, port) for rank in range(2)]) as (waits, _):
        assert "rank 1 (" in (line := failure_of(waits)) and "died" in line
        with socket.create_server(("", port)):
            pass


def both(function):
    """What a function of the rank returns or raises, on two ranks that are threads."""

    def attempt(rank):
        try:
            return function(rank)
        except Exception as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(attempt, range(2), timeout=SECONDS))


def test_two_ranks_on_one_gpu_are_refused(monkeypatch, cupy):
    nccl_double.install(lambda *arguments: monkeypatch.setattr(*arguments, raising=False))
    address = "127.0.0.1", free_port()
    for error in both(lambda rank: nccl.NCCLCommunicator(rank, 2, address)):
        assert "NCCL can't connect the ranks" in str(error) and "GPU of its own" in str(error)


def test_arrays_on_another_gpu_are_refused(monkeypatch, cupy):
    nccl_double.install(lambda *arguments: monkeypatch.setattr(*arguments, raising=False))
    communicator = nccl.NCCLCommunicator(0, 1, ("127.0.0.1", free_port()))
    array = cupy.ones(3)
    communicator._device = SimpleNamespace(id=1)
    with pytest.raises(RuntimeError, match=r"must be on its GPU 1, but are on GPU 0; make the model with"):
        next(communicator.all_reduce(array, "sum"))


def test_a_port_that_is_taken_is_named_at_once():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=rf"can't listen at port {port} .* MASTER_PORT"):
            rendezvous.identifier_of_root(0, 2, ("127.0.0.1", port), bytes)


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        (1, 3, "rank 1 was started with WORLD_SIZE=3, rank 0 with WORLD_SIZE=2"),
        (2, 2, "two processes were started with RANK=2"),
    ],
)
def test_processes_that_do_not_belong_together_are_refused(rank, size, message):
    address = "127.0.0.1", free_port()
    ranks = (0, 2), (rank, size)
    for error in both(lambda number: rendezvous.identifier_of_root(*ranks[number], address, bytes)):
        assert message in str(error)


def launched(monkeypatch, **variables):
    given = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **variables}
    for name, value in given.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    for name in ("PMI_RANK", "PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_gpu_the_message_says_so(monkeypatch, cupy):
    launched(monkeypatch)
    monkeypatch.setattr(cupy.cuda, "nccl", SimpleNamespace(available=True), raising=False)
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(RuntimeError, match="CuPy finds no GPU"):
        nn.distributed.init("nccl")


def test_without_a_library_the_message_says_what_to_install(monkeypatch, cupy):
    launched(monkeypatch)
    monkeypatch.setattr(cupy.cuda, "nccl", SimpleNamespace(available=False), raising=False)
    with pytest.raises(RuntimeError, match=r"no NCCL library: pip install .nvidia-nccl-cu13"):
        nn.distributed.init("nccl")
    # `auto` does without.
    assert nn.distributed.init("auto").size == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK must be from 0 to WORLD_SIZE - 1 = 1, got 2"),
        ({"RANK": "-1"}, r"RANK must be a whole number, got '-1'"),
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE must be a whole number, got 'two'"),
        ({"WORLD_SIZE": ""}, r"WORLD_SIZE must be a whole number, got ''"),
        ({"MASTER_PORT": "x"}, r"MASTER_PORT must be a whole number, got 'x'"),
        ({"MASTER_PORT": "65536"}, r"MASTER_PORT must be from 1 to 65535, got 65536"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, r"this is process 1, counted from 0, and there are 1;"),
        ({"RANK": "\N{SUPERSCRIPT TWO}"}, r"RANK must be a whole number"),
        ({"MASTER_PORT": None}, r"MASTER_PORT is not set"),
    ],
)
def test_wrong_variables_are_named(monkeypatch, cupy, variables, message):
    launched(monkeypatch, **variables)
    monkeypatch.setattr(nccl, "missing", lambda: None)
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 1)
    with pytest.raises(RuntimeError, match=message):
        nn.distributed.init("nccl")


def test_a_rank_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(rendezvous, "JOINING", 0.5)
    with pytest.raises(RuntimeError, match=r"ranks 1, 2 did not connect to rank 0 at port \d+ within"):
        rendezvous.identifier_of_root(0, 3, ("127.0.0.1", free_port()), bytes)
    with pytest.raises(RuntimeError, match=r"rank 1 can't reach rank 0 at 127\.0\.0\.1:\d+: "):
        rendezvous.identifier_of_root(1, 3, ("127.0.0.1", free_port()), bytes)


def test_a_program_that_has_the_port_is_no_rank_0(monkeypatch):
    monkeypatch.setattr(rendezvous, "JOINING", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            link, _ = other.accept()
            with link:
                link.sendall(b"220 mail\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(RuntimeError, match="another program has that port"):
            rendezvous.identifier_of_root(1, 2, ("127.0.0.1", other.getsockname()[1]), bytes)


def test_who_is_no_rank_is_not_answered(monkeypatch):
    port, found = free_port(), []
    root = threading.Thread(
        target=lambda: found.append(rendezvous.identifier_of_root(0, 2, ("127.0.0.1", port), lambda: b"\0\xffid"))
    )
    root.start()
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"xpnn joins": 1}\n', b""):
        link = None
        while link is None:
            with contextlib.suppress(ConnectionRefusedError):
                link = socket.create_connection(("127.0.0.1", port))
        with link:
            link.sendall(greeting)
    assert rendezvous.identifier_of_root(1, 2, ("127.0.0.1", port), bytes) == b"\0\xffid"
    root.join(10.0)
    assert found == [b"\0\xffid"]
