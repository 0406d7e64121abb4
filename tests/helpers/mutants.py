"""Mistakes to plant in the library one by one: what the parity catalogue must notice.

Each names its module, the text it replaces, and the cases that touch it, as a regular expression matched at the start
of their names. It must be noticed in its dtype: where float32 is too coarse to show a wrong digit, float64 shows it.
All compute quietly, so it is the tolerances that notice, not an exception.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    words: str
    old: str
    new: str
    cases: str
    dtype: str = "float32"


def cut(value: str, bits: int) -> str:
    """An expression that rounds a float32 value to so many bits (T. Dekker's splitting): TF32 keeps 11, bfloat16 8."""
    factor = 2.0 ** (24 - bits) + 1.0
    return f"({value} * {factor} - ({value} * {factor} - {value}))"


def half(value: str) -> str:
    """An expression that rounds a value to float16 and back."""
    return f"xp.astype(xp.astype({value}, xp.float16), xp.float32)"


COLUMNS = "columns[0, ...], w[0, ...])"
ROWS = "self.contract_rows(columns[0, ...], rows[0, ...], part)"
ADDED = "sums[index] += columns[..., k, :]"
BIASED = "            if bias is not None:\n                y[first:last"
PRIMITIVES = (
    Mutant(
        "channels of the groups are mixed",
        "xp.moveaxis(xp.reshape(cells, (*cells.shape[:-1], groups, channels)), -2, 0)",
        "xp.moveaxis(xp.reshape(cells, (*cells.shape[:-1], channels, groups)), -1, 0)",
        "Conv[12]d/groups",
    ),
    Mutant(
        "upstream features of the groups are mixed",
        "split = self.xp.reshape(y, (rows, groups, features // groups))",
        "split = self.xp.permute_dims(self.xp.reshape(y, (rows, features // groups, groups)), (0, 2, 1))",
        "Conv[12]d/groups",
    ),
    Mutant(
        "output features of the groups are mixed",
        "= xp.permute_dims(self.matmul(columns, w), (1, 0, 2))",
        "= xp.reshape(xp.permute_dims(self.matmul(columns, w), (1, 2, 0)), (-1, groups, features))",
        "Conv[12]d/groups",
    ),
    Mutant(
        "channels of the groups are mixed in dx",
        "(1, 2, 0, 3)",
        "(1, 2, 3, 0)",
        "Conv[12]d/groups",
    ),
    Mutant(
        "last window is left out of dweight",
        ROWS,
        ROWS.replace("[0, ...]", "[0, :-1, :]"),
        "Conv2d/(plain|valid)",
    ),
    Mutant(
        "last sample is left out of dweight",
        ROWS,
        "k = columns.shape[1] - columns.shape[1] // x.shape[0]\n"
        "                    self.contract_rows(columns[0, :k, :], rows[0, :k, :], part)",
        "Conv2d/(plain|valid)",
    ),
    Mutant(
        "dweight of the last block only",
        "total += parts[i, ...]",
        "total = parts[i, ...]",
        "Conv2d/(batch|40 channels)",
    ),
    Mutant(
        "dweight of a large matrix is that of its first rows",
        "left = xp.matrix_transpose(columns[:, chunks[i]])",
        "left = xp.matrix_transpose(columns[:, : chunks[i].stop - chunks[i].start])",
        "Conv2d/120 channels",
    ),
    Mutant("overlapping windows overwrite each other in dx", ADDED, ADDED.replace("+=", "="), "Conv2d/same, stride 2"),
    Mutant(
        "kernel is rotated in dx",
        ADDED,
        "sums[index] += columns[..., windows.cells - 1 - k, :]",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "kernel is not rotated in a transposed convolution",
        ADDED,
        "sums[index] += columns[..., windows.cells - 1 - k, :]",
        "ConvTranspose2d/plain",
    ),
    Mutant(
        "last kernel cell is left out of dx",
        "enumerate(windows.slices()):",
        "list(enumerate(windows.slices()))[:-1]:",
        "Conv2d/same, stride 2",
    ),
    Mutant("sums of dx start with what is left there", "sums[...] = 0.0", "pass", "Conv2d/same, stride 2"),
    *(
        Mutant(
            f"convolution rounds its input to {bits} bits",
            COLUMNS,
            COLUMNS.replace("columns[0, ...]", cut("columns[0, ...]", bits)),
            "Conv2d/",
        )
        for bits in (8, 11, 13, 16)
    ),
    *(
        Mutant(
            f"convolution rounds its weight to {bits} bits",
            COLUMNS,
            COLUMNS.replace("w[0, ...]", cut("w[0, ...]", bits)),
            "Conv[23]d/",
        )
        for bits in (8, 11, 13)
    ),
    Mutant(
        "convolution rounds its sums to 16 bits",
        BIASED,
        f"            y[first:last, ...] = {cut('y[first:last, ...]', 16)}\n{BIASED}",
        "Conv2d/",
    ),
    Mutant(
        "convolution rounds its sums to float16",
        BIASED,
        f"            y[first:last, ...] = {half('y[first:last, ...]')}\n{BIASED}",
        "Conv2d/plain",
    ),
    Mutant(
        "bias is forgotten by columns",
        "y[first:last, ...] += xp.reshape(bias, (groups, features))",
        "pass",
        "Conv2d/plain",
    ),
    Mutant(
        "bias of the groups is mixed",
        "+= xp.reshape(bias, (groups, features))",
        "+= xp.matrix_transpose(xp.reshape(bias, (features, groups)))",
        "Conv[12]d/groups",
    ),
    Mutant(
        "dx rounds the weight to 11 bits",
        "adjoint = xp.matrix_transpose(w)",
        f"adjoint = xp.matrix_transpose({cut('w', 11)})",
        "Conv2d/",
    ),
    Mutant(
        "dx adds up in 13 bits",
        ADDED,
        f"sums[index] = (lambda s: {cut('s', 13)})(sums[index] + columns[..., k, :])",
        "Conv2d/",
    ),
    *(
        Mutant(
            f"dweight rounds the columns to {bits} bits",
            ROWS,
            ROWS.replace("columns[0, ...]", cut("columns[0, ...]", bits)),
            "Conv2d/",
        )
        for bits in (11, 13)
    ),
    Mutant(
        "dx is float64 for float32",
        "dx = xp.empty(shape, dtype=dy.dtype,",
        "dx = xp.empty(shape, dtype=xp.float64,",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "convolution computes float64 in float32",
        COLUMNS,
        "xp.astype(columns[0, ...], xp.float32), xp.astype(w[0, ...], xp.float32))",
        "Conv2d/",
        "float64",
    ),
    Mutant(
        "blocks of the batch are joined in the wrong order",
        "columns = self._columns(x, padding, block, windows, groups)",
        "columns = self._columns(x, padding, blocks[-1 - i], windows, groups)",
        "Conv2d/batch in two blocks, stride 2",
    ),
    Mutant(
        "blocks of the batch are joined in the wrong order in dx",
        "dx[samples, ...] = sums",
        "dx[blocks[-1 - i].samples, ...] = sums",
        "Conv2d/batch in two blocks, stride 2",
    ),
    Mutant(
        "blocks of the batch meet the wrong upstream gradient in dweight",
        "rows = self._rows(dy[(blocks[j].samples, blocks[j].rows, ...)], groups)",
        "rows = self._rows(dy[(blocks[-1 - j].samples, blocks[j].rows, ...)], groups)",
        "Conv2d/batch in two blocks, stride 2",
    ),
    Mutant(
        "padding goes to the other end of the first axis",
        "before, size = padding[0][0], x.shape[1]",
        "before, size = padding[0][1], x.shape[1]",
        "Conv2d/asymmetric padding",
    ),
    Mutant(
        "padding goes to the other end",
        "inside.append(slice(low, low + n))",
        "inside.append(slice(high, high + n))",
        "Conv2d/asymmetric padding",
    ),
    Mutant(
        "padding before is of ones", "slice(0, part.start), ...)] = 0.0", "slice(0, part.start), ...)] = 1.0", "Conv2d/"
    ),
    Mutant(
        "padding after is of ones",
        "slice(part.stop, shape[axis]), ...)] = 0.0",
        "slice(part.stop, shape[axis]), ...)] = 1.0",
        "Conv2d/",
    ),
    Mutant(
        "padding is of ones in dweight alone",
        "columns = self._columns(x, padding, blocks[j], windows, groups)",
        "pads = [before + n + after for n, (before, after) in zip(x.shape[1:-1], padding)]\n"
        "                ones = xp.ones((x.shape[0], *pads, x.shape[-1]), dtype=x.dtype)\n"
        "                inside = (slice(before, before + n) for n, (before, _) in zip(x.shape[1:-1], padding))\n"
        "                ones[(slice(None), *inside, slice(None))] = x\n"
        "                columns = self._columns(ones, ((0, 0),) * len(pads), blocks[j], windows, groups)",
        "Conv2d/plain",
    ),
    Mutant(
        "padding is cut off dx at the other end",
        "inside = tuple(slice(low, low + n) for n, (low, _)",
        "inside = tuple(slice(low, low + n) for n, (_, low)",
        "Conv2d/all differ by axis",
    ),
    Mutant(
        "cutting the padding off dx is off by one",
        "inside = tuple(slice(low, low + n)",
        "inside = tuple(slice(low - 1, low - 1 + n)",
        "Conv2d/all differ by axis",
    ),
)

WINDOWS = (
    Mutant(
        "dilation is ignored in dx and in pools",
        "slice(k * d, k * d + (o - 1) * s + 1, s) if o",
        "slice(k, k + (o - 1) * s + 1, s) if o",
        "(Conv2d|MaxPool2d)/dilation",
    ),
    Mutant(
        "cells of a kernel come in the reverse order",
        "in product(*map(range, self.kernel)):",
        "in reversed(list(product(*map(range, self.kernel)))):",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "cells of a kernel come column by column",
        "in product(*map(range, self.kernel)):",
        "in (c[::-1] for c in product(*map(range, self.kernel[::-1]))):",
        "Conv2d/same, stride 2",
    ),
)

NUMPY = (
    Mutant(
        "dilation is ignored in the strided view",
        "zip(spatial, windows.dilation, strict=True)",
        "zip(spatial, [1] * len(spatial), strict=True)",
        "Conv[12]d/dilation",
    ),
    Mutant(
        "strides of the view are those of the other axis",
        "zip(spatial, windows.stride, strict=True)",
        "zip(spatial, windows.stride[::-1], strict=True)",
        "Conv2d/all differ by axis",
    ),
    Mutant(
        "stride is ignored in the strided view",
        "zip(spatial, windows.stride, strict=True)",
        "zip(spatial, [1] * len(spatial), strict=True)",
        "Conv2d/(same, stride 2|stride over kernel)",
    ),
    Mutant(
        "strided view takes the input as contiguous",
        "strides=(x.strides[0], *apart, *within, x.strides[-1]),",
        "strides=(x.strides[0], *apart, *within, x.itemsize),",
        "Conv2d/(valid|kernel 1|stride over kernel)",
    ),
)

GEOMETRY = (
    Mutant("'same' pads where the stride exceeds the kernel", "max(0, (-(-n", "abs((-(-n", r"Conv\dd/same"),
    Mutant("'same' pads too much after", "total - total // 2) for", "total - total // 3) for", r"Conv\dd/same"),
    Mutant(
        "last window of ceil_mode is judged by the padding after",
        ">= n + before else",
        ">= n + after else",
        r"(Max|Avg)Pool\dd/",
    ),
    Mutant(
        "extra cell of 'same' comes before",
        "(total // 2, total - total // 2) for",
        "(total - total // 2, total // 2) for",
        r"Conv\dd/same, even kernel",
    ),
    Mutant(
        "'same' ignores the stride",
        "max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)",
        "d * (k - 1)",
        r"Conv\dd/same, stride 2",
    ),
    Mutant(
        "padding before and after are swapped",
        "(int(p[0]), int(p[1]))",
        "(int(p[1]), int(p[0]))",
        r"(Conv|ConvTranspose|MaxPool|AvgPool)2d/asymmetric padding",
    ),
    Mutant("padding is off by one", "else (int(p), int(p))", "else (int(p), max(int(p) - 1, 0))", "Conv2d/plain"),
    Mutant(
        "pairs of padding belong to the other axis",
        "(int(p), int(p)) for p in each)",
        "(int(p), int(p)) for p in reversed(each))",
        "Conv2d/(asymmetric padding|all differ by axis)",
    ),
    Mutant("ceil_mode is ignored", "if not ceil_mode:", "if True:", "(Max|Avg)Pool2d/ceil_mode"),
    Mutant(
        "last window of ceil_mode starts in the padding",
        "return size - 1 if (size - 1) * stride >= n + before else size",
        "return size",
        r"(Max|Avg|Lp)Pool\dd/.*ceil_mode",
    ),
)

ARRAYS = (
    Mutant("padding wins the maximum", "x.shape[-1]), value,", "x.shape[-1]), 0.0,", "MaxPool2d/padding never wins"),
    Mutant("value of Pad is ignored", "x.shape[-1]), value,", "x.shape[-1]), 0.0,", "Pad/plain"),
    Mutant(
        "padding goes to the other end",
        "inside.append(slice(before, before + n))",
        "inside.append(slice(after, after + n))",
        "Pad/plain",
    ),
    Mutant("padding is cut off at the other end", "for n, (before, _) in", "for n, (_, before) in", "Pad/plain"),
    Mutant(
        "cutting off the padding is off by one",
        "inside = tuple(slice(before, before + n)",
        "inside = tuple(slice(before + 1, before + 1 + n)",
        "Pad/plain",
    ),
)

BIAS = "return channels_first(y if bias is None else y + bias, xp)"
SUMMED = "xp.reshape(rows, (prod(rows.shape[:-1]), rows.shape[-1]))"
DBIAS = f"dbias = engine.sum_rows({SUMMED})"
TURNED = "xp.flip(weight, axis=tuple(range(2, weight.ndim)))"
CONV = (
    Mutant(
        "bias is forgotten",
        "weight, bias, problem, primitives(xp)",
        "weight, None, problem, primitives(xp)",
        "Conv2d/plain",
    ),
    Mutant("bias gradient is a mean", DBIAS, f"{DBIAS} / prod(rows.shape[:-1])", "Conv2d/plain"),
    Mutant(
        "bias gradient is summed over the spatial axes of one sample only",
        DBIAS,
        "dbias = xp.sum(rows[0, ...], axis=tuple(range(rows.ndim - 2)))",
        "Conv2d/plain",
    ),
    Mutant(
        "bias gradient is summed over the batch at one cell only",
        DBIAS,
        "dbias = xp.sum(rows[(slice(None), *(0,) * (rows.ndim - 2), slice(None))], axis=0)",
        "Conv2d/plain",
    ),
    Mutant("bias gradient lacks the last cell", DBIAS, DBIAS.replace(SUMMED, f"{SUMMED}[:-1, :]"), "Conv2d/plain"),
    Mutant("bias gradient is summed in float16", DBIAS, f"{DBIAS[:8]}{half(DBIAS[8:])}", "Conv2d/plain"),
    Mutant(
        "stride is that of the other axis",
        'checks.per_axis("stride", stride, axes),',
        'checks.per_axis("stride", stride, axes)[::-1],',
        "Conv2d/all differ by axis",
    ),
    Mutant(
        "stride and dilation are swapped",
        'checks.per_axis("stride", stride, axes),\n        padding,\n'
        '        checks.per_axis("dilation", dilation, axes),',
        'checks.per_axis("stride", dilation, axes),\n        padding,\n'
        '        checks.per_axis("dilation", stride, axes),',
        "Conv2d/(dilation|all differ by axis)",
    ),
    Mutant(
        "dilation is ignored",
        'checks.per_axis("dilation", dilation, axes),',
        "(1,) * axes,",
        "Conv2d/dilation",
    ),
    Mutant(
        "input is rounded to float16",
        "convolution.forward(channels_last(x, xp),",
        f"convolution.forward({half('channels_last(x, xp)')},",
        "Conv2d/plain",
    ),
    Mutant(
        "dx goes through the bias gradient's rows of another order",
        "convolution.input_gradient(rows, weight,",
        "convolution.input_gradient(xp.flip(rows, axis=1), weight,",
        "Conv2d/plain",
    ),
)

FEW = r"Conv[12]d/few channels"
LARGE = "Conv2d/152 channels"
TILED = r"Conv2d/(32|40|152) channels"
KERNEL = "split = xp.reshape(weight, (groups, features, channels, cells))"
CONV_COLUMNS = (
    Mutant(
        "cells and channels of dweight are swapped",
        "(0, 3, 2, 1)), (problem.features",
        "(0, 3, 1, 2)), (problem.features",
        "Conv2d/plain",
    ),
    Mutant(
        "features and channels of dweight are swapped",
        "split = xp.reshape(matrix, (groups, prod(kernel), channels, features))",
        "split = xp.matrix_transpose(xp.reshape(matrix, (groups, prod(kernel), features, channels)))",
        "Conv2d/plain",
    ),
    Mutant(
        "cells and channels of the weight are swapped",
        KERNEL,
        "split = xp.matrix_transpose(xp.reshape(weight, (groups, features, cells, channels)))",
        "Conv2d/plain",
    ),
    Mutant("kernel is rotated forward", KERNEL, KERNEL.replace("weight", TURNED), "Conv2d/plain"),
    Mutant(
        "kernel is not rotated in dx",
        "xp.flip(xp.reshape(weight, (*weight.shape[:2], cells)), axis=-1)",
        "xp.reshape(weight, (*weight.shape[:2], cells))",
        "Conv2d/plain",
    ),
    Mutant(
        "filters and channels of a rotated kernel are swapped",
        "xp.permute_dims(split, (2, 0, 1)), (1, cells",
        "xp.permute_dims(split, (2, 1, 0)), (1, cells",
        "Conv2d/plain",
    ),
    Mutant(
        "cells and channels of a large weight are swapped",
        "xp.permute_dims(split, (0, 1, 3, 2)), (groups, features, cells * channels)",
        "split, (groups, features, cells * channels)",
        "Conv2d/64 channels",
    ),
)

PROBLEM = (
    Mutant(
        "dilation is ignored in dx",
        "windows=replace(w, count=self.spatial)",
        "windows=replace(w, count=self.spatial, dilation=(1,) * len(w.count))",
        "Conv2d/dilation",
    ),
    Mutant(
        "padding of dx is at the other end",
        "(r - before, n - count + before)\n            for r, n, count, (before, _)",
        "(r - before, n - count + before)\n            for r, n, count, (_, before)",
        "Conv1d/asymmetric padding",
    ),
    Mutant(
        "padding of dx is that of the forward", "padding=padding,", "padding=self.padding,", "Conv1d/asymmetric padding"
    ),
    Mutant(
        "dx is a convolution with the kernel as it is",
        "rotated=not self.rotated",
        "rotated=self.rotated",
        "Conv2d/32 channels",
    ),
)

BANDED = (
    Mutant("outputs of a band are a cell apart", "step, size = problem.windows.stride[-1] *", "step, size =", FEW),
    Mutant("band holds its first output alone", "band[:, place, b, :] = matrix", "band[:, place, 0, :] = matrix", FEW),
    Mutant("dweight of the last output of a band", "part if total is None else total + part", "part", FEW),
    Mutant("padding of a row is at the other end", "(before * c, after * c)", "(after * c, before * c)", FEW),
    Mutant("bias goes to neighbours", "xp.tile(bias, (self.t,))", "xp.repeat(bias, self.t)", FEW),
    Mutant("rows of a band are rounded to 13 bits", "= matrix\n", f"= {cut('matrix', 13)}\n", FEW),
)

INPUT_TILES = "engine.flat(engine.windows(strip, block.windows(tiling.inputs)), out.shape)"
OUTER = "engine.matmul(permute(upstream, (1, 2, 0)), permute(inputs, (1, 0, 2)), permute(sums, (1, 0, 2)))"
WINOGRAD = (
    Mutant("bias is forgotten", "tiles += bias[filters]", "pass", TILED),
    Mutant("bias of the first filters goes to all", "bias[filters]", "bias[: filters.stop - filters.start]", LARGE),
    Mutant(
        "filters are those of the first workers",
        "cells[filters, ...]",
        "cells[: filters.stop - filters.start, ...]",
        LARGE,
    ),
    Mutant("outputs of a tile are transposed", "(0, 1, 3, 2, 4, 5)", "(0, 1, 4, 2, 3, 5)", TILED),
    Mutant(
        "tiles of the output are not transformed by rows",
        "engine.matmul(sides.output,",
        "engine.matmul(sides.output[::-1, :],",
        TILED,
    ),
    Mutant(
        "kernel is not rotated in dx",
        "xp.flip(sides.kernel, axis=1) if problem.rotated else sides.kernel",
        "sides.kernel",
        TILED,
    ),
    Mutant(
        "kernel is transposed",
        "laid = engine.xp.permute_dims(cells[filters, ...], (2, 1, 0))",
        "cells = engine.xp.reshape(engine.xp.permute_dims(weight, (0, 1, 3, 2)), cells.shape)\n"
        "        laid = engine.xp.permute_dims(cells[filters, ...], (2, 1, 0))",
        TILED,
    ),
    Mutant(
        "padding of tiles is at the other end", "for n, tiles, (before, _) in", "for n, tiles, (_, before) in", TILED
    ),
    Mutant("cells and channels of dweight are swapped", "xp.permute_dims(dw, (0, 2, 1))", "dw", TILED),
    Mutant(
        "dweight is rotated",
        "back, spread = xp.matrix_transpose(sides.kernel)",
        "back, spread = xp.flip(xp.matrix_transpose(sides.kernel), axis=0)",
        TILED,
    ),
    Mutant(
        "last tile is left out of dweight",
        OUTER,
        OUTER.replace("permute(upstream, (1, 2, 0))", "permute(upstream, (1, 2, 0))[..., :-1]").replace(
            "permute(inputs, (1, 0, 2))", "permute(inputs, (1, 0, 2))[:, :-1, :]"
        ),
        TILED,
    ),
    *(
        Mutant(
            f"tiles of the input are rounded to {bits} bits",
            INPUT_TILES,
            f"(lambda v: {cut('v', bits)})({INPUT_TILES})",
            TILED,
        )
        for bits in (8, 11, 13)
    ),
    *(
        Mutant(f"weight is rounded to {bits} bits", "copy[...] = laid", f"copy[...] = {cut('laid', bits)}", TILED)
        for bits in (8, 11, 13)
    ),
    Mutant(
        "products are rounded to 13 bits",
        "engine.matmul(sides.output, products, tiles)",
        f"engine.matmul(sides.output, {cut('products', 13)}, tiles)",
        TILED,
    ),
    Mutant(
        "dweight rounds its sums to 13 bits",
        "engine.matmul(back, total,",
        f"engine.matmul(back, {cut('total', 13)},",
        TILED,
    ),
    Mutant(
        "transforms are rounded to float16",
        "return xp.asarray(made[side], dtype=like.dtype, device=device(like))",
        f"return {half('xp.asarray(made[side], dtype=like.dtype, device=device(like))')}",
        TILED,
    ),
)

CONV_TRANSPOSE = (
    Mutant("bias is forgotten", BIAS, "return channels_first(y, xp)", "ConvTranspose2d/plain"),
    Mutant(
        "bias gradient is a mean",
        "(prod(upstream.shape[:-1]), plan.features)))",
        "(prod(upstream.shape[:-1]), plan.features))) / prod(upstream.shape[:-1])",
        "ConvTranspose2d/plain",
    ),
    Mutant(
        "padding and output padding are at the other end",
        "return _Plan(Windows(kernel, s, d, spatial), pairs, out,",
        "pairs = tuple((after - e, before + e) for (before, after), e in zip(pairs, extra))\n"
        "    return _Plan(Windows(kernel, s, d, spatial), pairs, out,",
        "ConvTranspose2d/(output padding|asymmetric padding)",
    ),
    Mutant(
        "kernel is rotated",
        "y = convolution.input_gradient(channels_last(x, xp), weight,",
        f"y = convolution.input_gradient(channels_last(x, xp), {TURNED},",
        "ConvTranspose2d/plain",
    ),
    Mutant(
        "dweight is rotated",
        "dweight = convolution.weight_gradient(upstream, channels_last(x, xp), problem, engine)",
        "dweight = xp.flip(convolution.weight_gradient(upstream, channels_last(x, xp), problem, engine), axis=(2, 3))",
        "ConvTranspose2d/plain",
    ),
    Mutant(
        "dx is rounded to 13 bits",
        "return channels_first(convolution.forward(upstream, weight, None, problem, engine), xp)",
        "dx = convolution.forward(upstream, weight, None, problem, engine)\n"
        f"    return channels_first({cut('dx', 13)}, xp)",
        "ConvTranspose2d/",
    ),
)

DENSE = (
    Mutant("bias is forgotten", "y += bias", "pass", "Dense/plain"),
    Mutant("bias gradient is a mean", "engine.sum_rows(upstream)", "engine.sum_rows(upstream) / count", "Dense/plain"),
    Mutant(
        "bias gradient lacks the last row", "engine.sum_rows(upstream)", "engine.sum_rows(upstream[:-1, :])", "Dense/"
    ),
    Mutant(
        "dweight lacks the last row",
        "contract_rows(upstream, rows)",
        "contract_rows(upstream[:-1, :], rows[:-1, :])",
        "Dense/(plain|large batch)",
    ),
    Mutant(
        "dweight is a mean",
        "contract_rows(upstream, rows)",
        "contract_rows(upstream, rows) / count",
        "Dense/plain",
    ),
    *(
        Mutant(
            f"input is rounded to {bits} bits",
            "y = _product(x,",
            f"y = _product({cut('x', bits)},",
            "Dense/",
        )
        for bits in (8, 11, 13, 16)
    ),
    Mutant(
        "sums are rounded to float16",
        "y = _product(x, xp.matrix_transpose(weight), xp)",
        f"y = {half('xp.matmul(x, xp.matrix_transpose(weight))')}",
        "Dense/plain",
    ),
    Mutant(
        "sums are kept in 16 bits, added up in blocks of 64",
        "y = _product(x, xp.matrix_transpose(weight), xp)",
        "y = 0.0\n"
        "    for i in range(0, x.shape[-1], 64):\n"
        "        y = y + xp.matmul(x[..., i : i + 64], xp.matrix_transpose(weight[:, i : i + 64]))\n"
        f"        y = {cut('y', 16)}",
        "Dense/large reduction",
    ),
    Mutant(
        "dx rounds dy to 11 bits",
        "return _product(dy, weight, xp)",
        f"return _product({cut('dy', 11)}, weight, xp)",
        "Dense/plain",
    ),
    Mutant(
        "dweight rounds the input to 11 bits",
        "contract_rows(upstream, rows)",
        f"contract_rows(upstream, {cut('rows', 11)})",
        "Dense/",
    ),
)

BEATEN = "xp.logical_and(candidate != best, candidate == candidate)"
MAX_POOL = (
    Mutant(
        "indices take the padding after",
        "start - geometry.padding[axis][0]",
        "start - geometry.padding[axis][1]",
        "MaxPool2d/indices",
    ),
    Mutant(
        "cells of a large window are counted to 64",
        "cell = found",
        "cell = None if found is None else found % 64",
        "MaxPool2d/",
    ),
    Mutant(
        "tie goes to the last cell",
        BEATEN,
        "xp.logical_not(candidate > candidates[-1])",
        "MaxPool2d/(ties|one tie)",
    ),
    Mutant("NaN loses", BEATEN, "candidate != best", "MaxPool2d/NaN"),
    Mutant("the first value wins over NaN", BEATEN, "candidate < best", "MaxPool2d/NaN"),
    Mutant("padding of zeros wins the maximum", '-float("inf")', "0.0", "MaxPool2d/padding never wins"),
    Mutant("padding of -1e30 wins over minus infinity", '-float("inf")', "-1e30", r"MaxPool\dd/"),
    Mutant("gradient goes to the cell before", "cell[place] + step", "cell[place] + step - 1", "MaxPool2d/plain"),
    Mutant(
        "gradient of a window of minus infinity goes to its padding",
        "if geometry.is_padded else None",
        "if False else None",
        r"MaxPool\dd/",
    ),
    Mutant("indices ignore the dilation", "% w.kernel[axis] * w.dilation[axis])", "% w.kernel[axis])", "MaxPool2d/ind"),
    Mutant("indices ignore the padding", "start - geometry.padding[axis][0]", "start", "MaxPool2d/indices"),
    Mutant(
        "indices are column by column",
        "for axis in reversed(range(len(spatial)))",
        "for axis in range(len(spatial))",
        "MaxPool2d/indices",
    ),
)

ALL_TIES_OLD = "sums[index] += share(k)"
PLACING = (
    Mutant("overlapping windows overwrite each other in dx", ALL_TIES_OLD, "sums[index] = share(k)", "MaxPool2d/over"),
    Mutant(
        "overlapping windows of a mean overwrite each other in dx",
        ALL_TIES_OLD,
        "sums[index] = share(k)",
        "AvgPool2d/over",
    ),
    Mutant(
        "last cell of a window is left out of the sum",
        "for place in along(windows, axis))",
        "for place in along(windows, axis)[: max(1, windows.kernel[axis] - 1)])",
        "AvgPool2d/plain",
    ),
    Mutant(
        "sum over windows is rounded to float16",
        "return cells",
        "return cells.astype('float16').astype(cells.dtype)",
        "AvgPool2d/",
    ),
    Mutant(
        "sum over windows is kept in 13 bits",
        "return cells",
        f"return {cut('cells', 13)}",
        "AvgPool2d/",
    ),
)

AVERAGE_POOL = (
    Mutant(
        "padding is never counted",
        "if count_include_pad else (before,",
        "if False else (before,",
        r"AvgPool2d/.*ceil_mode",
    ),
    Mutant(
        "padding is counted where it should not be",
        "full = count_include_pad and",
        "full =",
        "AvgPool2d/padding not counted",
    ),
    Mutant(
        "padding is not counted where it should be",
        "full = count_include_pad and not any(geometry.overhang)",
        "full, count_include_pad = False, False",
        "AvgPool2d/padding counted",
    ),
    Mutant(
        "cells beyond the padding are counted",
        "full = count_include_pad and not any(geometry.overhang)",
        "full = count_include_pad",
        "AvgPool2d/ceil_mode",
    ),
    Mutant(
        "padding after the input is not counted beside cells beyond it",
        "(0, before + spatial[axis] + after)",
        "(0, before + spatial[axis])",
        "AvgPool2d/",
    ),
    Mutant(
        "gradient's divisor counts the padding",
        "_divisor(geometry, dy, tuple(x_shape[2:]), count_include_pad,",
        "_divisor(geometry, dy, tuple(x_shape[2:]), True,",
        "AvgPool2d/padding not counted",
    ),
    Mutant("given divisor is ignored", "if override is not None:", "if False:", "AvgPool2d/divisor"),
    Mutant(
        "counts of the axes are added, not multiplied",
        "counts * inside",
        "counts + inside",
        "AvgPool2d/padding not counted",
    ),
)

LP_POOL = (
    Mutant(
        "padding is of 0.01",
        "cells = pad(channels_last(x, xp), geometry, 0.0, xp)\n    return",
        "cells = pad(channels_last(x, xp), geometry, 0.01, xp)\n    return",
        "LpPool2d/",
    ),
    Mutant(
        "gradient has no sign",
        "slope = ratio if p == 2 else sign(x, xp) * xp.pow",
        "slope = ratio if p == 2 else xp.pow",
        "LpPool2d/plain",
    ),
    Mutant("gradient of power 1 has no sign", "share = sign(x, xp)", "share = xp.ones_like(x)", "LpPool2d/power 1"),
    Mutant(
        "gradient of power 2 has no sign",
        "slope = ratio if p == 2",
        "slope = xp.abs(ratio) if p == 2",
        "LpPool2d/power 2,",
    ),
    Mutant(
        "values are not taken without sign",
        "total(xp.pow(xp.abs(x), float(p)))",
        "total(xp.pow(x, float(p)))",
        "LpPool2d/plain",
    ),
    Mutant("gradient raises to p, not p - 1", "float(p - 1)", "float(p)", "LpPool2d/plain"),
    Mutant("root of power 2 is forgotten", "xp.sqrt(total(x * x))", "total(x * x)", "LpPool2d/power 2,"),
    Mutant("root is off in the fifth digit", "1.0 / p)", "1.0001 / p)", "LpPool2d/plain"),
    Mutant("root is off in the sixth digit", "1.0 / p)", "1.00001 / p)", "LpPool2d/"),
    Mutant(
        "windows of zeros divide by zero",
        "xp.where(empty, zero(dy, xp), dy * share)",
        "dy * (x / y)",
        "LpPool2d/windows of zeros",
    ),
    Mutant(
        "gradient's quotient is rounded to 13 bits",
        "/ xp.where(empty, xp.ones_like(y), y)",
        f"/ xp.where(empty, xp.ones_like(y), y)\n        ratio = {cut('ratio', 13)}",
        "LpPool2d/",
    ),
    Mutant(
        "norm is rounded to 13 bits",
        "return xp.sqrt(total(x * x))",
        f"return (lambda y: {cut('y', 13)})(xp.sqrt(total(x * x)))",
        "LpPool2d/power 2,",
    ),
)

ADAPTIVE_POOL = (
    Mutant("windows end one cell early", "-(-(i + 1) * n // m)", "(i + 1) * n // m", r"Adaptive(Avg|Max)Pool\dd/plain"),
    Mutant("windows start one cell late", "slice(i * n // m,", "slice(-(-i * n // m),", r"AdaptiveAvgPool\dd/plain"),
    Mutant(
        "overlapping windows overwrite each other in dx",
        "dx[_along(axis, cells)] += share",
        "dx[_along(axis, cells)] = share",
        r"AdaptiveAvgPool\dd/plain",
    ),
    Mutant(
        "gradient divides by the mean size of a window",
        "scalar(cells.stop - cells.start, dy, xp)",
        "scalar(n / m, dy, xp)",
        r"AdaptiveAvgPool\dd/plain",
    ),
    Mutant(
        "mean divides by one more", "scalar(x.shape[axis], x, xp)", "scalar(x.shape[axis] + 1, x, xp)", "GlobalAvgPool/"
    ),
    Mutant(
        "mean is rounded to float16",
        "return xp.sum(x, axis=axis, keepdims=True)",
        f"return {half('xp.sum(x, axis=axis, keepdims=True)')}",
        "GlobalAvgPool/plain",
    ),
    Mutant(
        "gradients of overlapping maxima overwrite each other",
        "dx[place] += xp.where(",
        "dx[place] = xp.where(",
        r"AdaptiveMaxPool\dd/plain",
    ),
    Mutant(
        "NaN loses",
        "return xp.where(xp.any(nan, axis=-1), xp.argmax(xp.astype(nan, xp.int8), axis=-1), finite)",
        "return finite",
        "GlobalMaxPool/NaN",
    ),
    Mutant(
        "tie goes to the last cell",
        'finite = xp.argmax(xp.where(nan, scalar(-float("inf"), x, xp), x), axis=-1)',
        "finite = x.shape[-1] - 1 - xp.argmax(xp.flip(x, axis=-1), axis=-1)",
        "GlobalMaxPool/ties",
    ),
    Mutant("index of the maximum steps by the window's size", "step *= n", "step *= size", "AdaptiveMaxPool2d/plain"),
    Mutant(
        "index of the maximum forgets where the window starts",
        "remaining % size + cells.start",
        "remaining % size",
        "AdaptiveMaxPool2d/plain",
    ),
)

RECTIFIERS = (
    Mutant(
        "ELU has slope 1 at 0",
        "xp.where(x > 0.0, dy, dy * (xp.exp(_below(x, xp)) * alpha))",
        "xp.where(x >= 0.0, dy, dy * (xp.exp(_below(x, xp)) * alpha))",
        "ELU/",
    ),
    Mutant(
        "PReLU bends at 0.001",
        "xp.where(x > 0.0, x, x * slope), x, slope",
        "xp.where(x > 0.001, x, x * slope), x, slope",
        "PReLU/",
    ),
    Mutant(
        "ReLU has slope 1 at 0",
        "primitives(xp).gate(dy, y)",
        "xp.where(y < 0.0, xp.zeros_like(dy), dy)",
        "ReLU/zeros",
    ),
    Mutant(
        "ReLU loses NaN",
        "return primitives(xp).positive(x)",
        "return primitives(xp).select(x > 0.0, x)",
        "ReLU/NaN",
    ),
    Mutant("ReLU's gradient is not cut", "primitives(xp).gate(dy, y)", "dy", "ReLU/plain"),
    Mutant(
        "ReLU rounds to float16",
        "positive(x)",
        f"positive({half('x')})",
        "ReLU/plain",
    ),
    Mutant(
        "ReLU's gradient is float64 for float32",
        "return primitives(xp).gate(dy, y)",
        "return xp.astype(primitives(xp).gate(dy, y), xp.float64)",
        "ReLU/plain",
    ),
    Mutant(
        "LeakyReLU's slope has the wrong sign",
        "maximum(x, x * negative_slope)",
        "maximum(x, x * -negative_slope)",
        "LeakyReLU/plain",
    ),
    Mutant(
        "LeakyReLU's gradient forgets the slope", "dy, dy * negative_slope)", "dy, zero(dy, xp))", "LeakyReLU/plain"
    ),
    Mutant(
        "LeakyReLU has slope 1 at 0",
        "xp.where(x > 0.0, dy, dy * negative_slope)",
        "xp.where(x >= 0.0, dy, dy * negative_slope)",
        "LeakyReLU/zeros",
    ),
    Mutant(
        "LeakyReLU's slope is off in the seventh digit",
        "maximum(x, x * negative_slope)",
        "maximum(x, x * (negative_slope * 1.0000005))",
        "LeakyReLU/plain",
    ),
    Mutant("PReLU's slope gradient is a mean", "xp.sum(share, axis=(0,", "xp.mean(share, axis=(0,", "PReLU/plain"),
    Mutant("PReLU's only slope gradient is a mean", "xp.sum(share), (1,)", "xp.mean(share), (1,)", "PReLU/one slope"),
    Mutant(
        "PReLU's slope gradient lacks the last sample",
        "xp.sum(share, axis=(0,",
        "xp.sum(share[:-1, ...], axis=(0,",
        "PReLU/plain",
    ),
    Mutant(
        "PReLU's slope gradient sums over the positive side",
        "zero(x, xp), dy * x)",
        "dy * x, zero(x, xp))",
        "PReLU/plain",
    ),
    Mutant(
        "PReLU's slope gradient adds up in 13 bits",
        "xp.sum(share, axis=(0,",
        f"xp.sum({cut('share', 13)}, axis=(0,",
        "PReLU/",
    ),
    Mutant("PReLU's dx forgets the slope", "dy, dy * slope), x, xp)", "dy, dy), x, xp)", "PReLU/plain"),
    Mutant(
        "ELU is exp(x) - 1 by subtraction",
        "xp.expm1(_below(x, xp)) * alpha)",
        "(xp.exp(_below(x, xp)) - 1.0) * alpha)",
        "ELU/all sizes",
    ),
    Mutant(
        "ELU's gradient forgets alpha",
        "dy * (xp.exp(_below(x, xp)) * alpha)",
        "dy * xp.exp(_below(x, xp))",
        "ELU/alpha 0.5",
    ),
    Mutant(
        "CELU's gradient forgets alpha",
        "dy * xp.exp(_below(x, xp) * (1.0 / alpha))",
        "dy * xp.exp(_below(x, xp))",
        "CELU/alpha 0.5",
    ),
    Mutant(
        "CELU divides by alpha outside",
        "xp.expm1(_below(x, xp) * (1.0 / alpha)) * alpha",
        "xp.expm1(_below(x, xp)) * alpha",
        "CELU/alpha 0.5",
    ),
    Mutant("SELU's alpha is cut to 1.6733", "1.6732632423543772", "1.6733", "SELU/"),
    Mutant("SELU's alpha is wrong in the sixth digit", "1.6732632423543772", "1.67327", "SELU/"),
    Mutant("SELU's alpha is rounded to float32", "1.6732632423543772", "1.6732632", "SELU/", "float64"),
    Mutant("SELU's scale is wrong in the sixth digit", "1.0507009873554805", "1.05071", "SELU/"),
    Mutant("SELU's scale is cut to 1.0507", "1.0507009873554805", "1.0507", "SELU/", "float64"),
    Mutant(
        "SELU's gradient forgets alpha",
        "dy * (xp.exp(_below(x, xp)) * (SELU_SCALE * SELU_ALPHA))",
        "dy * (xp.exp(_below(x, xp)) * SELU_SCALE)",
        "SELU/plain",
    ),
    Mutant("SELU's gradient forgets the scale", "dy * SELU_SCALE,", "dy,", "SELU/plain"),
)

SIGMOIDS = (
    Mutant(
        "sigmoid overflows",
        "xp.where(x >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))",
        "xp.exp(x) / (1.0 + xp.exp(x))",
        "Sigmoid/all sizes",
    ),
    Mutant(
        "sigmoid's tail is lost",
        "xp.where(x >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))",
        "0.5 * (1.0 + xp.tanh(0.5 * x))",
        "Sigmoid/all sizes",
    ),
    Mutant(
        "sigmoid is rounded to 16 bits",
        "return xp.where(x >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e))",
        f"return (lambda y: {cut('y', 16)})(xp.where(x >= 0.0, 1.0 / (1.0 + e), e / (1.0 + e)))",
        "Sigmoid/plain",
    ),
    Mutant("sigmoid's gradient forgets 1 - y", "dy * (y * (1.0 - y))", "dy * y", "Sigmoid/plain"),
    Mutant(
        "tanh loses small values",
        "return prepare(xp, input=x).tanh(x)",
        "return 1.0 - 2.0 / (prepare(xp, input=x).exp(2.0 * x) + 1.0)",
        "Tanh/all sizes",
    ),
    Mutant("tanh's gradient is 1 - y", "dy * (1.0 - y * y)", "dy * (1.0 - y)", "Tanh/plain"),
    Mutant("tanh's gradient is off in the sixth digit", "dy * (1.0 - y * y)", "dy * (1.000005 - y * y)", "Tanh/plain"),
    Mutant("softsign's gradient is not squared", "dy * (inverse * inverse)", "dy * inverse", "Softsign/plain"),
    Mutant(
        "hard sigmoid divides by 6 in four digits",
        "return clamp(x + 3.0, 0.0, 6.0, xp) * (1.0 / 6.0)",
        "return clamp(x + 3.0, 0.0, 6.0, xp) * 0.1667",
        "HardSigmoid/",
    ),
    Mutant(
        "hard sigmoid divides by 6 in six digits",
        "return clamp(x + 3.0, 0.0, 6.0, xp) * (1.0 / 6.0)",
        "return clamp(x + 3.0, 0.0, 6.0, xp) * 0.166667",
        "HardSigmoid/",
    ),
    Mutant(
        "hard sigmoid's slope is in five digits",
        "dy * (1.0 / 6.0), zero(dy, xp))",
        "dy * 0.16667, zero(dy, xp))",
        "HardSigmoid/",
    ),
    Mutant("hard sigmoid has a slope at 3 and -3", "xp.abs(x) < 3.0", "xp.abs(x) <= 3.0", "HardSigmoid/"),
    Mutant("hard swish's slope is in five digits", "xp) * (1.0 / 3.0) + 0.5", "xp) * 0.33333 + 0.5", "HardSwish/"),
    Mutant("hard swish has a slope at -3", "xp.where(x <= -3.0,", "xp.where(x < -3.0,", "HardSwish/"),
    Mutant(
        "hard swish's gradient is that of a product half forgotten",
        "xp) * (1.0 / 3.0) + 0.5",
        "xp) * (1.0 / 6.0) + 0.5",
        "HardSwish/plain",
    ),
)

SMOOTH = (
    Mutant("GELU's cubic term is 0.04471", "_CUBIC = 0.044715", "_CUBIC = 0.04471", "GELU/tanh form"),
    Mutant("GELU's cubic term is 0.0447", "_CUBIC = 0.044715", "_CUBIC = 0.0447", "GELU/tanh form"),
    Mutant("GELU's square root of 2 / pi is 0.7979", "_ROOT = sqrt(2.0 / pi)", "_ROOT = 0.7979", "GELU/tanh form"),
    Mutant(
        "GELU's square root of 2 / pi is 0.79788",
        "_ROOT = sqrt(2.0 / pi)",
        "_ROOT = 0.79788",
        "GELU/tanh form",
        "float64",
    ),
    Mutant("GELU's slope has 2 for 3", "3.0 * _CUBIC", "2.0 * _CUBIC", "GELU/tanh form"),
    Mutant("GELU's square root of 1 / 2 is 0.7071", "-sqrt(0.5)", "-0.7071", "GELU/"),
    Mutant("GELU's square root of 1 / 2 is 0.70711", "-sqrt(0.5)", "-0.70711", "GELU/"),
    Mutant("GELU's density is 0.3989", "(1.0 / sqrt(2.0 * pi))", "0.3989", "GELU/"),
    Mutant("GELU's density is 0.39894", "(1.0 / sqrt(2.0 * pi))", "0.39894", "GELU/", "float64"),
    Mutant("GELU's density is in float32", "(1.0 / sqrt(2.0 * pi))", "0.39894228", "GELU/", "float64"),
    Mutant(
        "GELU is its tanh form",
        "return x * _normal_cdf(x, xp)",
        "return x * ((1.0 + xp.tanh(_inner(x))) * 0.5)",
        "GELU/plain",
    ),
    Mutant(
        "GELU's gradient forgets the density",
        "dy * (_normal_cdf(x, xp) + x * density)",
        "dy * _normal_cdf(x, xp)",
        "GELU/plain",
    ),
    Mutant(
        "softplus loses its tail",
        "_positive(scaled, xp) + xp.log1p(xp.exp(-xp.abs(scaled)))",
        "xp.log(1.0 + xp.exp(scaled))",
        "Softplus/all sizes",
    ),
    Mutant(
        "softplus overflows",
        "return xp.where(scaled > threshold, x, smooth)",
        "return xp.log1p(xp.exp(scaled)) * (1.0 / beta)",
        "Softplus/all sizes",
    ),
    Mutant(
        "softplus forgets to divide by beta",
        "xp.log1p(xp.exp(-xp.abs(scaled)))) * (1.0 / beta)",
        "xp.log1p(xp.exp(-xp.abs(scaled))))",
        "Softplus/beta 2",
    ),
    Mutant(
        "softplus is linear too early", "scaled > threshold, x,", "scaled > 0.4 * threshold, x,", "Softplus/all sizes"
    ),
    Mutant(
        "softplus' gradient forgets beta", "dy * sigmoid(scaled, xp=xp)", "dy * sigmoid(x, xp=xp)", "Softplus/beta 2"
    ),
    Mutant("SiLU's gradient is the sigmoid", "dy * (s * (1.0 + x * (1.0 - s)))", "dy * s", "SiLU/plain"),
    Mutant("Mish's left branch is off", "w * (w + 2.0)", "w * (w + 1.0)", "Mish/plain"),
    Mutant(
        "Mish's gradient forgets the softplus",
        "dy * (t + x * sigmoid(x, xp=xp) * rest)",
        "dy * (t + x * rest)",
        "Mish/plain",
    ),
    Mutant(
        "Mish is rounded to 16 bits",
        "return x * _mish_parts(x, xp)[0]",
        f"return x * (lambda t: {cut('t', 16)})(_mish_parts(x, xp)[0])",
        "Mish/plain",
    ),
)

ERF = (
    Mutant("erfc's last coefficient has five digits", "0.9589962033754297", "0.95900", "GELU/", "float64"),
    Mutant("erfc's last coefficient but one has four digits", "-0.6277955952806215", "-0.6278", "GELU/", "float64"),
    Mutant("erfc's last coefficient but one has seven digits", "-0.6277955952806215", "-0.6277956", "GELU/", "float64"),
    Mutant(
        "a small coefficient of erfc has the wrong sign", "-0.00023152726656230457", "0.00023152726656230457", "GELU/"
    ),
    Mutant("a tiny coefficient of erfc is missing", "    -6.858062729764738e-07,\n", "    0.0,\n", "GELU/", "float64"),
    Mutant("erf's series ends after four terms", "range(11, -1, -1)", "range(3, -1, -1)", "GELU/"),
    Mutant("erf's series ends after eight terms", "range(11, -1, -1)", "range(7, -1, -1)", "GELU/", "float64"),
)

SOFTMAX = (
    Mutant(
        "softmax takes no maximum off",
        "xp.exp(below_largest(x, xp.max(x, axis=axis, keepdims=True), xp))",
        "xp.exp(x)",
        "Softmax/",
    ),
    Mutant(
        "log-softmax takes no maximum off",
        "shifted = below_largest(x, xp.max(x, axis=axis, keepdims=True), xp)",
        "shifted = x",
        "LogSoftmax/",
    ),
    Mutant(
        "log-softmax is the logarithm of softmax",
        "return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))",
        "return xp.log(xp.exp(shifted) / xp.sum(xp.exp(shifted), axis=axis, keepdims=True))",
        "LogSoftmax/",
    ),
    Mutant(
        "softmax takes one maximum for all rows",
        "e = xp.exp(below_largest(x, xp.max(x, axis=axis, keepdims=True), xp))",
        "e = xp.exp(x - xp.max(x))",
        "Softmax/(sure|far)",
    ),
    Mutant(
        "softmax' gradient sums over the last axis",
        "xp.sum(dy * y, axis=axis, keepdims=True)",
        "xp.sum(dy * y, axis=-1, keepdims=True)",
        "Softmax/plain",
    ),
    Mutant(
        "softmax sums over the last axis",
        "e / xp.sum(e, axis=axis, keepdims=True)",
        "e / xp.sum(e, axis=-1, keepdims=True)",
        "Softmax/plain",
    ),
    Mutant(
        "log-softmax sums over the last axis",
        "xp.sum(xp.exp(shifted), axis=axis,",
        "xp.sum(xp.exp(shifted), axis=-1,",
        "LogSoftmax/plain",
    ),
    Mutant(
        "log-softmax' gradient forgets the sum",
        "dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)",
        "dy - xp.exp(y) * dy",
        "LogSoftmax/plain",
    ),
    Mutant(
        "softmax' gradient forgets the sum",
        "y * (dy - xp.sum(dy * y, axis=axis, keepdims=True))",
        "y * (dy - dy * y)",
        "Softmax/plain",
    ),
    Mutant(
        "softmax is rounded to float16",
        "return e / xp.sum(e, axis=axis, keepdims=True)",
        f"return {half('(e / xp.sum(e, axis=axis, keepdims=True))')}",
        "Softmax/plain",
    ),
    Mutant(
        "log-softmax is rounded to 16 bits",
        "return shifted - xp.log",
        f"shifted = {cut('shifted', 16)}\n    return shifted - xp.log",
        "LogSoftmax/plain",
    ),
)

NORM = (
    Mutant(
        "eps is outside of the root",
        "1.0 / xp.sqrt(var + eps)",
        "1.0 / (xp.sqrt(var) + eps)",
        "(Batch|Layer|Group)Norm",
    ),
    Mutant("eps is forgotten", "xp.sqrt(var + eps)", "xp.sqrt(var)", "BatchNorm"),
    Mutant("eps is a tenth", "xp.sqrt(var + eps)", "xp.sqrt(var + 0.1 * eps)", "LayerNorm/"),
    Mutant(
        "variance is unbiased",
        "var = total(centred * centred, axes, xp) / cells",
        "var = total(centred * centred, axes, xp) / (cells - 1.0)",
        "BatchNorm2d/plain",
    ),
    Mutant(
        "variance is unbiased even in a large batch",
        "var = total(centred * centred, axes, xp) / cells",
        "var = total(centred * centred, axes, xp) / (cells - 1.0)",
        "BatchNorm1d/large batch",
    ),
    Mutant(
        "variance is a difference of squares",
        "var = total(centred * centred, axes, xp) / cells",
        "var = total(grid * grid, axes, xp) / cells - mean * mean",
        "BatchNorm2d/large mean",
    ),
    Mutant(
        "variance is rounded to 13 bits",
        "var = total(centred * centred, axes, xp) / cells",
        f"var = total(centred * centred, axes, xp) / cells\n        var = {cut('var', 13)}",
        "BatchNorm2d/",
    ),
    Mutant(
        "mean is rounded to 16 bits",
        "mean, centred = near + rest, centred - rest",
        f"mean, centred = near + rest, grid - {cut('near', 16)}",
        "BatchNorm2d/",
    ),
    Mutant("mean is not refined", "mean, centred = near + rest, centred - rest", "mean = near", "BatchNorm.d/large"),
    Mutant(
        "gradient forgets the mean of dy",
        "grid - mean_g - normal.values * mean_gx",
        "grid - normal.values * mean_gx",
        "BatchNorm2d/plain",
    ),
    Mutant(
        "gradient forgets the variance", "grid - mean_g - normal.values * mean_gx", "grid - mean_g", "BatchNorm2d/plain"
    ),
    Mutant("gradient takes the statistics as constants", "if not constant:", "if False:", "BatchNorm2d/plain"),
    Mutant(
        "gradients of weight and bias are swapped",
        "dbias, dweight = (xp.reshape",
        "dweight, dbias = (xp.reshape",
        "BatchNorm2d/plain",
    ),
    Mutant(
        "gradients of weight and bias are means",
        "totals = (xp.permute_dims(total(s,",
        "totals = (xp.permute_dims(total(s / layout.cells,",
        "BatchNorm2d/plain",
    ),
    Mutant(
        "weight's gradient takes the input unscaled",
        "total(grid * normal.values, shared, xp)",
        "total(grid * normal.values / normal.inverse_std, shared, xp)",
        "BatchNorm2d/plain",
    ),
    Mutant("weight is forgotten in dx", "scale = scale * laid", "pass", "BatchNorm2d/plain"),
    Mutant(
        "weight is forgotten in the means of dx",
        "grid, sums = grid * laid, (sums[0] * laid, sums[1] * laid)",
        "scale = scale * laid",
        "LayerNorm/plain",
    ),
    Mutant("weight is forgotten", "else values * layout.along(weight, order, xp)", "else values", "BatchNorm2d/plain"),
    Mutant("bias is forgotten", "y = y + layout.along(bias, order, xp)", "pass", "BatchNorm2d/plain"),
    Mutant(
        "groups are taken the other way round",
        "split = (num_groups, shape[1] // num_groups)",
        "split = (shape[1] // num_groups, num_groups)",
        "GroupNorm/",
    ),
    Mutant(
        "instance norm averages over the batch",
        "return Layout(shape, tuple(range(2, len(shape))),",
        "return Layout(shape, (0, *range(2, len(shape))),",
        "InstanceNorm2d/plain",
    ),
    Mutant(
        "batch norm does not average over the batch",
        "return Layout(shape, (0, *range(2, len(shape))),",
        "return Layout(shape, tuple(range(2, len(shape))),",
        "BatchNorm2d/plain",
    ),
    Mutant(
        "sums of layer norm's gradient are rounded to 13 bits",
        "(total(s, varied, xp) / cells for s in sums)",
        f"({cut('total(s, varied, xp)', 13)} / cells for s in sums)",
        "LayerNorm/",
    ),
)

BATCH_NORM = (
    Mutant(
        "average over all batches is over one",
        "1.0 / xp.astype(batches, like.dtype)",
        "1.0 * xp.astype(batches, like.dtype)",
        "BatchNorm2d/average",
    ),
    Mutant(
        "average over all batches is of the last one",
        "1.0 / xp.astype(batches, like.dtype)",
        "1.0",
        "BatchNorm2d/average",
    ),
    Mutant(
        "running variance is biased",
        "normal.var * (layout.cells / (layout.cells - 1))",
        "normal.var",
        "BatchNorm2d/plain",
    ),
    Mutant(
        "running variance is biased even in a large batch",
        "normal.var * (layout.cells / (layout.cells - 1))",
        "normal.var",
        "BatchNorm1d/large batch",
    ),
    Mutant(
        "momentum is reversed",
        "* (1.0 - factor) + batch * factor)",
        "* factor + batch * (1.0 - factor))",
        "BatchNorm2d/plain",
    ),
    Mutant(
        "momentum is given, but 0.1 is used",
        "if self.momentum is None else self.momentum",
        "if self.momentum is None else 0.1",
        "BatchNorm2d/eps 0.1, momentum",
    ),
    Mutant(
        "running variance is a standard deviation",
        '("running_var", unbiased)',
        '("running_var", unbiased**0.5)',
        "BatchNorm2d/plain",
    ),
    Mutant(
        "evaluation uses the batch's statistics",
        "if self.track_running_stats and not self.training:",
        "if False:",
        "BatchNorm2d/evaluation",
    ),
    Mutant(
        "number of batches starts one late",
        "1.0 / xp.astype(batches, like.dtype)",
        "1.0 / xp.astype(batches + 1, like.dtype)",
        "BatchNorm2d/average over all batches",
    ),
    Mutant("batches are not counted", "+ int(self.counts_batches), ())", ", ())", "BatchNorm2d/plain"),
    Mutant(
        "running statistics of instances are summed",
        "total(each, (0,), xp) / scalar(rows_of_all(each.shape[0]), each, xp)",
        "total(each, (0,), xp)",
        "InstanceNorm2d/running statistics",
    ),
    Mutant(
        "running mean goes to 0",
        '("running_mean", normal.mean)',
        '("running_mean", 0.0 * normal.mean)',
        "BatchNorm2d/plain",
    ),
    Mutant(
        "running statistics are rounded to float16",
        "+ batch * factor)",
        f"+ {half('batch')} * factor)",
        "BatchNorm2d/plain",
    ),
)

MAX_POOL_LAYER = (
    Mutant(
        "gradient goes to all tied cells",
        """
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        cell, geometry, x_shape = self._saved
        return scatter_maxima(dy, cell, x_shape, geometry, self.backend.xp)
""",
        """
        self.tied = [x[(slice(None), *index[:-1])] == y for index in geometry.windows.slices()]
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        cell, geometry, x_shape = self._saved
        share = lambda k: scatter_maxima(dy * self.tied[k], 0 * cell + k, x_shape, geometry, self.backend.xp)
        return sum(map(share, range(len(self.tied))))
""",
        "MaxPool2d/ties",
    ),
)

LOSS_BASE = (
    Mutant(
        "mean divides by the batch alone",
        "return total / scalar(rows_of_all(prod(losses.shape))",
        "return total / scalar(rows_of_all(losses.shape[0])",
        "MeanSquaredError/plain",
    ),
    Mutant(
        "gradient of a mean is that of a sum",
        "return slopes / scalar(rows_of_all(prod(shape)) or nan, slopes, xp)",
        "return slopes",
        "MeanSquaredError/plain",
    ),
    Mutant(
        "gradient of a sum is that of a mean",
        'if reduction != "mean":',
        'if reduction == "none":',
        "MeanSquaredError/sum",
    ),
    Mutant("upstream gradient is ignored", "slopes = slopes * dy", "slopes = slopes * 1.0", "MeanSquaredError/none"),
    Mutant(
        "sum is over the first axis alone, then a mean",
        "total = xp.sum(losses)",
        "total = xp.mean(xp.sum(losses, axis=0))",
        "MeanSquaredError/plain",
    ),
    Mutant(
        "sum is rounded to float16", "total = xp.sum(losses)", f"total = {half('xp.sum(losses)')}", "MeanSquaredError/"
    ),
    Mutant(
        "losses are rounded to 13 bits",
        "total = xp.sum(losses)",
        f"total = xp.sum({cut('losses', 13)})",
        "(MeanSquared|MeanAbsolute)Error/",
    ),
)

BINARY = (
    Mutant("lowest logarithm is -99", "LOWEST_LOG = -100.0", "LOWEST_LOG = -99.0", "BinaryCrossEntropy/certain"),
    Mutant(
        "smallest variance is 1e-7",
        "SMALLEST_VARIANCE = 9.999999960041972e-13",
        "SMALLEST_VARIANCE = 1e-7",
        "BinaryCrossEntropy/certain",
    ),
    Mutant(
        "probabilities are clamped to 1e-7",
        "yes = _log(xp.log, prediction, prediction == 0.0, xp)",
        "yes = xp.log(xp.clip(prediction, 1e-7, 1.0))",
        "BinaryCrossEntropy/certain",
    ),
    Mutant("no is forgotten", "-(target * yes + (1.0 - target) * no)", "-(target * yes)", "BinaryCrossEntropy/plain"),
    Mutant(
        "weights are forgotten in the gradient of probabilities",
        "slopes = (prediction - target) /",
        "weight, slopes = None, (prediction - target) /",
        "BinaryCrossEntropy/weights",
    ),
    Mutant(
        "gradient forgets the variance",
        "xp.where(variance < smallest, smallest, variance)",
        "1.0",
        "BinaryCrossEntropy/plain",
    ),
    Mutant(
        "logits overflow",
        "relu(-logits, xp=xp) + bend, relu(logits, xp=xp) + bend",
        "xp.log1p(xp.exp(-logits)), xp.log1p(xp.exp(logits))",
        "BinaryCrossEntropyWithLogits/all sizes",
    ),
    Mutant(
        "weight of yes is forgotten in the gradient",
        "yes = _weighted(target * sigmoid(-logits, xp=xp), pos_weight, xp)",
        "yes = target * sigmoid(-logits, xp=xp)",
        "BinaryCrossEntropyWithLogits/weights",
    ),
    Mutant(
        "weight of yes weighs no too",
        "_weighted(shared(target, yes), pos_weight, xp) + shared(1.0 - target, no)",
        "_weighted(shared(target, yes) + shared(1.0 - target, no), pos_weight, xp)",
        "BinaryCrossEntropyWithLogits/weights",
    ),
    Mutant(
        "target is forgotten in the gradient of logits",
        "(1.0 - target) * sigmoid(logits, xp=xp) - yes",
        "sigmoid(logits, xp=xp)",
        "BinaryCrossEntropyWithLogits/plain",
    ),
)

CLASSIFICATION = (
    Mutant(
        "gradient of probabilities divides by the batch alone",
        "shape = (logits.shape[0], *logits.shape[2:])\n",
        "shape = (logits.shape[0],)\n",
        "CrossEntropy/.*prob",
    ),
    Mutant(
        "weighted mean divides by the number of targets",
        "return reduce(losses, reduction, xp, count=xp.sum(share))",
        "return reduce(losses, reduction, xp)",
        "CrossEntropy/weights",
    ),
    Mutant(
        "mean counts ignored targets",
        "return reduce(losses, reduction, xp, count=xp.sum(share))",
        "return reduce(losses, reduction, xp)",
        "CrossEntropy/ignored targets",
    ),
    Mutant(
        "gradient's mean divides by the number of targets",
        "shape=tuple(target.shape), count=xp.sum(share))",
        "shape=tuple(target.shape))",
        "CrossEntropy/weights",
    ),
    Mutant(
        "gradient's mean counts ignored targets",
        "shape=tuple(target.shape), count=xp.sum(share))",
        "shape=tuple(target.shape))",
        "CrossEntropy/ignored targets",
    ),
    Mutant(
        "label smoothing is spread over the other classes",
        "losses + (label_smoothing / logits.shape[1])",
        "losses + (label_smoothing / (logits.shape[1] - 1))",
        "CrossEntropy/label smoothing",
    ),
    Mutant(
        "label smoothing is spread over the other classes in the gradient",
        "slopes + (label_smoothing / logits.shape[1])",
        "slopes + (label_smoothing / (logits.shape[1] - 1))",
        "CrossEntropy/label smoothing",
    ),
    Mutant(
        "label smoothing of probabilities is spread over the other classes",
        "target + label_smoothing / logits.shape[1]",
        "target + label_smoothing / (logits.shape[1] - 1)",
        "CrossEntropy/probabilities and label smoothing",
    ),
    Mutant(
        "class weights are forgotten in the gradient",
        "slopes = (p - one_hot(logits, index, xp)) * share",
        "slopes = p - one_hot(logits, index, xp)",
        "CrossEntropy/weights",
    ),
    Mutant(
        "class weights are forgotten in the gradient of label smoothing",
        "w = xp.ones_like(p) if weight is None else along_classes(weight, p, xp)",
        "w = xp.ones_like(p)",
        "CrossEntropy/weights and label",
    ),
    Mutant(
        "class weights are forgotten in label smoothing",
        "weighted = log_p if weight is None else times(log_p, along_classes(weight, log_p, xp), xp)",
        "weighted = log_p",
        "CrossEntropy/weights and label",
    ),
    Mutant(
        "class weights of probabilities are forgotten",
        "return target if weight is None else target * along_classes(weight, logits, xp)",
        "return target",
        "CrossEntropy/",
    ),
    Mutant(
        "gradient of probabilities takes them to add up to 1",
        "p * xp.sum(q, axis=1, keepdims=True) - q",
        "p - q",
        "CrossEntropy/",
    ),
    Mutant(
        "ignored targets are smoothed",
        "even = xp.where(kept[:, 0, ...], -xp.sum(weighted, axis=1), zero(losses, xp))",
        "even = -xp.sum(weighted, axis=1)",
        "CrossEntropy/",
    ),
    Mutant(
        "ignored targets have a gradient of label smoothing",
        "return primitives(xp).select(kept, slopes)",
        "return slopes",
        "CrossEntropy/",
    ),
    Mutant(
        "a class of probability 0 counts", "q * xp.where(q == 0.0, zero(q, xp), log_p)", "q * log_p", "CrossEntropy/"
    ),
    Mutant(
        "gradient is rounded to 13 bits",
        "slopes = (p - one_hot(logits, index, xp)) * share",
        f"p = {cut('p', 13)}\n        slopes = (p - one_hot(logits, index, xp)) * share",
        "CrossEntropy/weights",
    ),
    Mutant(
        "gradient has the wrong sign",
        "slopes = (p - one_hot(logits, index, xp)) * share",
        "slopes = (one_hot(logits, index, xp) - p) * share",
        "CrossEntropy/weights",
    ),
    Mutant(
        "gradient forgets the target",
        "slopes = (p - one_hot(logits, index, xp)) * share",
        "slopes = p * share",
        "CrossEntropy/weights",
    ),
    Mutant(
        "gradient where all targets count is rounded to 13 bits",
        "slopes *= share / ",
        f"slopes = {cut('slopes', 13)}\n        slopes *= share / ",
        "CrossEntropy/plain",
    ),
    Mutant(
        "gradient where all targets count has the wrong sign",
        "add_at(slopes, index, -share)",
        "add_at(-slopes, index, share)",
        "CrossEntropy/plain",
    ),
    Mutant(
        "gradient where all targets count forgets the target",
        "return primitives(xp).add_at(slopes, index, -share)",
        "return slopes",
        "CrossEntropy/plain",
    ),
    Mutant(
        "loss where all targets count takes a class for all",
        "at_target = engine.pick(shifted, index[part, ...])",
        "at_target = shifted[:, :1, ...]",
        "CrossEntropy/plain",
    ),
)

NLL = (
    Mutant("class of weight 0 gives NaN", "xp.where(share == 0.0, share, losses)", "losses", "NLL/"),
    Mutant("gradient has the wrong sign", "slopes = -share * one_hot", "slopes = share * one_hot", "NLL/plain"),
    Mutant(
        "class weights are forgotten in the gradient",
        "slopes = -share * one_hot(log_p, index, xp)",
        "slopes = -one_hot(log_p, index, xp)",
        "NLL/weights",
    ),
    Mutant(
        "weighted mean divides by the number of targets",
        "return reduce(picked(log_p, index, share, xp), reduction, xp, count=xp.sum(share))",
        "return reduce(picked(log_p, index, share, xp), reduction, xp)",
        "NLL/weights",
    ),
    Mutant(
        "ignored targets count as class 0",
        "return index, kept, xp.where(kept, share, zero(scores, xp))",
        "return index, kept, xp.where(kept, share, scalar(1.0, scores, xp))",
        "NLL/ignored targets",
    ),
    Mutant("class weights are squared", "share, losses) * share)[", "share, losses) * share * share)[", "NLL/weights"),
)

DIVERGENCE = (
    Mutant(
        "batchmean divides by all entries",
        'return reduce(losses, "sum", xp) / scalar(_samples(log_p) or nan, losses, xp)',
        'return reduce(losses, "mean", xp)',
        "KLDivergence/plain",
    ),
    Mutant(
        "batchmean's gradient divides by all entries",
        'return spread(slopes, dy, "sum", xp) / scalar(_samples(log_p) or nan, slopes, xp)',
        'return spread(slopes, dy, "mean", xp)',
        "KLDivergence/plain",
    ),
    Mutant(
        "entropy of the target is forgotten", "xp.where(absent, nothing, log_t) - log_p", "-log_p", "KLDivergence/mean"
    ),
    Mutant(
        "logarithm of the target is taken for the target in the gradient",
        "-xp.exp(target) if log_target else -target",
        "-target",
        "KLDivergence/logarithm",
    ),
    Mutant(
        "classes that the target lacks count",
        "losses = t * xp.where(unseen, nothing, xp.where(absent, nothing, log_t) - log_p)",
        "losses = t * (xp.where(absent, nothing, log_t) - log_p)",
        "KLDivergence/",
    ),
)

REGRESSION = (
    Mutant(
        "percentage error has slope 1 at 0",
        "100.0 * sign(prediction - target, xp)",
        "100.0 * xp.where(prediction >= target, 1.0, -1.0)",
        "MeanAbsolutePercentageError/ties",
    ),
    Mutant(
        "absolute error is bent near 0",
        "return spread(sign(prediction - target, xp), dy",
        "return spread(clip(prediction - target, 0.001, 1.0, xp), dy",
        "MeanAbsoluteError/",
    ),
    Mutant(
        "squared error's gradient forgets the 2",
        "2.0 * (prediction - target)",
        "(prediction - target)",
        "MeanSquaredError/plain",
    ),
    Mutant(
        "squared error's gradient has the wrong sign",
        "2.0 * (prediction - target)",
        "2.0 * (target - prediction)",
        "MeanSquaredError/plain",
    ),
    Mutant(
        "absolute error has slope 1 at 0",
        "return spread(sign(prediction - target, xp), dy",
        "return spread(xp.where(prediction >= target, 1.0, -1.0), dy",
        "MeanAbsoluteError/ties",
    ),
    Mutant(
        "log error's gradient is that of a plain logarithm",
        "2.0 * difference / (1.0 + prediction)",
        "2.0 * difference / prediction",
        "MeanSquaredLogError/plain",
    ),
    Mutant(
        "percentage error is a fraction", "reduce(100.0 * (apart", "reduce((apart", "MeanAbsolutePercentageError/plain"
    ),
    Mutant(
        "percentage error's gradient is of a fraction",
        "spread(100.0 * sign",
        "spread(sign",
        "MeanAbsolutePercentageError/plain",
    ),
    Mutant(
        "percentage error is of the prediction",
        "    size = _size(target, xp)\n    infinite",
        "    size = _size(prediction, xp)\n    infinite",
        "MeanAbsolutePercentageError/plain",
    ),
    Mutant(
        "percentage error divides by 1e-6 at least",
        "SMALLEST = 1e-7",
        "SMALLEST = 1e-6",
        "MeanAbsolutePercentageError/",
    ),
)

ROBUST = (
    Mutant(
        "smooth L1 with beta 0 is not the absolute error",
        "return mean_absolute_error(prediction, target, reduction=reduction, xp=xp)",
        "return 2.0 * mean_absolute_error(prediction, target, reduction=reduction, xp=xp)",
        "SmoothL1/",
    ),
    Mutant(
        "Huber forgets the half",
        "else near * (far - 0.5 * near)",
        "else near * (far - near)",
        "Huber/plain",
    ),
    Mutant(
        "Huber is twice as large near 0",
        "else near * (far - 0.5 * near)",
        "else 2.0 * near * (far - 0.5 * near)",
        "Huber/plain",
    ),
    Mutant(
        "Huber's gradient is cut at 1",
        "clip(prediction - target, delta, delta, xp)",
        "clip(prediction - target, 1.0, 1.0, xp)",
        "Huber/delta 0.3",
    ),
    Mutant(
        "Huber's gradient jumps to 1",
        "clip(prediction - target, delta, delta, xp)",
        "clip(prediction - target, delta, 1.0, xp)",
        "Huber/delta 0.3",
    ),
    Mutant(
        "smooth L1 is not divided by beta", "near / scalar(beta, far, xp) * (far", "near * (far", "SmoothL1/beta 0.3"
    ),
    Mutant(
        "smooth L1's gradient is not divided by beta",
        "spread(near / scalar(beta, near, xp), dy",
        "spread(near, dy",
        "SmoothL1/beta 0.3",
    ),
)

DROPOUT = (
    Mutant("what is kept is scaled by 1 - p", "mul, 1.0 / (1.0 - p)", "mul, 1.0 - p", "Dropout/plain"),
    Mutant("what is kept is scaled by 1 / p", "mul, 1.0 / (1.0 - p)", "mul, 1.0 / p", r"Dropout\d?d?/"),
    Mutant("what is kept is not scaled", "mul, 1.0 / (1.0 - p)", "mul, 1.0", "Dropout/plain"),
    Mutant(
        "gradient is not scaled",
        "return dropout(dy, keep, p, xp=xp)",
        "return dropout(dy * (1.0 - p), keep, p, xp=xp)",
        "Dropout/plain",
    ),
    Mutant(
        "mask is drawn again for the gradient",
        "        (keep,) = self._saved\n        return dy if",
        """        (keep,) = self._saved
        keep = self.stream.uniform(keep.shape, dtype="float32", backend=self.backend) >= self.p
        return dy if""",
        "Dropout/plain",
    ),
    Mutant(
        "gradient goes through what is dropped",
        "dropout_backward(dy, keep, self.p,",
        "dropout_backward(dy, keep | True, self.p,",
        "Dropout/plain",
    ),
    Mutant("what should be kept is dropped", ">= least", "< least", "Dropout/plain"),
    Mutant(
        "mask is of values, not channels", "return (*shape[:2], *(1,) * self.axes)", "return shape", "Dropout2d/plain"
    ),
    Mutant("evaluation drops too", "if not self.training or self.p == 0.0:", "if self.p == 0.0:", "Dropout/evaluation"),
    Mutant(
        "probability is taken from the other end",
        "least = ceil(self.p * 2.0**24) * 2.0**-24",
        "least = 1.0 - self.p",
        r"Dropout\d?d?/",
    ),
)

BRANCHES = (
    Mutant(
        "gradient of the shortcut is forgotten",
        'dy), (self.children.get("shortcut"), dy)), input_grad)',
        "dy),), input_grad)",
        "Residual/plain",
    ),
    Mutant(
        "gradient of the body is forgotten",
        "return self._sum([dy if way is None else way.backward(dy) for way, dy in ways])",
        "parts = [dy if way is None else way.backward(dy) for way, dy in ways]\n            return parts[-1]",
        "Residual/plain",
    ),
    Mutant("shortcut is not added", "y = self._sum((y, around))", "pass", "Residual/plain"),
    Mutant(
        "only the last branch is added", "engine.elementwise(add, total, b.up(array))", "b.up(array)", "Parallel/add"
    ),
    Mutant(
        "gradients of the branches are in the reverse order",
        "stop in pairwise(edges)]",
        "stop in list(pairwise(edges))[::-1]]",
        "Parallel/concat",
    ),
    Mutant(
        "gradient of a sum is shared out",
        "return [dy] * len(shapes)",
        "return [dy / len(shapes)] * len(shapes)",
        "Parallel/add",
    ),
    Mutant(
        "gradient of a concatenation is split one channel late",
        "return [dy[(*before, slice(start, stop), ...)]",
        "dy = self.backend.xp.roll(dy, -1, axis=axis)\n        return [dy[(*before, slice(start, stop), ...)]",
        "Parallel/concat",
    ),
    Mutant(
        "branches are joined in the reverse order",
        "concat(outputs, axis)",
        "concat(outputs[::-1], axis)",
        "Parallel/concat",
    ),
)

SHAPE = (
    Mutant(
        "gradient of an upsampling is a mean",
        "    for index in others:\n        dx = dx + cells[index]\n",
        "    for index in others:\n        dx = dx + cells[index]\n    dx = dx / (len(others) + 1)\n",
        "Upsample/plain",
    ),
    Mutant(
        "gradient of an upsampling is that of one cell", "dx = dx + cells[index]", "dx = cells[index]", "Upsample/plain"
    ),
    Mutant(
        "upsampling tiles",
        "xp.repeat(cells, times, axis=axis + 1)",
        "xp.concat([cells] * times, axis=axis + 1)",
        "Upsample/plain",
    ),
    Mutant(
        "factors of an upsampling are those of the other axis",
        'self.scale_factor = checks.size("scale_factor", scale_factor, axes)',
        'self.scale_factor = checks.size("scale_factor", scale_factor, axes)[::-1]',
        "Upsample/by axis",
    ),
    Mutant("value of padding is ignored", "geometry, value, xp), xp)", "geometry, 0.0, xp), xp)", "Pad/plain"),
    Mutant(
        "gradient of an upsampling adds up in 13 bits",
        "dx = dx + cells[index]",
        f"dx = dx + cells[index]\n        dx = {cut('dx', 13)}",
        "Upsample/",
    ),
)

CONTAINERS = (
    Mutant(
        "layers without weights are left out of backward",
        "dy = layers[i].backward(dy, input_grad=input_grad or i > first)",
        "dy = layers[i].backward(dy, input_grad=input_grad or i > first) if is_trained(layers[i]) else dy",
        "Sequential/nested",
    ),
    Mutant(
        "last layer's output is added to itself",
        "x = layer.forward(x)",
        "y, x = x, layer.forward(x)\n            x = x + y if x.shape == y.shape else x",
        "Sequential/nested",
    ),
)

PARAMETER = (
    Mutant(
        "gradient overwrites the last one",
        "total += term",
        "total[...] = term",
        "SGD/",
    ),
)

OPTIMIZER = (
    Mutant("decoupled weight decay is coupled", "if self.weight_decay and self.decoupled:", "if False:", "AdamW/"),
    Mutant(
        "coupled weight decay is decoupled",
        "if self.weight_decay and self.decoupled:",
        "if self.weight_decay:",
        "SGD/.*momentum",
    ),
    Mutant(
        "decoupled weight decay forgets the rate",
        "1.0 - self.lr * self.weight_decay",
        "1.0 - self.weight_decay",
        "AdamW/",
    ),
    Mutant(
        "weight decay has the wrong sign",
        "gradient + value * self.weight_decay",
        "gradient - value * self.weight_decay",
        "SGD/.*momentum",
    ),
    Mutant("gradients are not set to zero", "parameter.zero_grad()", "pass", "SGD/100 steps$"),
    Mutant(
        "weights are rounded to 13 bits",
        "value -= self._step(gradient, known, xp)",
        f"value -= self._step(gradient, known, xp)\n        value[...] = {cut('value', 13)}",
        "SGD/100 steps$",
    ),
    Mutant(
        "weights are rounded to 16 bits",
        "value -= self._step(gradient, known, xp)",
        f"value -= self._step(gradient, known, xp)\n        value[...] = {cut('value', 16)}",
        "SGD/100 steps$",
    ),
    Mutant(
        "decoupled weight decay comes after the step",
        "value -= self._step(gradient, known, xp)",
        """step = self._step(gradient, known, xp)
        kept = 1.0 - self.lr * self.weight_decay if self.decoupled else 1.0
        value -= step * kept""",
        "AdamW/",
    ),
)

ROOT = 'xp.sqrt(square) * factor(known["shrink"], gradient, xp)'
DAMPENED = 'gradient if known["fresh"] or not self.dampening else gradient * (1.0 - self.dampening)'
OPTIMIZERS = (
    Mutant(
        "Nesterov is forgotten",
        "(gradient + velocity * self.momentum if self.nesterov else velocity)",
        "velocity",
        "SGD/.*Nesterov",
    ),
    Mutant(
        "momentum is forgotten",
        'velocity *= 0.0 if known["fresh"] else self.momentum',
        "velocity *= 0.0",
        "SGD/100 steps, momentum",
    ),
    Mutant("dampening is forgotten", DAMPENED, "gradient", "SGD/"),
    Mutant(
        "dampening acts on the first step",
        DAMPENED,
        "gradient * (1.0 - self.dampening)",
        "SGD/",
    ),
    Mutant(
        "momentum is that of an average",
        DAMPENED,
        "gradient * (1.0 - self.momentum)",
        "SGD/100 steps, momentum",
    ),
    Mutant(
        "Adam's first bias correction is one step late",
        'state.get("power1", 1.0)',
        'state.get("power1", first)',
        "Adam/",
    ),
    Mutant(
        "Adam's second bias correction is one step late",
        'state.get("power2", 1.0)',
        'state.get("power2", second)',
        "Adam/",
    ),
    Mutant("Adam's first bias correction is forgotten", "self.lr / (1.0 - power1)", "self.lr", "Adam/"),
    Mutant(
        "Adam's second bias correction is forgotten",
        ROOT,
        "xp.sqrt(square)",
        "Adam/",
    ),
    Mutant(
        "Adam's second moment is not squared",
        "gradient * gradient * (1.0 - second)",
        "xp.abs(gradient) * (1.0 - second)",
        "Adam/",
    ),
    Mutant(
        "Adam's momenta are swapped",
        "first, second = self.betas\n        mean",
        "second, first = self.betas\n        mean",
        "Adam/",
    ),
    Mutant(
        "Adam's eps is inside the root",
        f"{ROOT} + self.eps",
        ROOT.replace("square", "square + self.eps"),
        "AdamW?/",
    ),
    Mutant(
        "Adam's eps is corrected too",
        f"{ROOT} + self.eps",
        ROOT.replace("xp.sqrt(square)", "(xp.sqrt(square) + self.eps)"),
        "AdamW?/",
    ),
    Mutant(
        "Adam's eps is forgotten",
        f"{ROOT} + self.eps",
        ROOT,
        "AdamW?/",
    ),
    Mutant(
        "Adam's beta is off in the fifth digit",
        "first, second = self.betas\n        mean",
        "first, second = self.betas\n        second = second * 1.00001\n        mean",
        "AdamW?/",
    ),
    Mutant(
        "RMSprop's eps is inside the root",
        "scaled = gradient / (xp.sqrt(square) + self.eps)",
        "scaled = gradient / xp.sqrt(square + self.eps)",
        "RMSprop/",
    ),
    Mutant(
        "RMSprop's eps is forgotten",
        "scaled = gradient / (xp.sqrt(square) + self.eps)",
        "scaled = gradient / xp.sqrt(square)",
        "RMSprop/",
    ),
    Mutant(
        "RMSprop is not centered",
        "square = xp.maximum(square - mean * mean, xp.zeros_like(mean))",
        "pass",
        "RMSprop/.*centered",
    ),
    Mutant(
        "RMSprop's alpha is reversed",
        "square *= self.alpha",
        "square *= 1.0 - self.alpha",
        "RMSprop/",
    ),
    Mutant(
        "RMSprop's momentum is forgotten",
        "velocity *= self.momentum\n        velocity",
        "velocity[...] = 0.0\n        velocity",
        "RMSprop/.*momentum",
    ),
    Mutant(
        "Adagrad's rate decays one step early",
        "1.0 + wide * self.lr_decay",
        "1.0 + (wide + 1) * self.lr_decay",
        "Adagrad/",
    ),
    Mutant(
        "Adagrad's sum is not squared",
        "total += gradient * gradient",
        "total += xp.abs(gradient)",
        "Adagrad/",
    ),
    Mutant("Adagrad's eps is forgotten", "(xp.sqrt(total) + self.eps)", "xp.sqrt(total)", "Adagrad/"),
    Mutant(
        "Adagrad's initial sum is forgotten",
        "total += self.initial_accumulator_value",
        "total += 0.0",
        "Adagrad/",
    ),
)

TABLE = {
    "backends.primitives": PRIMITIVES,
    "backends.contractions.windows": WINDOWS,
    "backends.numpy": NUMPY,
    "layers.core.geometry": GEOMETRY,
    "layers.core.arrays": ARRAYS,
    "layers.convolution.conv": CONV,
    "layers.convolution.columns": CONV_COLUMNS,
    "layers.convolution.problem": PROBLEM,
    "layers.convolution.banded": BANDED,
    "layers.convolution.winograd": WINOGRAD,
    "layers.convolution.conv_transpose": CONV_TRANSPOSE,
    "layers.dense": DENSE,
    "layers.pool.maximum": MAX_POOL,
    "layers.pool.layers": MAX_POOL_LAYER,
    "layers.pool.placing": PLACING,
    "layers.pool.average": AVERAGE_POOL,
    "layers.pool.lp": LP_POOL,
    "layers.pool.adaptive": ADAPTIVE_POOL,
    "layers.activations.rectifiers": RECTIFIERS,
    "layers.activations.sigmoids": SIGMOIDS,
    "layers.activations.smooth": SMOOTH,
    "layers.activations.erf": ERF,
    "layers.activations.softmax": SOFTMAX,
    "layers.normalisation.norm": NORM,
    "layers.normalisation.batch_norm": BATCH_NORM,
    "layers.losses.base": LOSS_BASE,
    "layers.losses.binary": BINARY,
    "layers.losses.classification": CLASSIFICATION,
    "layers.losses.nll": NLL,
    "layers.losses.divergence": DIVERGENCE,
    "layers.losses.regression": REGRESSION,
    "layers.losses.robust": ROBUST,
    "layers.dropout": DROPOUT,
    "layers.containers.branches": BRANCHES,
    "layers.shape": SHAPE,
    "layers.containers.sequential": CONTAINERS,
    "layers.core.parameter": PARAMETER,
    "training.optimizers.base": OPTIMIZER,
    "training.optimizers.rules": OPTIMIZERS,
}
