"""The processes that train one model together."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar
from zlib import crc32

import numpy as np

from ..backends import backend_of, to_host
from ..common import checks
from ..common.types import Array, dtype_name
from .buffers import floats_in_order, from_buffer, in_order_of_floats, to_buffer
from .communicator import Communicator, Pending, Reduction
from .errors import RankError, RanksDiffer
from .exchanges import Exchanges, Traffic
from .watching.watch import Watch

T = TypeVar("T")


class Group:
    """Processes that call the same functions of this object in the same order; made by `init`.

    Attributes
    ----------
    rank : int
        The number of this process, from 0 to ``size - 1``. Rank 0 writes files and shows progress.
    size : int
        Number of processes.
    local_rank : int
        The number of this process among those of its machine, by which it chooses a GPU.
    description : str
        What connects them, such as ``MPI (MPICH 5.0.2 ...)``.

    Raises
    ------
    RankError
        From any exchange, if another rank died, hangs or raised an error.
    """

    def __init__(self, communicator: Communicator, local_rank: int = 0) -> None:
        self._exchanges = Exchanges(communicator)
        self.rank, self.size, self.local_rank = communicator.rank, communicator.size, local_rank
        self.description = communicator.description
        # A checksum of the shapes that were reduced since the ranks last agreed.
        self._order = 0

    def watched_by(self, watch: Watch) -> None:
        """Raise errors of other ranks from now on."""
        self._exchanges.watch = watch

    def advise(self, text: str) -> None:
        """Set what the line that names a failed rank ends with, such as how to go on."""
        if self._exchanges.watch is not None:
            self._exchanges.watch.advise(text)

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def traffic(self) -> Traffic:
        """What this rank has exchanged so far, and the seconds for which it waited."""
        return self._exchanges.traffic

    def device(self, backend: str) -> str:
        """The spec of this process's own device: ``cupy`` becomes ``cupy:0``, ``cupy:1`` ... by the local rank.

        Other specs are returned unchanged. With more processes than GPUs some share one.
        """
        if backend not in ("cupy", "torch-cuda"):
            return backend
        import cupy

        return f"{backend}:{self.local_rank % max(cupy.cuda.runtime.getDeviceCount(), 1)}"

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        if self.size > 1:
            self._exchanges.all_reduce(np.zeros(1, "int32"), "sum")

    def all_reduce(self, array: Array, op: Reduction = "sum") -> Array:
        """The sum, or the largest, of the arrays of all ranks, entry by entry; the same bits on all ranks.

        Parameters
        ----------
        array : array
            Of any backend, with the same shape and dtype on all ranks: floats or integers. It is not changed.
        op : {"sum", "max"}
            With ``"max"`` NaN wins.

        Returns
        -------
        array
            New, of the array's backend.
        """
        checks.choice("op", op, ("sum", "max"))
        buffer, name = to_buffer(array), dtype_name(array.dtype)
        if self.size > 1:
            self._order = crc32(f"{op} {name} {tuple(array.shape)}".encode(), self._order)
            if op == "max" and name.startswith("float"):
                ordered = in_order_of_floats(buffer)
                self._exchanges.all_reduce(ordered, "max")
                buffer = floats_in_order(ordered, buffer.dtype)
            else:
                self._exchanges.all_reduce(buffer, op)
        return from_buffer(buffer, array)

    def broadcast(self, array: Array, root: int = 0) -> Array:
        """The array of rank ``root``, on all ranks; theirs have its shape and dtype.

        Returns
        -------
        array
            New, of the backend of the rank's own array.
        """
        root = checks.integer("root", root, 0, self.size - 1)
        buffer = to_buffer(array)
        if self.size > 1:
            self._exchanges.broadcast(buffer, root)
        return from_buffer(buffer, array)

    def all_gather(self, array: Array) -> Array:
        """The arrays of all ranks, one after another along axis 0; they may differ in that size only.

        Returns
        -------
        array
            New, of the array's backend.
        """
        if self.size == 1:
            return from_buffer(to_buffer(array), array)
        parts = self.gather(np.asarray(to_host(array)))
        return backend_of(array).asarray(np.concatenate(parts), dtype_name(array.dtype))

    def add(self, *numbers: float) -> list[float]:
        """The sums of numbers of all ranks."""
        found: list[float] = self.all_reduce(np.array(numbers, "float64")).tolist()
        return found

    def largest(self, *numbers: int) -> list[int]:
        """The largest of whole numbers of all ranks."""
        found: list[int] = self.all_reduce(np.array(numbers, "int64"), "max").tolist()
        return found

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in order of rank, on each: any objects that can be pickled."""
        if self.size == 1:
            return [value]
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.zeros(self.size, "int64")
        sizes[self.rank] = data.size
        self._exchanges.all_reduce(sizes, "sum")
        if sizes[self.rank] != data.size or (sizes <= 0).any():
            # No rank can gather less than a byte: this was added to something else.
            raise RankError(None, "the ranks are in different exchanges; all must call the same functions of a group")
        ends = np.cumsum(sizes)
        every = np.zeros(int(ends[-1]), np.uint8)
        every[ends[self.rank] - data.size : ends[self.rank]] = data
        self._exchanges.all_reduce(every, "sum")
        return [pickle.loads(every[end - size : end].tobytes()) for size, end in zip(sizes, ends, strict=True)]

    def of_root(self, value: T) -> T:
        """The value of rank 0, on all ranks: any object that can be pickled."""
        if self.size == 1:
            return value
        data = np.frombuffer(pickle.dumps(value) if self.is_root else b"", np.uint8)
        size = np.array([data.size], "int64")
        self._exchanges.broadcast(size, 0)
        buffer = data.copy() if self.is_root else np.empty(int(size[0]), np.uint8)
        self._exchanges.broadcast(buffer, 0)
        found: T = value if self.is_root else pickle.loads(buffer.tobytes())
        return found

    def agree(self, *flags: bool) -> list[bool]:
        """Whether any rank sets each flag.

        Raises
        ------
        RankError
            If the ranks have not reduced arrays of the same shapes in the same order since the last time.
        """
        if self.size == 1:
            return list(flags)
        found = np.array([*flags, self._order, -self._order], "int64")
        self._order = 0
        self._exchanges.all_reduce(found, "max")
        if found[-1] != -found[-2]:
            raise RankError(
                None,
                "the ranks computed different sums; with a group a layer or loss must compute the same sums over "
                "the batch whatever its part holds",
            )
        return [bool(each) for each in found[: len(flags)]]

    def start(self, buffer: Any) -> Pending:
        """Start to replace a buffer, one-dimensional and contiguous, by its sum over all ranks; see `finish`."""
        return self._exchanges.start(buffer)

    def advance(self) -> None:
        """Let exchanges that were started go on; MPI does so only while it is called."""
        self._exchanges.advance()

    def finish(self, pending: Pending) -> None:
        """Wait for an exchange; a device waits by itself."""
        self._exchanges.finish(pending)

    @contextmanager
    def allowing(self, seconds: float) -> Iterator[None]:
        """Within the block, other ranks wait for this one for so many seconds more than the timeout."""
        if self._exchanges.watch is None:
            yield
            return
        with self._exchanges.watch.allowing(seconds):
            yield

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Tell the other ranks of an error that leaves the block, so that they stop too."""
        try:
            yield
        except RanksDiffer:
            # All ranks raise it.
            raise
        except Exception as error:
            self.report(error)
            raise

    def report(self, error: BaseException) -> None:
        """Tell the other ranks of the error with which this one ends."""
        if isinstance(error, RankError):
            # Unless they were told before.
            self.fail(str(error), is_at_fault=False)
        else:
            what = f"raised {type(error).__name__}"
            self.fail(f"{what}: {error}" if str(error) else what)

    def fail(self, text: str, *, is_at_fault: bool = True) -> None:
        """Tell the other ranks that this one can't go on, for example because it ``raised ValueError: ...``.

        Parameters
        ----------
        text : str
            Its first line is told.
        is_at_fault : bool
            Whether this rank is to be named, or none.
        """
        if self.size == 1:
            return
        self._exchanges.has_failed = True
        if self._exchanges.watch is not None:
            first, _, rest = text.partition("\n")
            self._exchanges.watch.fail(f"{first} ..." if rest else first, is_at_fault)

    @property
    def has_failed(self) -> bool:
        """Whether this rank or another one has failed, so that there can be no more exchanges."""
        return self._exchanges.has_failed or (
            self._exchanges.watch is not None and self._exchanges.watch.failure is not None
        )

    def close(self) -> None:
        """End the group, when all ranks call this; at the end of a program it is called for you."""
        if self._exchanges.is_closed:
            return
        self._exchanges.is_closed, failed = True, self.has_failed
        if self._exchanges.watch is not None:
            self._exchanges.watch.leave()
        self._exchanges.communicator.close(failed=failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.report(error)
        self.close()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        # Copies of a layer that was made with a group use the same connections.
        return self

    def __reduce__(self) -> Any:
        # Another program has another group, or none.
        return _no_group, ()

    def __repr__(self) -> str:
        return f"Group(rank={self.rank}, size={self.size}, {self.description})"


def _no_group() -> None:
    """What a pickled group is where it is read."""
