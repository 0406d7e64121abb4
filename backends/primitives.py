"""The seam between layers and speed.

A layer is written in functions of the standard; where speed asks for more, it asks here, by name, and never learns what
it got: `matmul` into an array that is there, `windows` without a copy, `workspace` that is used again, and `parallel`
for workers. The base class does each with the standard alone and serves any conforming namespace; a backend overrides
what its library can do better.

On them stands one bilinear map, `contract`: windows of an input times a matrix. Its two adjoints are the gradients of a
convolution. Exact numerics overrides the three contractions, because splitting a number commutes with cutting windows
and is kernel-size times cheaper before it.

All work over a batch is cut into blocks by its shape alone: a block's columns stay in a cache, and sums over blocks
have one order, whoever computes them.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf, prod
from typing import Any, ClassVar, TypeAlias

from array_api_compat import device

from ..common.types import Array, Namespace
from . import overrides
from .contractions.windows import Windows
from .engines.numba import Kernels
from .execution.blocks import Block, Pairs, concat_all, cut, even_slices

NOTHING = nullcontext()
#: What kernels there are to a kernel of them.
Compiled: TypeAlias = Callable[[Kernels], Callable[..., None] | None]
# Bytes of temporaries in a block on a GPU: large enough to fill it with each launch.
GPU_BLOCK = 1 << 28
# Most partial sums of a weight gradient, each of its size, that workers make side by side.
LANES = 16


class Primitives:
    """What layers ask for, in functions of the Array API standard.

    Shapes in contractions: input ``x (N, *S, C)``, output ``y (N, *O, F)``, matrix ``w (G, K*C/G, F/G)`` for ``G``
    groups of channels and ``K`` kernel cells, cells varying slower than channels. ``padding`` holds zeros before and
    after each spatial axis, and windows lie in the padded input.

    Parameters
    ----------
    xp : namespace
        The Array API namespace to compute in.
    """

    #: Bytes of temporaries that a block of a batch may take; see `bytes_of_block`.
    block_bytes: ClassVar[int] = 1 << 22
    #: Whether slices and permutations of an array share its memory, so that what is written to them is written to it.
    views: ClassVar[bool] = False
    #: Whether reading a number of an array is as cheap as an operation.
    reads: ClassVar[bool] = False
    #: Whether to start an operation costs so much that few large ones are wanted.
    few_launches: ClassVar[bool] = False
    #: Whether sums of products may be arranged in any way that is mathematically the same.
    free_order: ClassVar[bool] = True

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp
        self._constants: dict[Any, Array] = {}

    @property
    def kernels(self) -> Kernels | None:
        """Compiled kernels, where this library has some; asking loads them."""
        return None

    def prepare(self, operation: str, problem: Any, dtype: str) -> Any:
        """A faster way to compute a whole operation than the array path, as an object with the operation's methods.

        None where there is none for that problem, which says all that the arrays don't, in terms of the operation.
        """
        return None

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``a @ b``, written to ``out`` where that is given."""
        if out is None:
            return self.xp.matmul(a, b)
        out[...] = self.xp.matmul(a, b)
        return out

    def product(self, a: Array, b: Array) -> Array:
        """``a @ b`` of two matrices, which workers may share."""
        return self.matmul(a, b)

    def put_product(self, target: Array, index: tuple[slice | int, ...], a: Array, b: Array) -> None:
        """``target[index] = a @ b``."""
        target[index] = self.matmul(a, b)

    def windows(self, x: Array, windows: Windows) -> Array:
        """Cut ``x (N, *S, C)`` into windows: ``(N, *O, *kernel, C)``, to be read only."""
        cells = self.xp.stack([x[index] for index in windows.slices()], axis=-2)
        return self.xp.reshape(cells, (x.shape[0], *windows.count, *windows.kernel, x.shape[-1]))

    def parallel(self, n: int, work: Callable[[int], None]) -> None:
        """``work(i)`` for ``i`` in ``range(n)``, in any order: each item writes where no other reads or writes."""
        for item in range(n):
            work(item)

    def held(self) -> AbstractContextManager[None]:
        """To be entered around many calls, for what each would otherwise set up and take down by itself."""
        return NOTHING

    def workspace(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        """An array of ``like``'s dtype with anything in it, valid until this thread asks for that name again."""
        return self.xp.empty(shape, dtype=like.dtype, device=device(like))

    def constant(self, make: Callable[[], Array], like: Array, *key: Hashable) -> Array:
        """``make()``, or what an earlier call with this key made on the device of ``like``, to be read only."""
        # A device may have no hash.
        where = (str(device(like)), *key)
        found = self._constants.get(where)
        if found is None:
            found = self._constants[where] = make()
            self.settle()
        return found

    def settle(self) -> None:
        """Wait until what was made is there for all streams of the device."""

    def forget(self) -> None:
        """Make constants anew."""
        self._constants.clear()

    def elementwise(self, function: Callable[..., Array], x: Array, *others: Array) -> Array:
        """``function(x, *others)`` of arrays of one shape, entry by entry; ``function`` gives an array of x's dtype."""
        return function(x, *others)

    def update(self, function: Callable[..., None], *arrays: Array, compiled: Compiled | None = None) -> None:
        """``function(*arrays)``, which writes into arrays of one shape, entry by entry, perhaps part by part.

        ``compiled`` gives a kernel that does the same to vectors of float32, or None.
        """
        function(*arrays)

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        """Arrays side by side along an axis, counted from the front."""
        return concat_all(arrays, axis, self.xp)

    def positive(self, x: Array) -> Array:
        """``max(x, 0)``; NaN stays, -0 becomes 0."""
        return self.xp.where(x <= 0.0, self.xp.zeros((), dtype=x.dtype, device=device(x)), x)

    def clamp(self, x: Array, low: Any = None, high: Any = None) -> Array:
        """``x`` brought into ``[low, high]``, each a number, an array or None; NaN stays."""
        x = x if low is None else self.xp.maximum(x, low)
        return x if high is None else self.xp.minimum(x, high)

    def shared(self, share: Array, x: Array) -> Array:
        """``share * x`` of two arrays of one shape, and 0 where the share is 0, were ``x`` infinite or NaN."""
        return share * self.xp.where(share == 0.0, self.xp.zeros((), dtype=x.dtype, device=device(x)), x)

    def select(self, mask: Array, x: Array) -> Array:
        """``x`` where the mask, broadcast to it, says so, else 0, whatever ``x`` is there: a product would keep NaN."""
        return self.xp.where(mask, x, self.xp.zeros((), dtype=x.dtype, device=device(x)))

    def below(self, x: Array, largest: Array) -> Array:
        """``x - largest``, which is broadcast to it, and 0 where both are infinity."""
        infinite = x == inf
        return self.xp.where(infinite, 0.0, self.select(self.xp.logical_not(infinite), x) - largest)

    def pick(self, x: Array, index: Array) -> Array:
        """``x (N, C, ...)`` at ``index (N, 1, ...)`` along axis 1."""
        return self.xp.take_along_axis(x, index, axis=1)

    def add_at(self, x: Array, index: Array, value: Array | float) -> Array:
        """``x (N, C, ...)`` plus ``value`` at ``index (N, 1, ...)`` along axis 1; ``x`` may be written to.

        The value is a number or an array that is broadcast to the index.
        """
        xp = self.xp
        classes = xp.arange(x.shape[1], dtype=index.dtype, device=device(x))
        chosen = xp.reshape(classes, (1, -1, *(1,) * (x.ndim - 2))) == index
        return x + xp.astype(chosen, x.dtype) * value

    def gate(self, dy: Array, y: Array) -> Array:
        """``dy`` where ``y > 0``, 0 where ``y <= 0``, and NaN where ``y`` is NaN."""
        return self.xp.where(y > 0.0, dy, self.select(self.xp.logical_not(y <= 0.0), y))

    def memory_order(self, x: Array) -> tuple[int, ...] | None:
        """The axes from the one that varies slowest in memory, if they lie there without gaps; None if not known."""
        return None

    def channel_rows(self, x: Array) -> Array | None:
        """``x (N, C, *S)`` as ``(cells, C)``, if its memory lies so and passes over it are dear; else None."""
        return None

    def bytes_of_block(self, like: Array) -> int:
        """Bytes of temporaries that a block of a batch may take where that array is."""
        return overrides.now().block_bytes or self.block_bytes

    def blocks(self, n: int, rows: int, row_bytes: int, like: Array) -> list[Block]:
        """``n`` samples of ``rows`` rows in blocks of about `bytes_of_block` of an array, ``row_bytes`` a row."""
        return cut(n, rows, self.bytes_of_block(like) // max(row_bytes, 1))

    def padded(self, x: Array, padding: Pairs, block: Block, windows: Windows) -> Array:
        """What the windows of a block read of ``x (N, *S, C)`` within its padding; a view where there is none."""
        first, last = block.reach(windows)
        if not any(before or after for before, after in padding):
            return x[(block.samples, slice(first, last), ...)]
        before, size = padding[0][0], x.shape[1]
        inside = [slice(min(max(before - first, 0), last - first), max(min(before + size, last) - first, 0))]
        source = [slice(min(max(first - before, 0), size), min(max(last - before, 0), size))]
        shape = [block.count, last - first]
        for n, (low, high) in zip(x.shape[2:-1], padding[1:], strict=True):
            shape.append(low + n + high)
            inside.append(slice(low, low + n))
            source.append(slice(None))
        strip = self.workspace("padded", (*shape, x.shape[-1]), x)
        before_it: tuple[slice, ...] = ()
        for axis, part in enumerate(inside, start=1):
            strip[(slice(None), *before_it, slice(0, part.start), ...)] = 0.0
            strip[(slice(None), *before_it, slice(part.stop, shape[axis]), ...)] = 0.0
            before_it += (part,)
        strip[(slice(None), *inside, slice(None))] = x[(block.samples, *source, slice(None))]
        return strip

    def contract(self, x: Array, w: Array, windows: Windows, padding: Pairs = (), bias: Array | None = None) -> Array:
        """Windows of ``x`` times ``w``: ``y[n,o,g,f] = sum_kc x[n, o*stride + k*dilation, g, c] w[g, kc, f]``."""
        xp = self.xp
        groups, depth, features = w.shape
        n, cells, row_cells = x.shape[0], prod(windows.count), prod(windows.count[1:])
        y = xp.empty((n * cells, groups, features), dtype=x.dtype, device=device(x))
        blocks = self.blocks(n, windows.count[0], 4 * row_cells * groups * depth, x)

        def work(i: int) -> None:
            block = blocks[i]
            first = block.samples.start * cells + block.rows.start * row_cells
            last = (block.samples.stop - 1) * cells + block.rows.stop * row_cells
            columns = self._columns(x, padding, block, windows, groups)
            if groups == 1:
                self.put_product(y, (slice(first, last), 0, slice(None)), columns[0, ...], w[0, ...])
            else:
                y[first:last, ...] = xp.permute_dims(self.matmul(columns, w), (1, 0, 2))
            if bias is not None:
                y[first:last, ...] += xp.reshape(bias, (groups, features))

        self.parallel(len(blocks) if n else 0, work)
        return xp.reshape(y, (n, *windows.count, groups * features))

    def contract_input_gradient(
        self, dy: Array, w: Array, windows: Windows, shape: tuple[int, ...], padding: Pairs = ()
    ) -> Array:
        """Adjoint of `contract` in ``x``: each window's share of ``dy`` added back where it was read.

        ``shape`` is that of ``x``; cells that no window reads get 0.
        """
        xp = self.xp
        groups, channels = w.shape[0], shape[-1]
        adjoint = xp.matrix_transpose(w)
        padding = padding or ((0, 0),) * len(windows.count)
        wide = tuple(low + n + high for n, (low, high) in zip(shape[1:-1], padding, strict=True))
        inside = tuple(slice(low, low + n) for n, (low, _) in zip(shape[1:-1], padding, strict=True))
        dx = xp.empty(shape, dtype=dy.dtype, device=device(dy))
        blocks = self.blocks(shape[0], 1, 4 * prod(windows.count) * windows.cells * channels, dy)

        def work(i: int) -> None:
            samples = blocks[i].samples
            n = samples.stop - samples.start
            rows = self._rows(dy[samples, ...], groups)
            if groups == 1:
                columns = self.workspace("columns", (rows.shape[1], adjoint.shape[-1]), dy)
                columns = self.matmul(rows[0, ...], adjoint[0, ...], columns)
            else:
                columns = self.workspace("columns", (groups, rows.shape[1], adjoint.shape[-1]), dy)
                columns = self._join_groups_in_cells(self.matmul(rows, adjoint, columns), windows.cells)
            columns = xp.reshape(columns, (n, *windows.count, windows.cells, channels))
            sums = self.workspace("padded", (n, *wide, channels), dy)
            sums[...] = 0.0
            for k, index in enumerate(windows.slices()):
                sums[index] += columns[..., k, :]
            dx[samples, ...] = sums[(slice(None), *inside, slice(None))]

        self.parallel(len(blocks), work)
        return dx

    def contract_weight_gradient(
        self, x: Array, dy: Array, windows: Windows, groups: int, padding: Pairs = ()
    ) -> Array:
        """Adjoint of `contract` in ``w``: columns of ``x`` times ``dy``, summed over windows and batch."""
        depth, features = windows.cells * x.shape[-1] // groups, dy.shape[-1] // groups
        if groups == 1 and 4 * depth * features > self.bytes_of_block(x):
            return self._weight_gradient_by_columns(x, dy, windows, padding)
        xp = self.xp
        n, row_cells = x.shape[0], prod(windows.count[1:])
        blocks = self.blocks(n, windows.count[0], 4 * row_cells * groups * depth, x)
        lanes = even_slices(len(blocks), min(len(blocks), LANES))
        parts = xp.empty((len(lanes), groups, depth, features), dtype=x.dtype, device=device(x))

        shape = (depth, features) if groups == 1 else (groups, depth, features)

        def work(lane: int) -> None:
            total = None
            for j in range(lanes[lane].start, lanes[lane].stop):
                columns = self._columns(x, padding, blocks[j], windows, groups)
                rows = self._rows(dy[(blocks[j].samples, blocks[j].rows, ...)], groups)
                part = self.workspace("sums" if total is None else "more", shape, x)
                if groups == 1:
                    self.contract_rows(columns[0, ...], rows[0, ...], part)
                else:
                    self.matmul(xp.matrix_transpose(columns), rows, part)
                if total is None:
                    total = part
                else:
                    total += part
            parts[lane, ...] = xp.reshape(total, (groups, depth, features))

        self.parallel(len(lanes), work)
        return in_order(parts)

    def _weight_gradient_by_columns(self, x: Array, dy: Array, windows: Windows, padding: Pairs) -> Array:
        """`contract_weight_gradient` of one group where the matrix is large: workers share its rows, not the batch."""
        xp = self.xp
        n, cells, features = x.shape[0], prod(windows.count), dy.shape[-1]
        depth = windows.cells * x.shape[-1]
        dw = xp.zeros((1, depth, features), dtype=x.dtype, device=device(x))
        chunks = even_slices(depth, -(-depth // 256))
        size = max(1, 8 * self.bytes_of_block(x) // max(1, 4 * cells * depth))
        for samples in even_slices(n, -(-n // size)) if n else []:
            count = samples.stop - samples.start
            columns = self.workspace("all columns", (count * cells, depth), x)
            blocks = self.blocks(count, 1, 4 * cells * depth, x)
            rows = self._rows(dy[samples, ...], 1)[0, ...]

            def fill(
                i: int, first: int = samples.start, columns: Array = columns, blocks: list[Block] = blocks
            ) -> None:
                part = blocks[i].samples
                block = Block(slice(first + part.start, first + part.stop), slice(0, windows.count[0]))
                found = self._columns(x, padding, block, windows, 1)
                columns[part.start * cells : part.stop * cells, :] = found[0, ...]

            def work(i: int, first: int = samples.start, columns: Array = columns, rows: Array = rows) -> None:
                left = xp.matrix_transpose(columns[:, chunks[i]])
                if first == 0:
                    self.put_product(dw, (0, chunks[i], slice(None)), left, rows)
                else:
                    dw[0, chunks[i], :] += self.matmul(left, rows)

            self.parallel(len(blocks), fill)
            self.parallel(len(chunks), work)
        return dw

    def contract_rows(self, x: Array, dy: Array, out: Array | None = None) -> Array:
        """``x (R, A)`` transposed times ``dy (R, B)``: a sum over rows, which are those of the batch."""
        x = self.xp.matrix_transpose(x)
        return self.product(x, dy) if out is None else self.matmul(x, dy, out)

    def sum_rows(self, x: Array) -> Array:
        """Sum of ``x (R, A)`` over its rows: ``(A,)``."""
        return self.xp.sum(x, axis=0)

    def total(self, x: Array, axes: tuple[int, ...]) -> Array:
        """Sum over axes, which stay with size 1: within each sample first, then over the samples.

        Libraries add up the rows of a channels-last array one after the other, and the rounding error grows with their
        number: in float32 the mean of 128 samples of 32 x 32 cells around 10 is wrong by 1.3e-4 in one step and by
        7e-6 in two, in the same time.
        """
        xp, within = self.xp, tuple(axis for axis in axes if axis)
        if within:
            x = xp.sum(x, axis=within, keepdims=True)
        return xp.sum(x, axis=0, keepdims=True) if 0 in axes else x

    def _columns(self, x: Array, padding: Pairs, block: Block, windows: Windows, groups: int) -> Array:
        """The im2col matrix of each group for a block, ``(G, n*O, K*C/G)``."""
        xp, channels = self.xp, x.shape[-1] // groups
        cells = self.windows(self.padded(x, padding, block, windows), block.windows(windows))
        rows = prod(cells.shape[: 1 + len(windows.count)])
        if groups > 1:
            cells = xp.moveaxis(xp.reshape(cells, (*cells.shape[:-1], groups, channels)), -2, 0)
        return self.flat(cells, (groups, rows, windows.cells * channels))

    def flat(self, x: Array, shape: tuple[int, ...], name: str = "columns") -> Array:
        """``x`` in another shape and in one piece of memory, to be read only, until this thread asks for that name."""
        return self.xp.reshape(x, shape)

    def _rows(self, y: Array, groups: int) -> Array:
        """``(N, *O, G*F)`` to ``(G, N*O, F)``."""
        rows, features = prod(y.shape[:-1]), y.shape[-1]
        split = self.xp.reshape(y, (rows, groups, features // groups))
        return self.xp.permute_dims(split, (1, 0, 2))

    def _join_groups_in_cells(self, parts: Array, cells: int) -> Array:
        """``(G, M, K*C/G)`` to ``(M, K, C)``."""
        groups, rows, depth = parts.shape
        channels = depth // cells
        split = self.xp.reshape(parts, (groups, rows, cells, channels))
        return self.xp.reshape(self.xp.permute_dims(split, (1, 2, 0, 3)), (rows, cells, groups * channels))


def in_order(parts: Array) -> Array:
    """Sum over the first axis, one after the other, into its first entry."""
    total = parts[0, ...]
    for i in range(1, parts.shape[0]):
        total += parts[i, ...]
    return total
