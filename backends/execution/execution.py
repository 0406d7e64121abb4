"""How work runs on a device: on worker threads, block by block, in reused memory, or by compiled kernels.

The base class uses functions of the standard only and computes one item after another. Overridden for a library:
`xpnn.backends.cpu.execution` (threads), `xpnn.backends.cuda.operations` (few launches, CUDA kernels).

A batch is cut into blocks whose temporaries fit into a cache. How it is cut depends on its shape only, so the sum over
blocks has the same order of additions for every number of workers.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from array_api_compat import device

from ...common.types import Array, Namespace
from ..overrides import chosen
from ..recording.calls import suspended
from .blocks import Block, cut_batch

# Bytes of temporaries in a block on a GPU: large enough to fill it with each launch.
GPU_BLOCK = 1 << 28
_NOTHING = nullcontext()


class Execution:
    """Workers, blocks, memory and optional engines of one array namespace.

    Parameters
    ----------
    xp : namespace
        The Array API namespace to compute in.
    """

    #: Bytes of temporaries that a block of a batch may use; see `bytes_of_block`.
    block_bytes: ClassVar[int] = 1 << 22
    #: Whether slices and permutations of an array share its memory, so that writing into them writes into the array.
    views: ClassVar[bool] = False
    #: Whether reading a number from an array on the host costs no more than an operation.
    cheap_reads: ClassVar[bool] = False
    #: Whether starting an operation is so expensive that few large ones are better.
    few_launches: ClassVar[bool] = False

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp
        self._constants: dict[Any, Array] = {}

    def prepare(self, operation: str, problem: Any, dtype: str) -> Any:
        """An engine's object that computes a whole operation; None if array functions must compute it.

        It has the operation's methods. ``problem`` holds all parameters of the operation besides its arrays.
        """
        return None

    def find_kernels(self) -> str:
        """Load compiled kernels if they are enabled; returns whose they are: ``"numba"``, ``"cuda"`` or ``""``."""
        return ""

    def parallel(self, n: int, work: Callable[[int], None]) -> None:
        """``work(i)`` for ``i`` in ``range(n)``, in any order: each item writes where no other reads or writes."""
        for item in range(n):
            work(item)

    def setup_once(self) -> AbstractContextManager[None]:
        """A context to enter around many calls, so that what each of them sets up is set up once."""
        return _NOTHING

    def bytes_of_block(self, like: Array) -> int:
        """Bytes of temporaries that a block of a batch may use on the device of that array."""
        return chosen().block_bytes or self.block_bytes

    def blocks(self, n: int, rows: int, row_bytes: int, like: Array) -> list[Block]:
        """``n`` samples of ``rows`` rows in blocks of about `bytes_of_block` of an array, ``row_bytes`` a row."""
        return cut_batch(n, rows, self.bytes_of_block(like) // max(row_bytes, 1))

    def workspace(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        """An uninitialised array of ``like``'s dtype, valid until this thread requests the same name again."""
        return self.xp.empty(shape, dtype=like.dtype, device=device(like))

    def free_workspaces(self) -> None:
        """Free what `workspace` keeps for reuse."""

    def flat(self, x: Array, shape: tuple[int, ...], name: str = "columns") -> Array:
        """``x`` in another shape and contiguous, to be read only; it may be the workspace of that name."""
        return self.xp.reshape(x, shape)

    def constant(self, make: Callable[[], Array], like: Array, *key: Hashable) -> Array:
        """``make()``, or what an earlier call with this key made on the device of ``like``, to be read only."""
        # A device may have no hash.
        where = (str(device(like)), *key)
        found = self._constants.get(where)
        if found is None:
            with suspended():
                found = self._constants[where] = make()
            self.synchronize()
        return found

    def synchronize(self) -> None:
        """Wait until all streams of the device can read what this one has computed."""

    def clear_constants(self) -> None:
        """Delete all constants; they are made again on the next use."""
        self._constants.clear()

    def memory_order(self, x: Array) -> tuple[int, ...] | None:
        """The axes from the slowest to the fastest in memory, if ``x`` has no gaps; None if it has, or if unknown."""
        return None

    def channel_rows(self, x: Array) -> Array | None:
        """``x (N, C, *S)`` as a view ``(cells, C)``, if it is stored so and passes over it are expensive; else None."""
        return None
