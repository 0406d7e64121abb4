"""Mistakes of sums of products over windows."""

from .mutant import Mutant

MUTANTS = (
    Mutant(
        "channels of the groups are mixed",
        "backends:Contractions._columns",
        "xp.moveaxis(xp.reshape(cells, (*cells.shape[:-1], groups, channels)), -2, 0)",
        "xp.moveaxis(xp.reshape(cells, (*cells.shape[:-1], channels, groups)), -1, 0)",
        "Conv[12]d/groups",
    ),
    Mutant(
        "upstream features of the groups are mixed",
        "backends:Contractions._rows",
        "self.xp.reshape(y, (rows, groups, features // groups))",
        "self.xp.permute_dims(self.xp.reshape(y, (rows, features // groups, groups)), (0, 2, 1))",
        "Conv[12]d/groups",
    ),
    Mutant(
        "output features of the groups are mixed",
        "backends:Contractions.contract",
        "xp.permute_dims(self.matmul(columns, w), (1, 0, 2))",
        "xp.reshape(xp.permute_dims(self.matmul(columns, w), (1, 2, 0)), (-1, groups, features))",
        "Conv[12]d/groups",
    ),
    Mutant(
        "channels of the groups are mixed in dx",
        "backends:Contractions._join_groups_in_cells",
        "self.xp.permute_dims(split, (1, 2, 0, 3))",
        "self.xp.permute_dims(split, (1, 2, 3, 0))",
        "Conv[12]d/groups",
    ),
    Mutant(
        "last window is left out of dweight",
        "backends:Contractions.contract_weight_gradient",
        "self.contract_rows(columns[0, ...], rows[0, ...], part)",
        "self.contract_rows(columns[0, :-1, :], rows[0, :-1, :], part)",
        "Conv2d/(plain|valid)",
    ),
    Mutant(
        "last sample is left out of dweight",
        "backends:Contractions.contract_weight_gradient",
        "self.contract_rows(columns[0, ...], rows[0, ...], part)",
        "k = columns.shape[1] - columns.shape[1] // x.shape[0]\n"
        "self.contract_rows(columns[0, :k, :], rows[0, :k, :], part)",
        "Conv2d/(plain|valid)",
    ),
    Mutant(
        "dweight of the last block only",
        "backends:sum_in_order",
        "total += parts[i, ...]",
        "total = parts[i, ...]",
        "Conv2d/(batch|40 channels)",
    ),
    Mutant(
        "dweight of a large matrix is that of its first rows",
        "backends:Contractions._weight_gradient_by_columns",
        "columns[:, chunks[i]]",
        "columns[:, :chunks[i].stop - chunks[i].start]",
        "Conv2d/120 channels",
    ),
    Mutant(
        "overlapping windows overwrite each other in dx",
        "backends:Contractions.contract_input_gradient",
        "sums[index] += columns[..., k, :]",
        "sums[index] = columns[..., k, :]",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "kernel is rotated in dx",
        "backends:Contractions.contract_input_gradient",
        "columns[..., k, :]",
        "columns[..., windows.cells - 1 - k, :]",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "kernel is not rotated in a transposed convolution",
        "backends:Contractions.contract_input_gradient",
        "columns[..., k, :]",
        "columns[..., windows.cells - 1 - k, :]",
        "ConvTranspose2d/plain",
    ),
    Mutant(
        "last kernel cell is left out of dx",
        "backends:Contractions.contract_input_gradient",
        "enumerate(windows.slices())",
        "list(enumerate(windows.slices()))[:-1]",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "sums of dx start with what is left there",
        "backends:Contractions.contract_input_gradient",
        "sums[...] = 0.0",
        "pass",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "convolution rounds its input to 13 bits",
        "backends:Contractions.contract",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...], w[0, ...])",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...] * 2049.0 - "
        "(columns[0, ...] * 2049.0 - columns[0, ...]), w[0, ...])",
        "Conv2d/",
    ),
    Mutant(
        "convolution rounds its input to 16 bits",
        "backends:Contractions.contract",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...], w[0, ...])",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...] * 257.0 - "
        "(columns[0, ...] * 257.0 - columns[0, ...]), w[0, ...])",
        "Conv2d/",
    ),
    Mutant(
        "convolution rounds its weight to 13 bits",
        "backends:Contractions.contract",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...], w[0, ...])",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...], w[0, ...] * "
        "2049.0 - (w[0, ...] * 2049.0 - w[0, ...]))",
        "Conv[23]d/",
    ),
    Mutant(
        "convolution rounds its sums to 16 bits",
        "backends:Contractions.contract",
        "if bias is not None:\n    y[first:last, ...] += xp.reshape(bias, (groups, features))",
        "y[first:last, ...] = y[first:last, ...] * 257.0 - (y[first:last, ...] * 257.0 - "
        "y[first:last, ...])\n"
        "if bias is not None:\n"
        "    y[first:last, ...] += xp.reshape(bias, (groups, features))",
        "Conv2d/",
    ),
    Mutant(
        "convolution rounds its sums to float16",
        "backends:Contractions.contract",
        "if bias is not None:\n    y[first:last, ...] += xp.reshape(bias, (groups, features))",
        "y[first:last, ...] = xp.astype(xp.astype(y[first:last, ...], xp.float16), xp.float32)\n"
        "if bias is not None:\n"
        "    y[first:last, ...] += xp.reshape(bias, (groups, features))",
        "Conv2d/plain",
    ),
    Mutant(
        "bias is forgotten by columns",
        "backends:Contractions.contract",
        "y[first:last, ...] += xp.reshape(bias, (groups, features))",
        "pass",
        "Conv2d/plain",
    ),
    Mutant(
        "bias of the groups is mixed",
        "backends:Contractions.contract",
        "xp.reshape(bias, (groups, features))",
        "xp.matrix_transpose(xp.reshape(bias, (features, groups)))",
        "Conv[12]d/groups",
    ),
    Mutant(
        "dx adds up in 13 bits",
        "backends:Contractions.contract_input_gradient",
        "sums[index] += columns[..., k, :]",
        "sums[index] = (lambda s: s * 2049.0 - (s * 2049.0 - s))(sums[index] + columns[..., k, :])",
        "Conv2d/",
    ),
    Mutant(
        "dweight rounds the columns to 13 bits",
        "backends:Contractions.contract_weight_gradient",
        "self.contract_rows(columns[0, ...], rows[0, ...], part)",
        "self.contract_rows(columns[0, ...] * 2049.0 - (columns[0, ...] * 2049.0 - columns[0, "
        "...]), rows[0, ...], part)",
        "Conv2d/",
    ),
    Mutant(
        "dx is float64 for float32",
        "backends:Contractions.contract_input_gradient",
        "xp.empty(shape, dtype=dy.dtype, device=device(dy))",
        "xp.empty(shape, dtype=xp.float64, device=device(dy))",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "convolution computes float64 in float32",
        "backends:Contractions.contract",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), columns[0, ...], w[0, ...])",
        "self.matmul_into(y, (slice(first, last), 0, slice(None)), xp.astype(columns[0, ...], "
        "xp.float32), xp.astype(w[0, ...], xp.float32))",
        "Conv2d/",
        "float64",
    ),
    Mutant(
        "blocks of the batch are joined in the wrong order",
        "backends:Contractions.contract",
        "self._columns(x, padding, block, windows, groups)",
        "self._columns(x, padding, blocks[-1 - i], windows, groups)",
        "Conv2d/batch in two blocks, stride 2",
    ),
    Mutant(
        "blocks of the batch are joined in the wrong order in dx",
        "backends:Contractions.contract_input_gradient",
        "dx[samples, ...] = sums[slice(None), *inside, slice(None)]",
        "dx[blocks[-1 - i].samples, ...] = sums[slice(None), *inside, slice(None)]",
        "Conv2d/batch in two blocks, stride 2",
    ),
    Mutant(
        "blocks of the batch meet the wrong upstream gradient in dweight",
        "backends:Contractions.contract_weight_gradient",
        "(blocks[j].samples, blocks[j].rows, ...)",
        "(blocks[-1 - j].samples, blocks[j].rows, ...)",
        "Conv2d/batch in two blocks, stride 2",
    ),
    Mutant(
        "padding goes to the other end of the first axis",
        "backends:Contractions.padded",
        "padding[0][0]",
        "padding[0][1]",
        "Conv2d/asymmetric padding",
    ),
    Mutant(
        "padding goes to the other end",
        "backends:Contractions.padded",
        "slice(low, low + n)",
        "slice(high, high + n)",
        "Conv2d/asymmetric padding",
    ),
    Mutant(
        "padding before is of ones",
        "backends:Contractions.padded",
        "strip[slice(None), *before_it, slice(0, part.start), ...] = 0.0",
        "strip[slice(None), *before_it, slice(0, part.start), ...] = 1.0",
        "Conv2d/",
    ),
    Mutant(
        "padding after is of ones",
        "backends:Contractions.padded",
        "strip[slice(None), *before_it, slice(part.stop, shape[axis]), ...] = 0.0",
        "strip[slice(None), *before_it, slice(part.stop, shape[axis]), ...] = 1.0",
        "Conv2d/",
    ),
    Mutant(
        "padding is of ones in dweight alone",
        "backends:Contractions.contract_weight_gradient",
        "columns = self._columns(x, padding, blocks[j], windows, groups)",
        "pads = [before + n + after for n, (before, after) in zip(x.shape[1:-1], padding)]\n"
        "ones = xp.ones((x.shape[0], *pads, x.shape[-1]), dtype=x.dtype)\n"
        "inside = (slice(before, before + n) for n, (before, _) in zip(x.shape[1:-1], padding))\n"
        "ones[slice(None), *inside, slice(None)] = x\n"
        "columns = self._columns(ones, ((0, 0),) * len(pads), blocks[j], windows, groups)",
        "Conv2d/plain",
    ),
    Mutant(
        "padding is cut off dx at the other end",
        "backends:Contractions.contract_input_gradient",
        "(slice(low, low + n) for n, (low, _) in zip(shape[1:-1], padding, strict=True))",
        "(slice(low, low + n) for n, (_, low) in zip(shape[1:-1], padding, strict=True))",
        "Conv2d/all differ by axis",
    ),
    Mutant(
        "cutting the padding off dx is off by one",
        "backends:Contractions.contract_input_gradient",
        "slice(low, low + n)",
        "slice(low - 1, low - 1 + n)",
        "Conv2d/all differ by axis",
    ),
    Mutant(
        "dilation is ignored in dx and in pools",
        "backends:Windows.slices",
        "slice(k * d, k * d + (o - 1) * s + 1, s)",
        "slice(k, k + (o - 1) * s + 1, s)",
        "(Conv2d|MaxPool2d)/dilation",
    ),
    Mutant(
        "cells of a kernel come in the reverse order",
        "backends:Windows.slices",
        "product(*map(range, self.kernel))",
        "reversed(list(product(*map(range, self.kernel))))",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "cells of a kernel come column by column",
        "backends:Windows.slices",
        "product(*map(range, self.kernel))",
        "(c[::-1] for c in product(*map(range, self.kernel[::-1])))",
        "Conv2d/same, stride 2",
    ),
    Mutant(
        "dilation is ignored in the strided view",
        "backends:NumpyContractions.windows",
        "zip(spatial, windows.dilation, strict=True)",
        "zip(spatial, [1] * len(spatial), strict=True)",
        "Conv[12]d/dilation",
    ),
    Mutant(
        "strides of the view are those of the other axis",
        "backends:NumpyContractions.windows",
        "zip(spatial, windows.stride, strict=True)",
        "zip(spatial, windows.stride[::-1], strict=True)",
        "Conv2d/all differ by axis",
    ),
    Mutant(
        "stride is ignored in the strided view",
        "backends:NumpyContractions.windows",
        "zip(spatial, windows.stride, strict=True)",
        "zip(spatial, [1] * len(spatial), strict=True)",
        "Conv2d/(same, stride 2|stride over kernel)",
    ),
    Mutant(
        "strided view takes the input as contiguous",
        "backends:NumpyContractions.windows",
        "x.strides[-1]",
        "x.itemsize",
        "Conv2d/(valid|kernel 1|stride over kernel)",
    ),
)
