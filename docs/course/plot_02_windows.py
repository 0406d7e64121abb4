r"""
2. Padding, strides and volumes
===============================

A kernel of :math:`f \times f` is laid on an image of :math:`n \times n`. How many places are there for it, which pixels
does it see, and what is the shape of the result when the image has channels and the layer many filters? Everything on
this page follows from counting windows along one axis.
"""

import drawing
import numpy as np
from sklearn.datasets import load_sample_image

import xpnn as nn
from xpnn.functional import conv, conv_backward, pad_constant
from xpnn.layers.windows.geometry import output_size, resolve_padding

backend = nn.get_backend()


def array(numbers):
    """Numbers as a float32 array of the backend."""
    return backend.asarray(np.asarray(numbers, "float32"))


# %%
# Valid and same
# --------------
# Along one axis the window that begins at cell :math:`o` covers the cells :math:`o, \dots, o + f - 1`. It lies inside
# the image if :math:`o \ge 0` and :math:`o + f - 1 \le n - 1`, which leaves
#
# .. math::
#
#    n - f + 1
#
# places, and so the output of a *valid* convolution is smaller than its input by :math:`f - 1`. After ten layers with
# :math:`f = 5` an image of 40 pixels is gone.
#
# If :math:`p` zeros are put before and after each axis, :math:`n` becomes :math:`n + 2p`. The output is as large as the
# input, a *same* convolution, if
#
# .. math::
#
#    n + 2p - f + 1 = n \quad\Longleftrightarrow\quad p = \frac{f - 1}{2} .
#
# That is a whole number for odd :math:`f` only, which is one reason why kernels are odd (the other is that they have a
# middle). For even :math:`f` the two sides differ by one zero; ``"same"`` puts it after the image.

image = array(np.ones((1, 1, 6, 6)))
kernel = array(np.ones((1, 1, 3, 3)))

assert conv(image, kernel, padding="valid").shape == (1, 1, 4, 4)
assert conv(image, kernel, padding="same").shape == (1, 1, 6, 6)
for f in (1, 3, 5, 7):
    assert resolve_padding("same", (6,), f, 1, 1) == (((f - 1) // 2, (f - 1) // 2),)
assert resolve_padding("same", (6,), 4, 1, 1) == ((1, 2),)

# %%
# How often each pixel is seen
# ----------------------------
# Padding does more than keep the size. Pixel :math:`i` is seen by the windows that begin at :math:`i - f + 1` to
# :math:`i`, as far as they exist, so by
#
# .. math::
#
#    c_i = {} & \min(i,\, n - f) \\
#             & - \max(0,\, i - f + 1) + 1
#
# of them, and in two dimensions by :math:`c_i \, c_j`. A corner is seen once, a pixel in the middle :math:`f^2` times:
# what happens at the border hardly reaches the next layer.
#
# The library can count this by itself. If all weights are 1, the sum of all outputs contains each pixel as often as
# it was read, so the derivative of that sum with respect to the pixel is the count.
# :func:`xpnn.functional.conv_backward` computes that derivative, from a ``dy`` of ones:


def times_seen(n, f, **window):
    """How many windows read each cell of an image of n x n."""
    x, weight = array(np.ones((1, 1, n, n))), array(np.ones((1, 1, f, f)))
    dy = backend.xp.ones_like(conv(x, weight, **window))
    dx, _, _ = conv_backward(dy, x, weight, **window)
    return backend.to_numpy(dx[0, 0])


def times_on_an_axis(n, f):
    """The formula above for i = 0 ... n - 1."""
    i = np.arange(n)
    return np.minimum(i, n - f) - np.maximum(0, i - f + 1) + 1


for n, f in ((8, 3), (8, 5), (7, 7), (9, 2)):
    c = times_on_an_axis(n, f)
    assert (times_seen(n, f) == np.outer(c, c)).all()

valid, wide, same = times_seen(8, 3), times_seen(8, 5), times_seen(8, 3, padding="same")
assert (valid[0, 0], valid[4, 4]) == (1, 9)
assert (wide[0, 0], wide[4, 4]) == (1, 16)
assert (same[0, 0], same[0, 4], same[4, 4]) == (4, 6, 9)

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Three heat maps of eight by eight pixels. Valid, kernel 3: counts rise from 1 in the corners to 9 inside. Valid, "
    "kernel 5: from 1 in the corners to 16 in the middle. Same, kernel 3: 4 in the corners, 6 at borders, 9 inside.",
    1,
    3,
    size=(6.4, 2.4),
)
drawing.heat(axes[0, 0], valid, "valid, f = 3")
drawing.heat(axes[0, 1], wide, "valid, f = 5")
drawing.heat(axes[0, 2], same, "same, f = 3")
# sphinx_gallery_end_ignore

# %%
# With ``"same"`` a corner still counts less than the middle, 4 to 9, but no longer 1 to 9. In the middle map not even
# the middle reaches :math:`5^2 = 25`, since there are only :math:`4 \times 4` windows.
#
# Strides
# -------
# With *stride* :math:`s` windows begin at :math:`0, s, 2s, \dots` The last one is the largest :math:`o` with
# :math:`o s + f \le n + 2p`, and counting from 0 there are
#
# .. math::
#
#    \left\lfloor \frac{n + 2p - f}{s} \right\rfloor + 1
#
# of them. The library has this formula in one place, :func:`~xpnn.layers.windows.geometry.output_size`, for all layers
# with windows. (With dilation :math:`d`, a window of cells that are :math:`d` apart, :math:`d (f - 1) + 1` takes the
# place of :math:`f`.)

print("   n   f   p   s   output")
for n, f, p, s in ((6, 3, 0, 1), (6, 3, 1, 1), (7, 3, 0, 2), (7, 3, 1, 3), (28, 5, 2, 1), (227, 11, 0, 4)):
    size = output_size(n, f, s, (p, p))
    y = conv(array(np.ones((1, 1, n))), array(np.ones((1, 1, f))), stride=s, padding=p)
    assert y.shape[2] == size == (n + 2 * p - f) // s + 1
    print(f"{n:4}{f:4}{p:4}{s:4}{size:9}")

# %%
# The rounding down has a price: if :math:`s` does not divide :math:`n + 2p - f`, the last cells are seen by no window.
# If :math:`s > f`, there are gaps between the windows as well. And with dilation, or a stride that does not divide
# :math:`f`, neighbours are seen differently often. All three maps are the same call with other arguments.

tail = times_seen(8, 3, stride=2)
gaps = times_seen(8, 2, stride=3)
holes = times_seen(8, 3, dilation=2, stride=3)
assert (tail[7] == 0).all() and (tail[:, 7] == 0).all() and tail[2, 2] == 4
assert (gaps[2] == 0).all() and gaps.max() == 1
assert (holes[1] == 0).all() and (holes[6] == 0).all()

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Three heat maps of eight by eight pixels. Stride 2, kernel 3: a grid of 1, 2 and 4, and the last row and column "
    "are 0. Stride 3, kernel 2: squares of ones with rows and columns of zeros between them. Dilation 2 and stride 3: "
    "ones, and zeros in the second and in the last row and column but one.",
    1,
    3,
    size=(6.4, 2.4),
)
drawing.heat(axes[0, 0], tail, "f = 3, stride 2")
drawing.heat(axes[0, 1], gaps, "f = 2, stride 3")
drawing.heat(axes[0, 2], holes, "dilation 2, stride 3")
# sphinx_gallery_end_ignore

# %%
# A window moves
# --------------
# All of it together: an image of :math:`5 \times 5`, one zero around it, a kernel of :math:`3 \times 3` in the form of
# a cross and stride 2. There are :math:`\lfloor (5 + 2 - 3) / 2 \rfloor + 1 = 3` windows along each axis. Each frame is
# one of them, in the order in which they are in the output.

x = array(np.arange(25).reshape(1, 1, 5, 5) % 7)
cross = array([[[[0, 1, 0], [1, 1, 1], [0, 1, 0]]]])
padded = pad_constant(x, 1)
y = conv(x, cross, stride=2, padding=1)

assert y.shape == (1, 1, 3, 3)
assert backend.to_numpy(y).tolist() == backend.to_numpy(conv(padded, cross, stride=2)).tolist()

# sphinx_gallery_start_ignore
is_zero = np.pad(np.zeros((5, 5), bool), 1, constant_values=True)
background = np.where(is_zero, "#e6e6e6", "white")
axes = drawing.board(
    "Nine frames of an image of five by five numbers with a border of zeros. The frame of three by three cells moves "
    "by two cells at a time, to the right and then down; above each frame stands the output of that window. Below are "
    "the kernel, five ones in the form of a cross, and the nine outputs as a matrix.",
    24.5,
    31.5,
    cell=0.26,
)
for i in range(3):
    for j in range(3):
        left, top = 0.5 + 8.2 * j, 1.5 + 8.7 * i
        value = f"{float(y[0, 0, i, j]):.0f}".replace("-", "\N{MINUS SIGN}")
        window = np.zeros((7, 7), bool)
        window[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] = True
        fill = np.where(window, drawing.light(drawing.ORANGE), background)
        drawing.matrix(axes, padded[0, 0], left, top, f"y[{i}, {j}] = {value}", fill, edge="#aaaaaa")
        drawing.outline(axes, left + 2 * j, top + 2 * i, 3, 3)
drawing.matrix(axes, cross[0, 0], 6.7, 27.8, "kernel", drawing.shades(cross[0, 0], drawing.ORANGE))
drawing.matrix(axes, y[0, 0], 14.9, 27.8, "output y", drawing.shades(y[0, 0]))
# sphinx_gallery_end_ignore

# %%
# Volumes
# -------
# A colour image has three channels, and the output of a layer with eight filters has eight. A filter is therefore a
# volume too: it has as many planes as its input has channels, each plane is correlated with its channel, and the
# results are *added up*. With a bias :math:`b_f` for each filter,
#
# .. math::
#
#    & y[n, f, i, j] = b_f \\
#    & + \sum_{c, k, l} x[n, c,\, i + k,\, j + l] \; w[f, c, k, l] .
#
# The sum over :math:`c` makes one plane of many: a filter gives one plane, however many channels it reads. It is moved
# along rows and columns only, never along channels. With stride, dilation and groups the formula stands at the top of
# :mod:`xpnn.layers.convolution.conv`, the file of :func:`xpnn.functional.conv`.

photograph = array(np.moveaxis(load_sample_image("china.jpg"), -1, 0)[None, :, ::2, ::2] / 255)
mean = np.full((3, 3), 1 / 9)
edges = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
filters = array(
    [
        [mean, -mean, 0 * mean],  # red minus green
        [-mean / 2, -mean / 2, mean],  # blue minus the mean of red and green
        [edges / 3, edges / 3, edges / 3],  # vertical edges of any colour
    ]
)
planes = conv(photograph, filters)
parts = [conv(photograph[:, c : c + 1], filters[:, c : c + 1]) for c in range(3)]

assert filters.shape == (3, 3, 3, 3)
assert planes.shape == (1, 3, 212, 318)
np.testing.assert_allclose(backend.to_numpy(planes), backend.to_numpy(sum(parts)), atol=1e-5)

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Three rows, one for each filter: what it makes of the red, the green and the blue channel of the photograph of "
    "the tower, and the sum of the three, red where positive and blue where negative. The first filter shows the red "
    "walls and orange roofs, the second the sky and the water, the third the vertical edges.",
    3,
    4,
    size=(6.4, 3.7),
)
names = ("more red", "more blue", "edges")
for f, (name, largest) in enumerate(zip(names, (0.5, 0.5, 2), strict=True)):
    for c, (panel, part) in enumerate(zip(axes[f], parts, strict=False)):
        drawing.signed(panel, part[0, f], ("red part", "green part", "blue part")[c] if f == 0 else "", largest=1)
    drawing.signed(axes[f, 3], planes[0, f], "sum" if f == 0 else "", largest=largest)
    axes[f, 0].set_ylabel(name, fontsize=9)
# sphinx_gallery_end_ignore

# %%
# The shapes, once and for all, with :math:`N` images, :math:`C` channels, :math:`F` filters, kernels of
# :math:`f_h \times f_w` and :math:`H' \times W'` windows:
#
# ==========  ============================  ============================================
# array       shape                         one entry is
# ==========  ============================  ============================================
# ``x``       :math:`(N, C, H, W)`          one channel of one pixel of one image
# ``weight``  :math:`(F, C, f_h, f_w)`      what filter ``f`` does to channel ``c``
# ``bias``    :math:`(F,)`                  added to all of plane ``f``
# ``y``       :math:`(N, F, H', W')`        the filter ``f`` at one window of one image
# ==========  ============================  ============================================
#
# The next layer reads the :math:`F` planes as its channels. Two layers of a small net, :class:`xpnn.Conv2d` each:

model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 16, 5), backend=backend, seed=0)
summary = model.summary((1, 3, 32, 32))
print(summary)

first, second = summary.rows
assert (first.output_shape, second.output_shape) == ((1, 8, 28, 28), (1, 16, 24, 24))
assert first.parameters == 8 * (3 * 5 * 5) + 8 == 608
assert second.parameters == 16 * (8 * 5 * 5) + 16 == 3216
assert first.multiply_adds == (8 * 28 * 28) * (3 * 5 * 5)

# sphinx_gallery_start_ignore
volumes = [((3, 32, 32), "3 x 32 x 32", drawing.SKY)]
for layer, row, colour in zip(model, summary.rows, (drawing.ORANGE, drawing.GREEN), strict=True):
    count, *kernel = layer.parameters["weight"].shape
    volumes.append((tuple(kernel), f"{count} filters\n" + " x ".join(map(str, kernel)), drawing.PURPLE))
    volumes.append((row.output_shape[1:], " x ".join(map(str, row.output_shape[1:])), colour))

axes = drawing.board(
    "Boxes in scale: an input of 3 by 32 by 32, a filter of 3 by 5 by 5, of which there are 8, an output of 8 by 28 by "
    "28, a filter of 8 by 5 by 5, of which there are 16, and an output of 16 by 24 by 24. Outputs get deeper and "
    "smaller.",
    16.6,
    5.6,
)
left, middle = 0.4, 2.5
for shape, text, colour in volumes:
    is_filter = colour == drawing.PURPLE
    width = 0.1 * shape[2]
    start = left + 0.6 if is_filter else left
    right = drawing.volume(axes, start, middle - width / 2, shape, 0.1, colour)
    drawing.label(axes, text, start + width / 2, 4.8 if not is_filter else 3.6)
    left = right + (0.9 if is_filter else 0.35)
# sphinx_gallery_end_ignore

# %%
# A layer has :math:`F (C f_h f_w + 1)` parameters, whatever the size of the image, and for each output it multiplies
# and adds :math:`C f_h f_w` times: few numbers, used often.
#
# How far an output sees
# ----------------------
# An output of the first layer sees :math:`3 \times 3` pixels if its kernels have that size. An output of the second
# sees :math:`3 \times 3` outputs of the first, and so :math:`5 \times 5` pixels, its *receptive field*. In general
#
# .. math::
#
#    r_L = 1 + \sum_{l = 1}^{L} (f_l - 1) \prod_{k < l} s_k ,
#
# since a step of one cell in the input of layer :math:`l` is a step of :math:`s_1 \cdots s_{l-1}` pixels. The same
# derivative as above shows which pixels these are, and on how many ways each is reached: ``dy`` is 1 at one output, 0
# elsewhere, and goes back through the layers one by one.


def ways(layers, n=9):
    """On how many ways the middle output of some 3 x 3 layers reads each pixel of n x n."""
    weight = array(np.ones((1, 1, 3, 3)))
    dy = array(np.pad([[1]], n // 2)[None, None])
    for _ in range(layers):
        dy, _, _ = conv_backward(dy, dy, weight, padding="same")
    return backend.to_numpy(dy[0, 0])


for layers in (1, 2, 3):
    reached = ways(layers)
    side = 1 + layers * (3 - 1)
    assert (reached > 0).sum() == side**2
    assert reached.sum() == 9**layers

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Three heat maps of nine by nine pixels. After one layer the output sees three by three pixels once each, after "
    "two layers five by five with counts from 1 to 9, after three layers seven by seven with counts from 1 to 49.",
    1,
    3,
    size=(6.4, 2.4),
)
for layers, panel in enumerate(axes[0], start=1):
    drawing.heat(panel, ways(layers), f"{layers} layer{'s' * (layers > 1)} of 3 x 3")
# sphinx_gallery_end_ignore

# %%
# The counts are largest in the middle, since most ways lead there. Two layers of :math:`3 \times 3` see as far as one
# of :math:`5 \times 5`, with 18 weights instead of 25. Next: how a computer computes all windows at once,
# :doc:`plot_03_im2col_and_winograd`.
#
# Source of the sizes: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016.
