r"""
5. Backward
===========

A net learns by the derivative of its loss with respect to every weight. For a convolution these derivatives are again
convolutions: the gradient of the weight is a correlation, that of the input a full convolution with the rotated kernel,
that of the bias a sum. This page derives the three with the chain rule alone, puts each beside the library's, and
checks every one by differences.
"""

from itertools import pairwise

import drawing
import numpy as np

import xpnn as nn
from xpnn.functional import conv, conv_backward, conv_transpose, mse, mse_backward, pad_constant
from xpnn.testing import gradcheck

backend = nn.get_backend(dtype="float64")
xp = backend.xp


def plane(numbers):
    """A matrix as a batch of one image of one channel, or as one filter of one channel, in float64."""
    return backend.asarray(np.asarray(numbers, "float64")[None, None])


def rotate(kernel):
    """A kernel turned by 180 degrees."""
    return xp.flip(kernel, axis=(2, 3))


def same(a, b, **tolerance):
    """Raise an error unless two arrays are equal, or nearly equal if there is a tolerance."""
    a, b = backend.to_numpy(a), backend.to_numpy(b)
    if tolerance:
        np.testing.assert_allclose(a, b, **tolerance)
    else:
        np.testing.assert_array_equal(a, b)


# %%
# The chain rule
# --------------
# A layer computes :math:`y` of its input :math:`x`, its weight :math:`w` and its bias :math:`b`. What comes after it
# makes one number of :math:`y`, the loss :math:`L`. Backward starts at the end, so when it arrives here, the derivative
# of :math:`L` with respect to each output is known. Call it
#
# .. math::
#
#    \mathrm{d}y[i, j] = \frac{\partial L}{\partial y[i, j]} ,
#
# an array of the shape of :math:`y`.
#
# A weight changes many outputs, and each of them changes :math:`L`. The chain rule adds up over all of them: for any
# number :math:`\theta` on which :math:`y` depends,
#
# .. math::
#
#    \frac{\partial L}{\partial \theta}
#    = \sum_{i, j} \mathrm{d}y[i, j] \; \frac{\partial y[i, j]}{\partial \theta} .
#
# That is the only rule on this page. What is left is to find :math:`\partial y / \partial \theta` for a weight, a pixel
# and the bias, and to recognise the sum. The example is the image of :math:`3 \times 4` with a kernel of
# :math:`2 \times 2`, and half the squared distance from a target as the loss,
# :math:`L = \tfrac12 \sum (y - t)^2`, whose derivative is :math:`\mathrm{d}y = y - t`.

x = plane([[1, 2, 3, 1], [4, 5, 6, 1], [7, 8, 9, 1]])
w = plane([[1, 2], [3, 4]])
b = backend.asarray(np.array([5.0]))
target = plane([[41, 53, 30], [72, 79, 43]])


def loss(x, w, b):
    """Half the squared distance of the output from the target."""
    return float(xp.sum((conv(x, w, b) - target) ** 2)) / 2


y = conv(x, w, b)
dy = y - target
dx, dw, db = conv_backward(dy, x, w)
print("y", backend.to_numpy(y[0, 0]).tolist())
print("dy", backend.to_numpy(dy[0, 0]).tolist())

same(dy, plane([[1, -1, 2], [0, 3, 1]]))

# %%
# A derivative can be checked without any formula: move one number a little up and down, and see how the loss changes,
#
# .. math::
#
#    \frac{\partial L}{\partial \theta} \approx \frac{L(\theta + h) - L(\theta - h)}{2 h} .
#
# (The error is proportional to :math:`h^2` times the third derivative, which is 0 here.)


def by_differences(function, at, h=1e-3):
    """The gradient of ``function(array)`` at this array, one entry after the other."""
    values = backend.to_numpy(at)
    gradient = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        step = np.zeros_like(values)
        step[index] = h
        up, down = function(backend.asarray(values + step)), function(backend.asarray(values - step))
        gradient[index] = (up - down) / (2 * h)
    return backend.asarray(gradient)


# %%
# The bias
# --------
# :math:`b` is added to every output, so :math:`\partial y[i, j] / \partial b = 1`, and the gradient is a sum:
#
# .. math::
#
#    \mathrm{d}b = \sum_{i, j} \mathrm{d}y[i, j] .

same(db, xp.reshape(xp.sum(dy), (1,)))
same(db, by_differences(lambda b: loss(x, w, b), b), rtol=1e-6)
assert float(db[0]) == 1 - 1 + 2 + 0 + 3 + 1 == 6

# %%
# The weight
# ----------
# In :math:`y[i, j] = b + \sum_{k, l} x[i + k,\, j + l]\, w[k, l]` the weight :math:`w[k, l]` is multiplied by
# :math:`x[i + k,\, j + l]`, and so
#
# .. math::
#
#    \frac{\partial y[i, j]}{\partial w[k, l]} &= x[i + k,\, j + l] , \\
#    \mathrm{d}w[k, l] &= \sum_{i, j} x[k + i,\, l + j] \; \mathrm{d}y[i, j] \\
#    &= (x \star \mathrm{d}y)[k, l] .
#
# It is the correlation of the image with :math:`\mathrm{d}y` as the kernel. It has :math:`3 - 2 + 1` by
# :math:`4 - 3 + 1` places, exactly the shape of :math:`w`. In words: lay :math:`\mathrm{d}y` on what the weight
# :math:`w[k, l]` has seen, which is the image from :math:`(k, l)` on.

same(dw, conv(x, dy))
same(dw, by_differences(lambda w: loss(x, w, b), w), rtol=1e-6)
assert float(dw[0, 0, 0, 0]) == 1 * 1 - 1 * 2 + 2 * 3 + 0 * 4 + 3 * 5 + 1 * 6 == 26

# sphinx_gallery_start_ignore
axes = drawing.board(
    "Four copies of the image of three by four numbers. In each one the two by three cells that one weight has seen "
    "are marked: they begin at the first cell, one to the right, one down, one right and down. Above each stands the "
    "gradient of that weight. On the left is dy, which is laid on the marked cells.",
    15.2,
    9.4,
)
drawing.matrix(axes, dy[0, 0], 0.5, 4, "dy", drawing.light(drawing.ORANGE))
for row, column in np.ndindex(2, 2):
    left, top = 4.9 + 5.2 * column, 1.2 + 4.5 * row
    drawing.matrix(axes, x[0, 0], left, top, f"dw[{row}, {column}] = {float(dw[0, 0, row, column]):.0f}")
    drawing.outline(axes, left + column, top + row, 3, 2, drawing.ORANGE)
# sphinx_gallery_end_ignore

# %%
# The input
# ---------
# The pixel :math:`x[a, b]` is in the window of output :math:`(i, j)` at the place :math:`(a - i,\, b - j)`, if that is
# a cell of the kernel. With :math:`w = 0` outside the kernel,
#
# .. math::
#
#    \frac{\partial y[i, j]}{\partial x[a, b]} &= w[a - i,\, b - j] , \\
#    \mathrm{d}x[a, b] &= \sum_{i, j} \mathrm{d}y[i, j] \; w[a - i,\, b - j] \\
#    &= (\mathrm{d}y * w)[a, b] .
#
# Here the minus is back: this is the true convolution of the first page. Forward correlates, so backward convolves. To
# compute it with a correlation, the kernel is rotated. Let :math:`\widetilde{\mathrm{d}y}` be :math:`\mathrm{d}y` with
# :math:`f - 1` zeros on every side, so that :math:`\mathrm{d}y[i, j]` is its entry :math:`(i + f - 1,\, j + f - 1)`,
# and count the cells of the kernel backwards: with :math:`k = f - 1 - (a - i)` that entry is in row :math:`a + k`, and
# so
#
# .. math::
#
#    \mathrm{d}x[a, b] = \sum_{k, l} \; & \widetilde{\mathrm{d}y}[a + k,\, b + l] \\
#    & \cdot \underbrace{w[f - 1 - k,\, f - 1 - l]}_{\text{kernel, rotated}} ,
#
# a correlation again. It is called the *full* convolution, since it has all places where the kernel and
# :math:`\mathrm{d}y` overlap at all, and it makes the size of :math:`x` again:
# :math:`(n - f + 1) + 2 (f - 1) - f + 1 = n`.

same(dx, conv(dy, rotate(w), padding=1))
same(dx, by_differences(lambda x: loss(x, w, b), x), rtol=1e-6, atol=1e-9)

# sphinx_gallery_start_ignore
around = pad_constant(dy, 1)
fill = np.where(np.pad(np.zeros((2, 3), bool), 1, constant_values=True), "#e6e6e6", drawing.light(drawing.ORANGE))
axes = drawing.board(
    "dy of two by three numbers with a border of zeros, the kernel 1, 2, 3, 4 rotated to 4, 3, 2, 1, and the result, a "
    "matrix of three by four numbers. The window at the upper left holds only the 1 of dy, which meets the rotated "
    "kernel's last cell; the result there is 1.",
    16.4,
    5.9,
)
drawing.matrix(axes, around[0, 0], 0.5, 1.2, "dy, and zeros around it", fill)
drawing.outline(axes, 0.5, 1.2, 2, 2)
drawing.sign(axes, "\N{STAR OPERATOR}", 6.4, 3.2)
drawing.matrix(axes, rotate(w)[0, 0], 7.3, 2.2, "kernel, rotated", drawing.light(drawing.SKY))
drawing.sign(axes, "=", 10.4, 3.2)
drawing.matrix(axes, dx[0, 0], 11.4, 1.7, "dx")
drawing.outline(axes, 11.4, 1.7, 1, 1)
# sphinx_gallery_end_ignore

# %%
# :func:`xpnn.functional.conv_backward` returns the three, and its module :mod:`xpnn.layers.convolution.conv` begins
# with these formulas for any stride, dilation and padding.
#
# A misprint
# ----------
# The printed version of the lectures from which this course comes has the full convolution of :math:`\begin{pmatrix} 1
# & 2 \\ 4 & 5 \end{pmatrix}` with a kernel of four twos as an example of a border of zeros, with 20 as the middle
# number of the right column. That window holds a 2 and a 5 and zeros, and :math:`2 (2 + 5) = 14`.
#
# There is a check that finds such an error without computing any window: in a full convolution each number of the image
# meets each number of the kernel exactly once, so the outputs add up to the product of the two sums. Here it is
# :math:`12 \cdot 8 = 96`. With 20 they would add up to 102.

small, twos = plane([[1, 2], [4, 5]]), plane([[2, 2], [2, 2]])
full = conv(small, twos, padding=1)
same(full, plane([[2, 6, 4], [10, 24, 14], [8, 18, 10]]))
assert float(xp.sum(full)) == float(xp.sum(small)) * float(xp.sum(twos)) == 96

# sphinx_gallery_start_ignore
fill = np.full((3, 3), "white", dtype="<U9")
fill[1, 2] = drawing.light(drawing.YELLOW, 0.8)
axes = drawing.board(
    "The matrix 1, 2, 4, 5 with a border of zeros, the kernel of twos, and the result of three by three numbers, in "
    "which the 14 in the middle of the right column is marked.",
    14.4,
    5.9,
)
drawing.matrix(axes, pad_constant(small, 1)[0, 0], 0.5, 1.2, "image, zeros around")
drawing.outline(axes, 2.5, 2.2, 2, 2)
drawing.sign(axes, "\N{STAR OPERATOR}", 5.4, 3.2)
drawing.matrix(axes, twos[0, 0], 6.4, 2.2, "kernel")
drawing.sign(axes, "=", 9.4, 3.2)
drawing.matrix(axes, full[0, 0], 10.4, 1.7, "14, not 20", fill)
# sphinx_gallery_end_ignore

# %%
# Channels and batches
# --------------------
# With channels, filters and a batch the sums only get longer. The rule for finding them: a gradient is summed over
# every index that its array does not have. With :math:`\star` and :math:`*` for one plane,
#
# .. math::
#
#    \mathrm{d}b_f &= \sum_{n} \sum_{i, j} \mathrm{d}y_{nf}[i, j] , \\
#    \mathrm{d}w_{fc} &= \sum_{n} x_{nc} \star \mathrm{d}y_{nf} , \\
#    \mathrm{d}x_{nc} &= \sum_{f} \mathrm{d}y_{nf} * w_{fc} .
#
# A convolution sums over its channels. So in the second formula the *batch* takes the place of the channels, and in the
# third the *filters* do: swap the first two axes, and one call each is enough.


def swap(array):
    """Exchange the first two axes."""
    return xp.permute_dims(array, (1, 0, 2, 3))


random = np.random.default_rng(0)
x = backend.asarray(random.standard_normal((4, 3, 8, 8)))
w = backend.asarray(random.standard_normal((5, 3, 3, 3)))
dy = backend.asarray(random.standard_normal((4, 5, 6, 6)))
dx, dw, db = conv_backward(dy, x, w)

same(db, xp.sum(dy, axis=(0, 2, 3)), rtol=1e-12)
same(dw, swap(conv(swap(x), swap(dy))), rtol=1e-10)
same(dx, conv(dy, swap(rotate(w)), padding=2), rtol=1e-10, atol=1e-12)

# %%
# Padding
# -------
# Forward puts :math:`p` zeros around the image and then convolves. Backward undoes the two in the opposite order:
# compute the gradient of the padded image, and drop the gradients of the zeros, which nobody wants. The full
# convolution has a border of :math:`f - 1`; to drop :math:`p` on each side is to begin with :math:`f - 1 - p`. In a
# *same* convolution, :math:`p = (f - 1) / 2`, that is :math:`p` again: its backward is a *same* convolution too.

dy = backend.asarray(random.standard_normal((4, 5, 8, 8)))
dx, dw, _ = conv_backward(dy, x, w, padding=1)
of_padded, dw_of_padded, _ = conv_backward(dy, pad_constant(x, 1), w)

same(dw, dw_of_padded, rtol=1e-10)
same(dx, of_padded[:, :, 1:-1, 1:-1], rtol=1e-10, atol=1e-12)
same(dx, conv(dy, swap(rotate(w)), padding=3 - 1 - 1), rtol=1e-10, atol=1e-12)

# %%
# Strides
# -------
# A convolution with stride :math:`s` computes every :math:`s`-th output of the one with stride 1. The outputs that are
# left out have no influence on the loss, so their gradient is 0. Put :math:`s - 1` zeros between the numbers of
# :math:`\mathrm{d}y`, and everything above holds as it is:
#
# .. math::
#
#    \mathrm{d}w[k, l] &= \sum_{i, j} x[s i + k,\, s j + l] \; \mathrm{d}y[i, j] , \\
#    \mathrm{d}x[a, b] &= \sum_{i, j} \mathrm{d}y[i, j] \; w[a - s i,\, b - s j] .
#
# In the first formula :math:`\mathrm{d}y` is a kernel whose cells are :math:`s` apart, that is one with *dilation*
# :math:`s`: what was a stride in forward is a dilation in backward. The second is a transposed convolution with stride
# :math:`s`, which is also the simplest way to write down the zeros: a transposed convolution with the kernel 1.

stride, n, f = 2, 7, 3
x, w = plane(np.arange(n * n).reshape(n, n) % 5), plane([[1, 2, 1], [0, 1, 0], [2, 0, 1]])
dy = plane([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
dx, dw, _ = conv_backward(dy, x, w, stride=stride)

spread = conv_transpose(dy, plane([[1]]), stride=stride)
assert spread.shape == (1, 1, 5, 5)
same(dx, conv(spread, rotate(w), padding=f - 1))
same(dx, conv_transpose(dy, w, stride=stride))
same(dw, conv(x, dy, dilation=stride))
same(dw, conv(x, spread))

# sphinx_gallery_start_ignore
around = pad_constant(spread, f - 1)
fill = np.full((9, 9), "#e6e6e6", dtype="<U9")
fill[2:-2, 2:-2] = "white"
fill[2:-2:2, 2:-2:2] = drawing.light(drawing.ORANGE)
axes = drawing.board(
    "dy of three by three numbers, 1 to 9, with zeros between them and two rings of zeros around them, nine by nine "
    "cells in all; the rotated kernel of three by three; and the gradient of the input, seven by seven numbers.",
    22.8,
    11,
    cell=0.28,
)
drawing.matrix(axes, around[0, 0], 0.5, 1.3, "dy, zeros between and around", fill)
drawing.sign(axes, "\N{STAR OPERATOR}", 10, 5.8)
drawing.matrix(axes, rotate(w)[0, 0], 10.6, 4.3, "kernel, rotated", drawing.light(drawing.SKY))
drawing.sign(axes, "=", 14.4, 5.8)
drawing.matrix(axes, dx[0, 0], 15.2, 2.3, "dx", drawing.shades(dx[0, 0]))
# sphinx_gallery_end_ignore

# %%
# If :math:`s` does not divide :math:`n + 2p - f`, the last pixels are seen by no window, and their gradient is 0.

dx, _, _ = conv_backward(plane([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), plane(np.ones((8, 8))), w, stride=2)
assert (backend.to_numpy(dx)[..., 7, :] == 0).all() and (backend.to_numpy(dx)[..., 7] == 0).all()

# %%
# The library has a check by differences for any layer, :func:`xpnn.testing.gradcheck`. It raises an error that names
# the entry that is wrong; here all of them are right.

for options in (
    {"stride": 2},
    {"padding": "same"},
    {"padding": ((0, 1), (2, 1))},
    {"dilation": 2},
    {"groups": 2},
    {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 2},
):
    gradcheck(nn.Conv2d(2, 4, 3, **options, backend=backend, seed=0), random.standard_normal((2, 2, 6, 5)))
    print("gradcheck passed for", options)

# %%
# A kernel is learned
# -------------------
# With the gradient of the weight a kernel can be learned. Given are an image of noise and what Sobel's kernel makes of
# it; the kernel itself is hidden. Start from zeros, and walk against the gradient of the mean squared error,
#
# .. math::
#
#    w \leftarrow w - \eta \; \mathrm{d}w .

x = backend.asarray(random.standard_normal((1, 1, 64, 64)))
sobel = plane([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
wanted = conv(x, sobel)

w, learning_rate = xp.zeros_like(sobel), 0.2
kernels, losses = [w], [float(mse(conv(x, w), wanted))]
for _ in range(15):
    y = conv(x, w)
    _, dw, _ = conv_backward(mse_backward(1.0, y, wanted), x, w, input_grad=False)
    w = w - learning_rate * dw
    kernels.append(w)
    losses.append(float(mse(conv(x, w), wanted)))

same(w, sobel, atol=0.05)

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Four kernels as coloured squares: all zero before the first step, then after 1, 3 and 15 steps more and more like "
    "Sobel's kernel with a blue column on the left and a red one on the right.",
    1,
    4,
    size=(6.4, 2.0),
)
for panel, step in zip(axes[0], (0, 1, 3, 15), strict=True):
    drawing.signed(panel, kernels[step][0, 0], f"after {step} step{'s' * (step != 1)}", largest=2)
    for (i, j), value in np.ndenumerate(backend.to_numpy(kernels[step][0, 0])):
        text = f"{value:.1f}".replace("-0.0", "0.0").replace("-", "\N{MINUS SIGN}")
        panel.text(j, i, text, ha="center", va="center", color="white" if abs(value) > 1.2 else "black")
# sphinx_gallery_end_ignore

# %%
# On noise of variance 1, where neighbours have nothing to do with each other, the gradient of each weight is about
# twice its error. So a step leaves :math:`1 - 2 \eta = 0.6` of all nine errors, and :math:`0.6^2 = 0.36` of the loss.

assert 10 < losses[0] < 15 and losses[-1] < 1e-5
assert all(0.3 < after / before < 0.42 for before, after in pairwise(losses))

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "The mean squared error against the number of steps on a logarithmic scale: a straight line down from about ten to "
    "less than a hundred-thousandth after 15 steps.",
    size=(5.6, 2.8),
)
axes[0, 0].semilogy(losses, marker="o", color=drawing.BLUE)
axes[0, 0].set(xlabel="steps", ylabel="mean squared error")
axes[0, 0].spines[["top", "right"]].set_visible(False)
# sphinx_gallery_end_ignore

# %%
# Photographs are harder, because the pixels of a window are nearly equal, and so are their gradients; better optimizers
# and normalised inputs exist for that reason.
#
# Layers do the same with their own weights: :class:`xpnn.Conv2d` keeps its input in ``forward``, and in ``backward``
# calls the functions of this page, adds ``dweight`` and ``dbias`` to the gradients of its parameters, and returns
# ``dx`` for the layer before it. The next pages are about those other layers: pooling, activations and losses.
