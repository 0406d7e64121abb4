r"""
6. Pooling
==========

A pool is a window without weights: it makes one number of the :math:`k \times k` numbers that it covers, in each
channel by itself. It makes planes smaller, and what follows sees further. This page has three such numbers, the
largest, the mean and the length, and follows the gradient back through each.
"""

import drawing
import numpy as np
from drawing_nets import array, central_difference
from sklearn.datasets import load_sample_image

import xpnn as nn
from xpnn.functional import avg_pool, avg_pool_backward, lp_pool, lp_pool_backward, max_pool, max_pool_backward

backend = nn.get_backend()
host = backend.to_numpy

# %%
# The largest
# -----------
# Let :math:`W_o` be the cells of window :math:`o`. Unless a stride is given, windows lie side by side, so that each
# cell is in one of them, and
#
# .. math::
#
#    y_o = \max_{i \in W_o} x_i .
#
# Only one cell decides. If it grows by :math:`\varepsilon`, so does :math:`y_o`; if another one grows a little, nothing
# happens. With :math:`m_o` for the cell of the maximum, the *mask* is
#
# .. math::
#
#    \frac{\partial y_o}{\partial x_i} = [\, i = m_o \,] ,
#    \qquad
#    \frac{\partial L}{\partial x_i} = \sum_{o \,:\, m_o = i} \frac{\partial L}{\partial y_o} ,
#
# with 1 for a true bracket and 0 for a false one. If windows overlap, a cell can be the maximum of several, hence the
# sum. :func:`xpnn.functional.max_pool` returns the maxima and, when asked, the numbers of their cells, counted row by
# row; :func:`xpnn.functional.max_pool_backward` sends each gradient to its cell.

x = array([[1, 0, 2, 3], [4, 6, 6, 8], [3, 1, 1, 0], [1, 2, 2, 4]])[None, None]
dy = array([[10, 20], [30, 40]])[None, None]

y, cells = max_pool(x, 2, return_indices=True)
mask = max_pool_backward(backend.xp.ones_like(y), x, 2)
dx = max_pool_backward(dy, x, 2)

assert host(y)[0, 0].tolist() == [[6, 8], [3, 4]]
assert host(cells)[0, 0].tolist() == [[5, 7], [8, 15]]
assert np.flatnonzero(host(mask)).tolist() == [5, 7, 8, 15]
assert host(dx)[0, 0].tolist() == [[0, 0, 0, 0], [0, 10, 0, 20], [30, 0, 0, 0], [0, 0, 0, 40]]

# sphinx_gallery_start_ignore
tint = [drawing.light(colour) for colour in (drawing.ORANGE, drawing.SKY, drawing.GREEN, drawing.PURPLE)]
small = np.asarray(tint).reshape(2, 2)
large = np.repeat(np.repeat(small, 2, 0), 2, 1)
axes = drawing.board(
    "A matrix of four by four numbers in four coloured windows, and the two by two maxima 6, 8, 3 and 4. Below, the "
    "mask, which is 1 at the four maxima and 0 elsewhere; the upstream gradient 10, 20, 30, 40; and the gradient of "
    "the input, these four numbers at the four maxima",
    18,
    14,
)
drawing.matrix(axes, x[0, 0], 2, 1.5, "x", large)
drawing.sign(axes, "→", 8, 3.5)
drawing.matrix(axes, y[0, 0], 10, 2.5, "y", small)
drawing.matrix(axes, mask[0, 0], 0.5, 8.5, "mask", np.where(host(mask)[0, 0] > 0, large, "white"))
drawing.matrix(axes, dy[0, 0], 6.5, 9.5, "dy", small)
drawing.sign(axes, "→", 10.5, 10.5)
drawing.matrix(axes, dx[0, 0], 12.5, 8.5, "dx", np.where(host(dx)[0, 0] > 0, large, "white"))
# sphinx_gallery_end_ignore

# %%
# Where two cells are equally large, the maximum has a kink and no derivative. Any choice between them is a
# subgradient; the first in row-major order is PyTorch's choice, and the one here. That is why the tie below goes to
# the cell at the upper left:

tie = array([[5, 5], [5, 5]])[None, None]
assert host(max_pool_backward(array([[[[1]]]]), tie, 2))[0, 0].tolist() == [[1, 0], [0, 0]]

# %%
# The mean
# --------
# With :math:`k^2` cells in a window,
#
# .. math::
#
#    y_o = \frac{1}{k^2} \sum_{i \in W_o} x_i ,
#    \qquad
#    \frac{\partial y_o}{\partial x_i} = \frac{[\, i \in W_o \,]}{k^2} :
#
# each cell gets an equal share of the gradient (:func:`xpnn.functional.avg_pool`,
# :func:`xpnn.functional.avg_pool_backward`). It is the convolution of each channel with a kernel of
# :math:`1/k^2`. The backward pass needs the shape of ``x`` but none of its numbers, since the mean is linear.
#
# The length
# ----------
# The Euclidean length of a window, its L2 norm, lies between the two:
#
# .. math::
#
#    y_o = \Bigl( \sum_{i \in W_o} x_i^2 \Bigr)^{1/2} ,
#    \qquad
#    \frac{\partial y_o}{\partial x_i}
#    = \frac{1}{2 y_o} \cdot 2 x_i = \frac{x_i}{y_o} .
#
# Large cells get more, and nobody gets all. With :math:`p` in place of 2 this is :func:`xpnn.functional.lp_pool`; for
# positive numbers :math:`p = 1` is the sum, :math:`k^2` times the mean, and for :math:`p \to \infty` the norm becomes
# the maximum.

length = lp_pool(x, 2, 2)
shares = {
    "max": max_pool_backward(dy, x, 2),
    "average": avg_pool_backward(dy, x.shape, 2),
    "L2": lp_pool_backward(dy, x, length, 2, 2),
}

assert np.isclose(float(length[0, 0, 0, 0]), np.sqrt(1 + 0 + 16 + 36))
assert host(shares["average"])[0, 0, 0].tolist() == [2.5, 2.5, 5, 5]
assert np.isclose(float(shares["L2"][0, 0, 1, 0]), 10 * 4 / np.sqrt(53))

norms = [float(lp_pool(x, p, 2)[0, 0, 0, 0]) for p in (1, 2, 4, 8, 16)]
print("p-norms of the window 1, 0, 4, 6:", *(f"{norm:.3f}" for norm in norms))
assert norms[0] == 11 and 6 <= norms[-1] < 6.001
assert norms == sorted(norms, reverse=True)

# sphinx_gallery_start_ignore
axes = drawing.board(
    "The gradient of the input for the upstream gradient 10, 20, 30, 40, three times. Maximum: one cell of each window "
    "has all. Average: all four cells have a quarter. L2: larger cells have more",
    18,
    6.4,
)
for i, (name, share) in enumerate(shares.items()):
    drawing.matrix(axes, share[0, 0], 0.5 + 6 * i, 1.6, f"dx, {name}", drawing.shades(share[0, 0]), digits=1)
# sphinx_gallery_end_ignore

# %%
# Checked by differences
# ----------------------
# With :math:`L = \sum_o y_o \, dy_o` the gradient of :math:`L` is what the three functions return. A central
# difference must agree, if the step is too small to change which cell is the largest. Overlapping windows, stride 1,
# are the harder case:

u = array(np.random.default_rng(0).permutation(16).reshape(1, 1, 4, 4) + 1)
upstream = array(np.arange(9).reshape(1, 1, 3, 3) - 3)
window = {"stride": 1}
pools = {
    "max": (lambda x: max_pool(x, 2, **window), max_pool_backward(upstream, u, 2, **window)),
    "average": (lambda x: avg_pool(x, 2, **window), avg_pool_backward(upstream, u.shape, 2, **window)),
    "L2": (
        lambda x: lp_pool(x, 2, 2, **window),
        lp_pool_backward(upstream, u, lp_pool(u, 2, 2, **window), 2, 2, **window),
    ),
}
for name, (pool, gradient) in pools.items():
    measured = central_difference(lambda x, pool=pool: backend.xp.sum(pool(x) * upstream), u, step=0.25)
    error = np.abs(host(gradient) - measured).max()
    print(f"{name:8} largest difference {error:.1e}")
    assert error < 5e-3

# %%
# What they do to a picture
# -------------------------
# The edges of a photograph, pooled by 16: a maximum keeps the strongest edge of each window, so thin lines stay and
# become thick; a mean keeps how much edge there is, so thin lines fade. The layers are :class:`xpnn.MaxPool2d`,
# :class:`xpnn.AvgPool2d` and :class:`xpnn.LpPool2d`.

photograph = array(load_sample_image("china.jpg").mean(axis=-1)[:416, :640] / 255)[None, None]
edges = backend.xp.abs(nn.functional.conv(photograph, array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])[None, None]))
edges = edges[..., :400, :624]
pooled = {
    "edges": edges,
    "MaxPool2d(16)": nn.MaxPool2d(16, backend=backend)(edges),
    "AvgPool2d(16)": nn.AvgPool2d(16, backend=backend)(edges),
    "LpPool2d(2, 16)": nn.LpPool2d(2, 16, backend=backend)(edges) / 16,
}
largest, mean, norm = (host(pooled[name]) for name in list(pooled)[1:])
assert largest.shape == (1, 1, 25, 39)
assert (mean <= norm + 1e-5).all() and (norm <= largest + 1e-5).all()

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Vertical edges of the photograph of a Chinese tower, and the same in 25 by 39 cells: the maxima are bright almost "
    "everywhere in the building, the averages are dim and smooth, the lengths lie between",
    2,
    2,
    size=(6.4, 4.6),
)
for panel, (name, plane) in zip(axes.flat, pooled.items(), strict=True):
    drawing.image(panel, plane[0, 0], name, limits=(0, 2))
# sphinx_gallery_end_ignore

# %%
# The L2 picture is divided by 16, the root of the 256 cells, which makes it the *root mean square*. It is never
# smaller than the mean (Cauchy and Schwarz) and never larger than the maximum, as asserted above.
#
# What a pool forgets
# -------------------
# A maximum does not say where in the window it was. If the picture moves by a pixel, most maxima stay what they are.
# That is wanted for "is there a cat", and unwanted for "where is its edge".

moved = host(max_pool(edges[..., :-1], 16))[..., :-1]
unchanged = np.mean(moved == host(max_pool(edges[..., 1:], 16))[..., :-1])
print(f"maxima that a shift by one pixel leaves as they are: {unchanged:.0%}")
assert unchanged > 0.8

# %%
# Next: the functions between the layers, :doc:`plot_07_activations`.
#
# Sources: Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998; C. Gulcehre et al.,
# "Learned-norm pooling for deep feedforward and recurrent neural networks", 2014.
