"""Copies into the memory layouts of convolutions: padded inputs with channels last, weights as matrices."""

from typing import Any

from ....common.types import Array
from ...recording.calls import empty
from .bound import Bound
from .compiler import helper
from .convolution_sizes import (
    AXIS_STEP,
    BEFORE,
    CHANNEL_STEP,
    CHANNELS,
    INPUT,
    SAMPLE_STEP,
    ConvolutionProblem,
    Sizes,
    flat_with_strides,
    weight_strides,
)
from .jobs import INT, job, read, write
from .memory import clear_run, copy_run
from .pool import perform

# Entries that an item copies.
ENTRIES = 1 << 15
# Features that are copied side by side, each from a run of its own.
SIDE_BY_SIDE = 16


@helper
def pad_rows(x: Any, g: Any, sample: Any, samples: Any, row: Any, rows: Any, width: Any, depth: Any, out: Any) -> None:
    """Copy rows of the first axis, from ``row`` on in the padded input, of some samples to ``out``.

    ``out (samples * rows * width * depth * C,)`` has channels last; ``width`` and ``depth`` are the sizes of the second
    and third axis with their padding. Cells outside ``x`` are 0.
    """
    number, size = out.dtype.type(0), out.itemsize
    channels, step = g[CHANNELS], g[CHANNEL_STEP]
    along, height, middle, length = g[AXIS_STEP + 2], g[INPUT], g[INPUT + 1], g[INPUT + 2]
    before, after = g[BEFORE + 2] * channels, (depth - length - g[BEFORE + 2]) * channels
    run, to = length * channels, out.ctypes.data + 0
    for n in range(sample, sample + samples):
        for i0 in range(row - g[BEFORE], row - g[BEFORE] + rows):
            for i1 in range(-g[BEFORE + 1], width - g[BEFORE + 1]):
                if i0 < 0 or i0 >= height or i1 < 0 or i1 >= middle:
                    clear_run(to, depth * channels, number)
                    to += size * depth * channels
                    continue
                clear_run(to, before, number)
                to += size * before
                start = n * g[SAMPLE_STEP] + i0 * g[AXIS_STEP] + i1 * g[AXIS_STEP + 1]
                if step == 1 and along == channels:
                    copy_run(to, x.ctypes.data + size * start, run, number)
                else:
                    cells = out[(to - out.ctypes.data) // size :]
                    for c in range(channels):
                        source = x[start + c * step :]
                        for i in range(length):
                            cells[i * channels + c] = source[i * along]
                to += size * run
                clear_run(to, after, number)
                to += size * after


@job(read(1), read(1, "int64"), INT, write(2))
def _lay(item: Any, x: Any, g: Any, group: Any, out: Any) -> None:
    """Copy an input with channels last, without padding: ``out (N, *S*C)``."""
    for sample in range(item * group, min((item + 1) * group, out.shape[0])):
        pad_rows(x, g, sample, 1, 0, g[INPUT], g[INPUT + 1], g[INPUT + 2], out[sample])


@job(read(1), read(1, "int64"), INT, INT, INT, INT, write(2))
def lay_padded(item: Any, x: Any, g: Any, rows: Any, height: Any, width: Any, depth: Any, out: Any) -> None:
    """Copy an input to ``out (N * height, width * depth * C)`` with zeros around it; an item copies ``rows`` rows."""
    parts = -(-height // rows)
    sample, first = item // parts, item % parts * rows
    last = min(first + rows, height)
    to = out[sample * height + first : sample * height + last].reshape(-1)
    pad_rows(x, g, sample, 1, first, last - first, width, depth, to)


@job(read(1), INT, INT, INT, INT, INT, INT, write(2))
def _pack(
    item: Any,
    numbers: Any,
    first: Any,
    cell_step: Any,
    channel_step: Any,
    step: Any,
    channels: Any,
    panel: Any,
    out: Any,
) -> None:
    """Copy a weight to ``out (K*C, F)``, in panels of ``panel`` features: an item copies some rows."""
    depth, features = out.shape
    rows, entries = max(1, ENTRIES // features), out.reshape(-1)
    for block in range(0, features, SIDE_BY_SIDE):
        end, place = min(block + SIDE_BY_SIDE, features), block - block % panel
        width = min(panel, features - place)
        for d in range(item * rows, min((item + 1) * rows, depth)):
            start = first + d // channels * cell_step + d % channels * channel_step
            row, source = entries[place * depth + d * width + block % panel :], numbers[start + block * step :]
            for f in range(end - block):
                row[f] = source[f * step]


def matrix_of(weight: Array, problem: ConvolutionProblem, panel: int = 0) -> tuple[Array, Bound | None]:
    """``weight`` as a contiguous ``(K*C/G, F)`` for the features of all groups, and the job that copies it, if any.

    With ``panel``, a multiple of `SIDE_BY_SIDE`, its memory holds one matrix ``(K*C/G, panel)`` after another, each of
    as many features; the last has those that are left. A product with one of them reads memory from end to end.
    """
    numbers, first, (cell, channel, step) = weight_strides(weight, problem)
    cells, features = problem.windows.cells, problem.features
    channels = problem.channels // problem.groups
    is_matrix = step == 1 and (channel == features or channels == 1) and (cell == channels * features or cells == 1)
    panel = panel if 0 < panel < features else features
    if is_matrix and not first and panel == features:
        return numbers.reshape(cells * channels, features), None
    out = empty((cells * channels, features), weight.dtype)
    if not out.size:
        return out, None
    items = -(-len(out) // max(1, ENTRIES // features))
    return out, _pack.bind(items, numbers, first, cell, channel, step, channels, max(1, panel), out)


def pack(weight: Array, problem: ConvolutionProblem, panel: int = 0) -> Array | None:
    """`matrix_of` a weight, computed; None if the weight is that matrix already, which must not be kept."""
    matrix, copying = matrix_of(weight, problem, panel)
    if copying is None:
        return None
    perform(copying)
    return matrix


def laid(x: Array, sizes: Sizes) -> tuple[Array, Bound | None]:
    """``x (N, *S, C)`` as a contiguous vector, and the job that copies it, if any."""
    if x.flags.c_contiguous and x.flags.aligned:
        return x.reshape(-1), None
    flat, strides = flat_with_strides(x, sizes)
    if strides == sizes.contiguous_strides:
        return flat, None
    out = empty((sizes.samples, sizes.contiguous_strides[0]), x.dtype)
    group = max(1, ENTRIES // max(1, out.shape[1]))
    return out.reshape(-1), _lay.bind(-(-len(out) // group), flat, sizes.unpadded.table(strides), group, out)
