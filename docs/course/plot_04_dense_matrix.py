r"""
4. A dense layer with its connections cut
=========================================

A dense layer connects each input with each output, and each connection has a weight of its own. A convolution is a
dense layer too, with two restrictions: most connections are cut, and those that are left share a few weights. This
page writes down the matrix and counts.
"""

import drawing
import numpy as np
from sklearn.datasets import load_digits

import xpnn as nn
from xpnn.functional import conv, conv_backward, conv_transpose, dense

backend = nn.get_backend()
xp = backend.xp


def array(numbers):
    """Numbers as a float32 array of the backend."""
    return backend.asarray(np.asarray(numbers, "float32"))


# %%
# The matrix of a convolution
# ---------------------------
# Let :math:`\mathrm{vec}(x)` be the image as one long vector, row after row. A convolution is linear in :math:`x`, so
# there is a matrix :math:`T` with
#
# .. math::
#
#    \mathrm{vec}(y) &= T \, \mathrm{vec}(x), \\
#    T_{(i, j),\, (a, b)} &= w[a - i,\, b - j]
#
# where :math:`(a - i,\, b - j)` is a cell of the kernel, and 0 everywhere else.
#
# Row :math:`(i, j)` has the weights with which output :math:`(i, j)` sees each pixel. Column :math:`(a, b)` is the
# output for an image that is 1 at the pixel :math:`(a, b)` and 0 elsewhere, as for every linear map. So all columns
# come from one batch of such images, the rows of a unit matrix:


def matrix_of(function, *shape):
    """The matrix of a linear function of images of this shape ``(C, H, W)``."""
    size = int(np.prod(shape))
    columns = function(array(np.eye(size).reshape(size, *shape)))
    return xp.permute_dims(xp.reshape(columns, (size, -1)), (1, 0))


weight = array(np.arange(1, 10).reshape(1, 1, 3, 3))
matrix = matrix_of(lambda x: conv(x, weight), 1, 4, 4)

assert matrix.shape == (4, 16)
assert backend.to_numpy(matrix[0]).tolist() == [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0]

# sphinx_gallery_start_ignore
colour = np.array(["white", *map(drawing.light, drawing.SERIES)])
axes = drawing.board(
    "A kernel of three by three cells, 1 to 9, each in its own colour, and below it the matrix of four rows and 16 "
    "columns. Each row has the nine numbers in groups of three, with zeros between them; from one row to the next they "
    "move to the right, by one column, or by three where a row of the image ends.",
    17,
    10.4,
)
drawing.matrix(axes, weight[0, 0], 7, 1, "kernel", colour[backend.to_numpy(weight[0, 0]).astype(int)])
drawing.matrix(
    axes,
    matrix,
    0.5,
    6,
    "T: a row for each output, a column for each pixel",
    colour[backend.to_numpy(matrix).astype(int)],
)
# sphinx_gallery_end_ignore

# %%
# A dense layer with these weights computes the same as the convolution: :func:`xpnn.functional.dense` multiplies by the
# matrix as it is.

x = array(np.random.default_rng(0).integers(0, 10, (1, 1, 4, 4)))
flat = xp.reshape(x, (1, 16))
assert backend.to_numpy(dense(flat, matrix)).tolist() == backend.to_numpy(conv(x, weight)).reshape(1, 4).tolist()

# %%
# The colours show both restrictions. White is *cut*: an output is connected with its window only. Equal colours are
# *shared*: each weight is in every row once. Padding, strides and channels are other patterns of the same kind, all
# made by the function above. With padding, rows of outputs at the border have fewer weights, because the others meet
# zeros. With stride 2, only some of the rows are left. Two channels and two filters make a matrix of :math:`2 \times 2`
# blocks, and with ``groups=2`` those off the diagonal are cut as well.

two_by_two = array(np.tile(np.arange(1, 10).reshape(3, 3), (2, 2, 1, 1)))
one_each = two_by_two[:, :1]
patterns = {
    "valid": matrix_of(lambda x: conv(x, weight), 1, 6, 6),
    "same": matrix_of(lambda x: conv(x, weight, padding="same"), 1, 6, 6),
    "stride 2": matrix_of(lambda x: conv(x, weight, stride=2), 1, 6, 6),
    "dilation 2": matrix_of(lambda x: conv(x, weight, dilation=2), 1, 6, 6),
    "two channels, two filters": matrix_of(lambda x: conv(x, two_by_two), 2, 5, 5),
    "groups=2": matrix_of(lambda x: conv(x, one_each, groups=2), 2, 5, 5),
}
assert patterns["valid"].shape == (16, 36)
assert patterns["same"].shape == (36, 36)
assert patterns["stride 2"].shape == (4, 36)
assert patterns["groups=2"].shape == (18, 50)

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Six matrices with a colour for each weight of the kernel and white for zero. Valid: diagonal stripes in three "
    "bands. Same: the same stripes in a square matrix with gaps at the borders. Stride 2 and dilation 2: four rows "
    "each. Two channels and two filters: four blocks of stripes. Groups: two blocks on the diagonal.",
    3,
    2,
    size=(6.4, 5.2),
    height_ratios=(2, 0.5, 1.2),
)
for panel, (name, numbers) in zip(axes.flat, patterns.items(), strict=True):
    rows, columns = numbers.shape
    drawing.pattern(panel, numbers, f"{name}: {rows} x {columns}")
# sphinx_gallery_end_ignore

# %%
# Counting
# --------
# Let an input have :math:`C` channels of :math:`n \times n` and an output :math:`F` channels of :math:`n' \times n'`.
#
# ===========================  ==========================================
# layer                        number of weights
# ===========================  ==========================================
# dense                        :math:`C n^2 \cdot F n'^2`
# cut, not shared              :math:`F n'^2 \cdot C f^2`
# cut and shared (a conv)      :math:`F \cdot C f^2`
# ===========================  ==========================================
#
# These are the size of the matrix, the entries that are not zero, and the different ones among these.


def count(channels, n, filters, f):
    """Numbers of weights: dense, cut, and cut and shared."""
    windows = (n - f + 1) ** 2
    return channels * n * n * filters * windows, filters * windows * channels * f * f, filters * channels * f * f


different = array(np.arange(1, 37).reshape(2, 2, 3, 3))
numbers = backend.to_numpy(matrix_of(lambda x: conv(x, different), 2, 5, 5))
assert count(2, 5, 2, 3) == (numbers.size, np.count_nonzero(numbers), np.unique(numbers[numbers != 0]).size)

# %%
# For a small colour image of :math:`3 \times 32 \times 32` and six filters of :math:`5 \times 5`:

whole, cut, shared = count(channels=3, n=32, filters=6, f=5)
of_dense = nn.Dense(3 * 32 * 32, 6 * 28 * 28).parameters["weight"].shape
of_conv = nn.Conv2d(3, 6, 5).parameters["weight"].shape
assert whole == np.prod(of_dense) == 14_450_688
assert cut == 352_800
assert shared == np.prod(of_conv) == 450
print(f"dense {whole:,}   cut {cut:,}   cut and shared {shared:,}, and 6 biases")

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Bars on a logarithmic scale: 14,450,688 weights of a dense layer, 352,800 if connections are cut, 450 if the "
    "weights are shared too.",
    size=(6.4, 2.0),
)
bars = axes[0, 0].barh(["dense", "cut", "cut and shared"], [whole, cut, shared], color=drawing.BLUE, height=0.6)
axes[0, 0].bar_label(bars, [f" {number:,}" for number in (whole, cut, shared)])
axes[0, 0].set(xscale="log", xlim=(100, 1e9), xlabel="weights")
axes[0, 0].invert_yaxis()
axes[0, 0].spines[["top", "right"]].set_visible(False)
# sphinx_gallery_end_ignore

# %%
# The same in one dimension, with all connections drawn: eight inputs below, six outputs above, and a kernel of three.
# Each line is an entry of a matrix that is not zero.

line_weight = array([[[1, 2, 3]]])
stripes = backend.to_numpy(matrix_of(lambda x: conv(x, line_weight), 1, 8))
every = backend.to_numpy(nn.Dense(8, 6, backend=backend, seed=0).parameters["weight"].value)
connected = {"dense": every, "cut": every * (stripes != 0), "cut and shared": stripes}
assert [np.count_nonzero(each) for each in connected.values()] == [48, 18, 18]
assert [np.unique(each[each != 0]).size for each in connected.values()] == [48, 18, 3]

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Three drawings of eight inputs below six outputs. Dense: 48 grey lines, each input to each output. Cut: 18 grey "
    "lines, three to each output. Cut and shared: the same 18 lines in three colours, the same three for each output.",
    1,
    3,
    size=(6.4, 2.2),
)
for panel, (name, numbers) in zip(axes[0], connected.items(), strict=True):
    for output, source in np.argwhere(numbers):
        is_shared = name == "cut and shared"
        of_line = drawing.SERIES[int(numbers[output, source]) - 1] if is_shared else drawing.GREY
        panel.plot([source, output + 1], [0, 1], color=of_line, linewidth=2 if name != "dense" else 1)
    panel.plot(np.arange(8), np.zeros(8), "o", color=drawing.BLACK, markersize=7)
    panel.plot(np.arange(1, 7), np.ones(6), "o", color=drawing.BLACK, markersize=7)
    weights = np.unique(numbers[numbers != 0]).size
    panel.set_title(f"{name}: {weights} weights")
    panel.axis("off")
# sphinx_gallery_end_ignore

# %%
# What sharing means
# ------------------
# Fewer weights need fewer examples to be learned. But sharing says something about images too: what is an edge at one
# place is an edge at every other. All rows of :math:`T` are one row, moved. So if the image moves, the output moves
# with it, and does not change otherwise:
#
# .. math::
#
#    x'[i, j] = x[i - a,\, j - b] \\
#    \Longrightarrow\quad y'[i, j] = y[i - a,\, j - b] .
#
# Convolution is *equivariant* to shifts. A layer that is cut but not shared is not: here both look at a digit and at
# the same digit three pixels further right and two further down.

digit = load_digits().images[3] / 16
here = array(np.pad(digit, ((1, 5), (1, 5)))[None, None])
there = array(np.pad(digit, ((3, 3), (4, 2)))[None, None])
kernel = array(np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None])
connections = matrix_of(lambda x: conv(x, kernel), 1, 14, 14) != 0
random = array(np.random.default_rng(1).standard_normal((144, 196)))
unshared = xp.where(connections, random, xp.zeros_like(random))


def locally(x):
    """The layer whose weights are not shared."""
    return xp.reshape(dense(xp.reshape(x, (1, -1)), unshared), (1, 1, 12, 12))


by_conv = [backend.to_numpy(conv(x, kernel)) for x in (here, there)]
by_unshared = [backend.to_numpy(locally(x)) for x in (here, there)]
assert (by_conv[1][..., 2:, 3:] == by_conv[0][..., :-2, :-3]).all()
assert np.abs(by_unshared[1][..., 2:, 3:] - by_unshared[0][..., :-2, :-3]).max() > 1

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Two rows: a handwritten 3 at the upper left, and the same 3 moved to the lower right. The convolution gives the "
    "same edges, moved in the same way. The layer without shared weights gives two patterns of noise that have nothing "
    "in common.",
    2,
    3,
    size=(6.4, 4.4),
)
for row, x in enumerate((here, there)):
    drawing.image(axes[row, 0], -x[0, 0], "input" if row == 0 else "")
    drawing.signed(axes[row, 1], by_conv[row][0, 0], "convolution" if row == 0 else "", largest=4)
    drawing.signed(axes[row, 2], by_unshared[row][0, 0], "cut, not shared" if row == 0 else "", largest=4)
# sphinx_gallery_end_ignore

# %%
# (At the borders this holds as far as the window stays inside the image, and with stride :math:`s` for shifts by
# multiples of :math:`s`.)
#
# The transpose
# -------------
# The transposed matrix goes from outputs back to pixels: entry :math:`T^{T}_{(a, b), (i, j)}` is the weight with which
# output :math:`(i, j)` has seen pixel :math:`(a, b)`. Each row of :math:`T` becomes a column, so :math:`T^{T} v` adds
# up kernels that are laid on the image at every output and multiplied with its number. That is the *transposed
# convolution*, :func:`xpnn.functional.conv_transpose`, with which nets make images larger.

to_pixels = matrix_of(lambda v: conv_transpose(v, weight), 1, 2, 2)
assert to_pixels.shape == (16, 4)
assert backend.to_numpy(to_pixels).tolist() == backend.to_numpy(matrix).T.tolist()

# %%
# And it is the backward pass. If :math:`L` depends on :math:`y = T x`, then
# :math:`\partial L / \partial x = T^{T} \, \partial L / \partial y`, so the gradient of the input is the transposed
# convolution of the gradient of the output, with the same weights:

dy = array([[[[1, -1], [2, 3]]]])
dx, _, _ = conv_backward(dy, x=array(np.zeros((1, 1, 4, 4))), weight=weight)
assert backend.to_numpy(dx).tolist() == backend.to_numpy(conv_transpose(dy, weight)).tolist()
assert backend.to_numpy(dx).ravel().tolist() == backend.to_numpy(xp.matmul(to_pixels, xp.reshape(dy, (4,)))).tolist()

# sphinx_gallery_start_ignore
axes = drawing.board(
    "A gradient of two by two numbers, 1, minus 1, 2 and 3, and its transposed convolution: four by four numbers, "
    "in which four copies of the kernel, times these numbers, are added up where they overlap.",
    14,
    6.2,
)
drawing.matrix(axes, dy[0, 0], 0.5, 2.2, "dy", drawing.shades(dy[0, 0]))
drawing.matrix(axes, weight[0, 0], 4, 1.7, "kernel", drawing.shades(weight[0, 0], drawing.ORANGE))
drawing.sign(axes, "\N{LONG RIGHTWARDS ARROW}", 8, 3.2)
drawing.matrix(axes, dx[0, 0], 9, 1.2, r"$T^T$ dy", drawing.shades(dx[0, 0]))
# sphinx_gallery_end_ignore

# %%
# The next page derives this without matrices, together with the gradients of weights and bias:
# :doc:`plot_05_backward`.
