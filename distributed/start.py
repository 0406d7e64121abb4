"""`init`: join the processes that a launcher started to a group."""

import atexit
import os
import secrets
import socket
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..common import checks
from . import mpi, nccl
from .communicator import Communicator
from .group import Group
from .single import alone
from .watching.hub import start_hub
from .watching.watch import Watch

ENGINES = ("auto", "mpi", "nccl")
#: Seconds that ranks wait for one that hangs.
TIMEOUT = 20.0
#: Seconds between the end of a program that failed, and the end of its process.
LAST_WORDS = 1.0


def init(engine: str = "auto", *, timeout: float = TIMEOUT) -> Group:
    """Join the processes that were started together, as by ``mpiexec -n 4 python train.py``.

    Parameters
    ----------
    engine : {"auto", "mpi", "nccl"}
        What exchanges the arrays. ``"mpi"`` is for processes that ``mpiexec`` or SLURM's ``srun`` started, on CPUs or
        GPUs. ``"nccl"`` is for one process a GPU, started in the same way or by ``torchrun``, whose environment
        variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT it reads. ``"auto"`` is NCCL where these variables are
        set, else MPI where a launcher of MPI started this process, and otherwise a group of this process alone.
    timeout : float
        Seconds that ranks wait in an exchange for one that does not come to it, before all stop with an error; at least
        1. It must be longer than one rank may take more than another one for a step.

    Returns
    -------
    Group
        With MPI for each process the same number of processes and another rank.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range.
    RuntimeError, ModuleNotFoundError
        If the engine is not installed or does not work here, or the processes can't reach each other; the message says
        what to do.
    """
    checks.choice("engine", engine, ENGINES)
    timeout = float(checks.number("timeout", timeout, least=1.0))
    if engine == "auto":
        engine = "nccl" if nccl.is_launched() and nccl.missing() is None else "mpi" if mpi.is_launched() else "alone"
    if engine == "alone":
        return alone()
    try:
        communicator, local_rank = _by_mpi() if engine == "mpi" else _by_nccl()
        group = Group(communicator, local_rank)
        _watch(group, timeout)
    except BaseException:
        # Other ranks may wait for this one, which would wait for them at the end of the program.
        mpi.abandon()
        raise
    _end_with_program(group)
    return group


def _by_mpi() -> tuple[Communicator, int]:
    communicator = mpi.MPICommunicator()
    count = os.environ.get("WORLD_SIZE", "1")
    if communicator.size == 1 and count.isdecimal() and int(count) > 1:
        raise RuntimeError(
            f"WORLD_SIZE is {count}, but MPI sees one process: start the program with mpiexec -n {count}, or with "
            "srun --mpi=pmix (or pmi2); processes that torchrun started are joined by init('nccl')"
        )
    return communicator, _local_rank(communicator)


def _by_nccl() -> tuple[Communicator, int]:
    problem = nccl.missing()
    if problem is not None:
        raise RuntimeError(f"init('nccl'): {problem}; init('mpi') needs no NCCL")
    import cupy

    absent = [name for name in nccl.ENVIRONMENT if name not in os.environ]
    if len(absent) < len(nccl.ENVIRONMENT) and absent and not mpi.is_launched():
        raise RuntimeError(
            f"init('nccl'): of {', '.join(nccl.ENVIRONMENT)}, which torchrun sets, {absent[0]} is not set"
        )
    devices = cupy.cuda.runtime.getDeviceCount()
    if nccl.is_launched() and not mpi.is_launched():
        rank, size, port = (_number(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
        if not 0 < port < 1 << 16:
            raise RuntimeError(f"MASTER_PORT must be from 1 to 65535, got {port}")
        if not 0 <= rank < size:
            raise RuntimeError(f"RANK must be from 0 to WORLD_SIZE - 1 = {size - 1}, got {rank}")
        local = _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank % max(devices, 1)
        # torchrun listens at its port itself.
        port += "TORCHELASTIC_RUN_ID" in os.environ
        world, address = None, (os.environ["MASTER_ADDR"], port)
    else:
        world, address = mpi.MPICommunicator(), None
        # Launchers such as SLURM's may show each process another GPU.
        gpus = [cupy.cuda.runtime.deviceGetPCIBusId(device) for device in range(devices)]
        rank, size, local = world.rank, world.size, _local_rank(world, gpus)
    problem = None
    if local >= devices:
        problem = (
            f"init('nccl') needs one GPU for each process of a machine: this is process {local}, counted from 0, and "
            f"there are {devices}; start fewer processes, or use init('mpi')"
        )
    problems = [problem] if world is None else Group(world).gather(problem)
    if any(problems):
        raise RuntimeError(next(each for each in problems if each))
    cupy.cuda.Device(local).use()
    return nccl.NCCLCommunicator(rank, size, address, world), local


def _local_rank(communicator: Communicator, gpus: Sequence[str] = ()) -> int:
    """The number of this process among those of its machine, which see the same GPUs."""
    names = Group(communicator).gather((socket.gethostname(), *gpus))
    return names[: communicator.rank].count(names[communicator.rank])


def _number(name: str) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdecimal()):
        raise RuntimeError(f"the environment variable {name} must be a whole number, got {text!r}")
    return int(text)


def _watch(group: Group, timeout: float) -> None:
    """Connect the ranks, so that each hears of the failure of another one."""
    if group.size == 1:
        return
    found: Any = None
    watch, problem = None, None
    if group.is_root:
        token = secrets.token_hex(16)
        try:
            hub = start_hub(group.size, token, timeout)
            # Before all others, so that the hub ends if this process does.
            watch = Watch(0, ["127.0.0.1"], hub.port, token, timeout)
            found = _addresses(), hub.port, token
        except OSError as error:
            problem = f"rank 0: {error}"
    try:
        found = group.of_root(found)
        if found is not None and watch is None:
            hosts, port, token = found
            try:
                watch = Watch(group.rank, hosts, port, token, timeout)
            except OSError as error:
                problem = f"rank {group.rank}: {error}"
        problems = [each for each in group.gather(problem) if each]
        if problems:
            raise RuntimeError(f"the ranks can't watch each other: {'; '.join(problems)}")
    except BaseException:
        if watch is not None:
            watch.leave()
        raise
    assert watch is not None
    group.watched_by(watch)


def _addresses() -> list[str]:
    """Where the hub of this machine may be reached, from other machines and from its own."""
    name = socket.gethostname()
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)]
    except OSError:
        found = []
    return list(dict.fromkeys([*found, name, "127.0.0.1"]))


def _end_with_program(group: Group) -> None:
    """Tell other ranks of an error that ends the program, and end the group with it."""
    before = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        # Ctrl-C reaches all ranks.
        if not isinstance(error, KeyboardInterrupt):
            group.report(error)
        before(kind, error, traceback)

    def end() -> None:
        failed = group.has_failed
        group.close()
        if failed:
            # Time for others to say so: MPI's launcher ends all ranks when one ends with an error.
            time.sleep(LAST_WORDS)
            # Else MPI, or a thread of CUDA, may wait for ranks that never come.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    sys.excepthook = report
    atexit.register(end)
