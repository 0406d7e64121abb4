r"""
3. One matrix product: im2col and Winograd
==========================================

Written as loops, a convolution visits every window, and in it every cell. Computers are much better at one thing:
multiplying large matrices. This page copies the windows into a matrix, an idea of 2006 on which many libraries are
built, and then shows a trick that needs a quarter of the multiplications.
"""

import time
from math import prod

import drawing
import numpy as np

import xpnn as nn
from xpnn.backends import operations_of
from xpnn.backends.contractions.windows import Windows
from xpnn.functional import conv, conv_backward
from xpnn.layers.convolution.winograd_transforms import POINTS, transforms

backend = nn.get_backend()
xp = backend.xp


def array(numbers, dtype="float32"):
    """Numbers as an array of the backend."""
    return backend.asarray(np.asarray(numbers, dtype))


# %%
# Every window is a row
# ---------------------
# An image of :math:`3 \times 4` and a kernel of :math:`2 \times 2` have :math:`2 \times 3 = 6` windows of 4 cells. An
# output is the sum of four products: the scalar product of its window with the kernel, both read row by row as vectors.
# Six scalar products with one vector are a matrix times that vector,
#
# .. math::
#
#    Y = X_{\mathrm{col}} \; w , \qquad X_{\mathrm{col}} \in \mathbb{R}^{6 \times 4},
#
# where each row of :math:`X_{\mathrm{col}}` is a window. The name of this copy is *im2col*, image to columns, from
# programs that write windows as columns; here they are rows.
#
# The copy is itself a convolution. A kernel of zeros with a single 1 copies one cell of each window, and the
# :math:`f^2` kernels of that kind copy all cells:

image = array([[[[1, 2, 3, 1], [4, 5, 6, 1], [7, 8, 9, 1]]]])
kernel = array([[[[2, 2], [2, 2]]]])
pick = array(np.eye(4).reshape(4, 1, 2, 2))

cells = conv(image, pick)
columns = xp.permute_dims(xp.reshape(cells, (4, 6)), (1, 0))
print(backend.to_numpy(columns).astype(int))

assert cells.shape == (1, 4, 2, 3)
assert backend.to_numpy(columns[0]).tolist() == [1, 2, 4, 5]

# sphinx_gallery_start_ignore
colours = (*drawing.SERIES[:5], drawing.GREY)
axes = drawing.board(
    "Six copies of the image of three by four numbers. In each one a window of two by two cells is marked in its own "
    "colour: three windows along the upper two rows, three along the lower two.",
    15,
    9.4,
)
for number, colour in enumerate(colours):
    i, j = divmod(number, 3)
    left, top = 0.5 + 5 * j, 1.2 + 4.5 * i
    fill = np.full((3, 4), "white", dtype="<U9")
    fill[i : i + 2, j : j + 2] = drawing.light(colour)
    drawing.matrix(axes, image[0, 0], left, top, f"window {number}", fill)
    drawing.outline(axes, left + j, top + i, 2, 2, colour)
# sphinx_gallery_end_ignore

# %%
# The product has six numbers in the order of the windows, and *folding* them into two rows of three gives the plane of
# the output.

product = xp.matmul(columns, xp.reshape(kernel, (4, 1)))
y = xp.reshape(product, (1, 1, 2, 3))

assert backend.to_numpy(y[0, 0]).tolist() == [[24, 32, 22], [48, 56, 34]]
assert backend.to_numpy(y).tolist() == backend.to_numpy(conv(image, kernel)).tolist()

# sphinx_gallery_start_ignore
row_colours = [[drawing.light(colour)] * 4 for colour in colours]
axes = drawing.board(
    "The matrix of six rows, one for each window in its colour, times the kernel as a column of four twos is a column "
    "of six numbers, 24, 32, 22, 48, 56 and 34, which are folded into a matrix of two by three.",
    17.4,
    8.2,
)
drawing.matrix(axes, columns, 0.5, 1.5, "one row a window", row_colours)
drawing.sign(axes, "\N{MULTIPLICATION SIGN}", 5.1, 4.5)
drawing.matrix(axes, xp.reshape(kernel, (4, 1)), 5.7, 2.5, "kernel")
drawing.sign(axes, "=", 7.5, 4.5)
drawing.matrix(axes, product, 8.3, 1.5, "product", [[drawing.light(colour)] for colour in colours])
drawing.label(axes, "fold", 11.1, 4.0)
drawing.sign(axes, "\N{LONG RIGHTWARDS ARROW}", 11.1, 4.6)
folded_colours = np.array([drawing.light(colour) for colour in colours]).reshape(2, 3)
drawing.matrix(axes, y[0, 0], 13, 3.5, "output", folded_colours)
# sphinx_gallery_end_ignore

# %%
# The library does not multiply by ones and zeros to copy. :meth:`Operations.windows
# <xpnn.backends.operations.Operations.windows>` reads for each cell of the kernel a slice of the image (rows and
# columns in steps of the stride), of images with their channels last, and gives the same rows:

windows = Windows(kernel=(2, 2), stride=(1, 1), dilation=(1, 1), count=(2, 3))
cut = operations_of(xp).windows(xp.reshape(image, (1, 3, 4, 1)), windows)

assert backend.to_numpy(xp.reshape(cut, (6, 4))).tolist() == backend.to_numpy(columns).tolist()

# %%
# With :math:`C` channels a window has :math:`C f^2` cells, with :math:`F` filters the vector :math:`w` becomes a matrix
# with a column for each filter, and the windows of all :math:`N` images are rows of one tall matrix:
#
# .. math::
#
#    \underset{N H' W' \times F}{Y}
#    = \underset{N H' W' \times C f^2}{X_{\mathrm{col}}} \quad \underset{C f^2 \times F}{W^{T}} .
#
# Three lines are a whole convolution of a batch. (``groups=C`` applies the kernels that copy to each channel.)


def im2col(x, f):
    """The windows of ``x (N, C, H, W)`` as rows: ``(N, H', W', C f f)``."""
    channels = x.shape[1]
    copy = array(np.tile(np.eye(f * f), (channels, 1)).reshape(channels * f * f, 1, f, f))
    return xp.permute_dims(conv(x, copy, groups=channels), (0, 2, 3, 1))


def conv_by_product(x, weight):
    """Convolution of ``x (N, C, H, W)`` with ``weight (F, C, f, f)`` by one matrix product."""
    rows = im2col(x, weight.shape[-1])
    y = xp.matmul(rows, xp.permute_dims(xp.reshape(weight, (weight.shape[0], -1)), (1, 0)))
    return xp.permute_dims(y, (0, 3, 1, 2))


random = np.random.default_rng(0)
x, weight = array(random.standard_normal((4, 3, 16, 16))), array(random.standard_normal((8, 3, 3, 3)))
assert im2col(x, 3).shape == (4, 14, 14, 27)
np.testing.assert_allclose(
    backend.to_numpy(conv_by_product(x, weight)), backend.to_numpy(conv(x, weight)), rtol=1e-4, atol=1e-4
)

# %%
# :mod:`xpnn.layers.convolution.columns` is this, with strides, padding, dilation and groups.
#
# Folding a matrix of windows back
# --------------------------------
# In the backward pass the matrix of windows has a gradient, and the image needs one. Each entry of the matrix is a copy
# of one pixel, so the gradient of a pixel is the *sum* over all entries that were copied from it: windows are laid back
# on the image, and where they overlap they are added. That is *col2im*, the gradient of im2col.
#
# Fold the matrix of windows itself, and each pixel comes back as often as it was seen: the image times the heat map of
# the page before.

folded, _, _ = conv_backward(cells, image, pick)
seen, _, _ = conv_backward(xp.ones_like(cells), image, pick)

assert backend.to_numpy(seen[0, 0]).tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]]
assert backend.to_numpy(folded).tolist() == backend.to_numpy(image * seen).tolist()

# sphinx_gallery_start_ignore
axes = drawing.board(
    "The matrix of windows folded back by adding is the image times the number of windows that see each pixel: 1 in "
    "the corners, 2 at the borders, 4 inside.",
    16,
    4.9,
)
drawing.matrix(axes, folded[0, 0], 0.5, 1.3, "folded back by adding", drawing.shades(folded[0, 0]))
drawing.sign(axes, "=", 5.25, 2.8)
drawing.matrix(axes, image[0, 0], 6, 1.3, "image")
drawing.sign(axes, "\N{CIRCLED DOT OPERATOR}", 10.75, 2.8)
drawing.matrix(axes, seen[0, 0], 11.5, 1.3, "times seen", drawing.shades(seen[0, 0], drawing.ORANGE))
# sphinx_gallery_end_ignore

# %%
# Why it is fast
# --------------
# The product has exactly as many multiplications as the loops, and before it :math:`f^2` times the image is written to
# memory. It wins all the same, for two reasons. A loop in Python costs much more than the product inside it. And a
# number that has travelled from memory to a processor should be used many times before it leaves again: a product of an
# :math:`M \times K` by a :math:`K \times F` matrix makes :math:`M K F` products of :math:`MK + KF + MF` numbers. A
# scalar product alone, :math:`M = F = 1`, uses each number once; with 128 filters that read 64 channels, 101 products
# are made for each number that is moved.


def conv_by_loops(x, weight):
    """The definition, as loops over windows."""
    n, _, height, width = x.shape
    features, _, f, _ = weight.shape
    y = np.zeros((n, features, height - f + 1, width - f + 1), "float32")
    for sample, feature, i, j in np.ndindex(y.shape):
        y[sample, feature, i, j] = np.sum(x[sample, :, i : i + f, j : j + f] * weight[feature])
    return y


on_host, weight_on_host = backend.to_numpy(x), backend.to_numpy(weight)
seconds = {}
for name, function in (("loops over windows", conv_by_loops), ("conv", conv)):
    function(on_host, weight_on_host)
    start = time.perf_counter()
    result = function(on_host, weight_on_host)
    seconds[name] = time.perf_counter() - start
    np.testing.assert_allclose(result, backend.to_numpy(conv(x, weight)), rtol=1e-4, atol=1e-4)
    print(f"{name:20} {1000 * seconds[name]:8.2f} ms on this CPU")

assert seconds["loops over windows"] > 5 * seconds["conv"]

filters = 2 ** np.arange(8)
m = 56 * 56
products_per_number = {k: m * k * filters / (m * k + k * filters + m * filters) for k in (3 * 9, 64 * 9)}
assert [round(each[-1]) for each in products_per_number.values()] == [22, 101]

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Products for each number that is read or written, against the number of filters from 1 to 128, for 3 and for 64 "
    "channels. Both curves rise: from about 1 for one filter to 22 for 3 channels and 101 for 64 channels.",
    size=(5.6, 3.2),
)
for (k, uses), colour, line in zip(
    products_per_number.items(), (drawing.ORANGE, drawing.BLUE), ("--", "-"), strict=True
):
    axes[0, 0].plot(filters, uses, line, color=colour, marker="o", label=f"{k // 9} channels")
axes[0, 0].set_xscale("log", base=2, subs=[])
axes[0, 0].set_xticks(filters, filters)
axes[0, 0].set(xlabel="filters (3 x 3 kernels on 56 x 56 windows)", ylabel="products per number moved")
axes[0, 0].legend(frameon=False)
axes[0, 0].spines[["top", "right"]].set_visible(False)
# sphinx_gallery_end_ignore

# %%
# Libraries for matrix products (BLAS) order the work so that numbers are used again while they are in a cache, and the
# library writes the matrix for a few images at a time, so that it stays there too and :math:`f^2` times the memory is
# never needed at once.
#
# Winograd: fewer products
# ------------------------
# Two neighbouring outputs of a kernel of three numbers are
#
# .. math::
#
#    y_0 &= d_0 g_0 + d_1 g_1 + d_2 g_2, \\
#    y_1 &= d_1 g_0 + d_2 g_1 + d_3 g_2 ,
#
# six products. Four are enough, and school algebra says why: polynomials. Multiply :math:`u(t) = u_0 + u_1 t` by
# :math:`g(t) = g_0 + g_1 t + g_2 t^2`. The coefficients of the product :math:`s(t)` are the full convolution of the two
# lists of coefficients. But :math:`s` has degree 3, so it is known from its values at four points, and a value is *one*
# product: :math:`s(t_j) = u(t_j)\, g(t_j)`. Take the points :math:`0, 1, -1` and, as the fourth, infinity, where the
# value means the leading coefficient.
#
# Write evaluation of :math:`u` as a matrix :math:`A`, that of :math:`g` as :math:`G`, and interpolation as :math:`B`
# (Lagrange's denominators are put into :math:`G`):
#
# .. math::
#
#    s = B \,\bigl[ (G g) \odot (A u) \bigr] = B \,\mathrm{diag}(G g)\, A \; u .
#
# Convolution with :math:`g` is the matrix :math:`B\,\mathrm{diag}(Gg)\,A`, which makes 4 numbers of 2. Its transpose
# makes 2 of 4, and the transpose of a full convolution is the correlation that we want, as the next page shows:
#
# .. math::
#
#    y = A^{T} \,\bigl[ (G g) \odot (B^{T} d) \bigr] .
#
# The four products are those of :math:`\odot`. In an image this is done along both axes,
#
# .. math::
#
#    Y = A^{T} \,\bigl[ (G g G^{T}) \odot (B^{T} d B) \bigr]\, A .
#
# :func:`~xpnn.layers.convolution.winograd_transforms.transforms` makes the three matrices from the points:

b_t, g, a_t = (np.array(each) for each in transforms(POINTS[2], 2))

# sphinx_gallery_start_ignore
axes = drawing.board(
    "The three matrices for tiles of two outputs: B transposed, four by four, of 0, 1 and minus 1; G, four by three, "
    "with 1 and one half; A transposed, two by four, of 0, 1 and minus 1.",
    14.4,
    6.2,
)
drawing.matrix(axes, b_t, 0.5, 1.4, "$B^T$", drawing.shades(b_t))
drawing.matrix(axes, g, 5.7, 1.4, "$G$", drawing.shades(g, drawing.ORANGE), digits=1)
drawing.matrix(axes, a_t, 9.9, 2.4, "$A^T$", drawing.shades(a_t, drawing.GREEN))

d, kernel_of_three = np.array([3.0, 1.0, 4.0, 1.0]), np.array([2.0, 7.0, 1.0])
four_products = (g @ kernel_of_three) * (b_t @ d)
assert len(four_products) == 4
np.testing.assert_allclose(a_t @ four_products, np.correlate(d, kernel_of_three, mode="valid"))
# sphinx_gallery_end_ignore

# %%
# An :math:`m \times m` tile of outputs reads :math:`n \times n` inputs with :math:`n = m + 2` and needs :math:`n^2`
# products instead of :math:`9 m^2`. With :math:`m = 4` these are **36 instead of 144**.


def winograd(tile, kernel, m):
    """One tile of outputs, ``(m, m)``, of a tile of inputs ``(m + 2, m + 2)``, and how many products it took."""
    b_t, g, a_t = (array(each, "float64") for each in transforms(POINTS[m], m))
    products = (g @ kernel @ g.T) * (b_t @ tile @ b_t.T)
    return a_t @ products @ a_t.T, prod(products.shape)


tile, kernel = array(random.standard_normal((6, 6)), "float64"), array(random.standard_normal((3, 3)), "float64")
outputs, count = winograd(tile, kernel, m=4)
by_definition = conv(tile[None, None], kernel[None, None])[0, 0]

assert count == 36
assert prod(outputs.shape) * prod(kernel.shape) == 144
np.testing.assert_allclose(backend.to_numpy(outputs), backend.to_numpy(by_definition), rtol=1e-10, atol=1e-12)

# %%
# The transforms cost additions and multiplications too. They pay off where there are many channels and filters: a tile
# is transformed once for all filters, a kernel once for all tiles, and the sum over channels stands between, as
# :math:`n^2` matrix products,
#
# .. math::
#
#    Y_f = A^{T} \Bigl[ \sum_{c} (G g_{fc} G^{T}) \odot (B^{T} d_c B) \Bigr] A .
#
# Larger tiles save more, but the numbers in :math:`B` and :math:`A` grow, results are differences of larger numbers,
# and rounding errors with them. Measured on random tiles of 64 channels in float32:


def relative_error(m, tiles=200, channels=64):
    """Root mean square error of a tile in float32, relative to that of the outputs."""
    d = random.standard_normal((tiles, channels, m + 2, m + 2), "float32")
    g = random.standard_normal((1, channels, 3, 3), "float32")
    exact = conv(array(d, "float64"), array(g, "float64"))[:, 0]
    b_t, of_kernel, a_t = (array(each) for each in transforms(POINTS[m], m))
    products = (of_kernel @ array(g) @ of_kernel.T) * (b_t @ array(d) @ b_t.T)
    outputs = a_t @ xp.sum(products, axis=1) @ a_t.T
    exact, outputs = backend.to_numpy(exact), backend.to_numpy(outputs)
    return np.sqrt(np.mean((outputs - exact) ** 2) / np.mean(exact**2))


sizes = (2, 4, 5)
errors = [relative_error(m) for m in sizes]
saved = [9 * m * m / (m + 2) ** 2 for m in sizes]
for m, error, factor in zip(sizes, errors, saved, strict=True):
    print(f"m = {m}: {factor:.2f} times fewer products, error {error:.1e}")

assert saved[:2] == [2.25, 4.0]
assert errors[0] < errors[1] < errors[2] < 1e-5

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Two bar charts for tiles of 2, 4 and 5 outputs a side. Products are saved 2.25, 4 and 4.59 times. The relative "
    "error in float32 grows from a few ten-millionths to more than a millionth.",
    1,
    2,
    size=(6.4, 2.8),
)
for panel, heights, title in ((axes[0, 0], saved, "times fewer products"), (axes[0, 1], errors, "relative error")):
    bars = panel.bar([f"m = {m}" for m in sizes], heights, color=drawing.BLUE, width=0.6)
    panel.bar_label(bars, [f"{h:.2f}" if h > 1 else f"{h:.1e}" for h in heights], fontsize=9)
    panel.set_title(title)
    panel.set_yticks([])
    panel.spines[["top", "right", "left"]].set_visible(False)
# sphinx_gallery_end_ignore

# %%
# :class:`~xpnn.layers.convolution.winograd.Winograd` is this formula for a whole batch; its page of the source has the
# table of errors from which its points were chosen. Where the last bits matter more than time,
# ``conv(..., algorithms="direct")`` and ``numerics="exact"`` do without.

x = array(random.standard_normal((2, 64, 20, 20)))
weight = array(random.standard_normal((64, 64, 3, 3)) / 24)
chosen, direct = conv(x, weight), conv(x, weight, algorithms="direct")
np.testing.assert_allclose(backend.to_numpy(chosen), backend.to_numpy(direct), atol=1e-4)

# %%
# The next page writes a convolution as a matrix in another way, one that shows what makes it different from a dense
# layer: :doc:`plot_04_dense_matrix`.
#
# Sources: K. Chellapilla et al., "High performance convolutional neural networks for document processing", 2006; A.
# Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2016.
