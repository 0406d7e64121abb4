r"""
10. Exercises, with answers
===========================

Solve these on paper first. Each answer is derived and then computed by the library, so that a wrong one would stop this
page. The numbers are small integers, which every backend represents exactly.
"""

import drawing
import numpy as np
from drawing_nets import array

import xpnn as nn
from xpnn.backends.contractions.windows import Windows
from xpnn.functional import avg_pool, avg_pool_backward, conv, conv_backward, max_pool, max_pool_backward, relu
from xpnn.layers.windows.geometry import output_size

backend = nn.get_backend()
host, xp = backend.to_numpy, backend.xp


def plane(numbers):
    """A matrix as one image, or kernel, of one channel."""
    return array(numbers)[None, None]


# %%
# Exercise 1: sizes
# -----------------
# What is the size of the output for an image of side :math:`n`, a kernel of side :math:`f`, padding :math:`p` and
# stride :math:`s`? (a) 6, 3, 0, 1. (b) 6, 3, 1, 1. (c) 7, 3, 0, 2. (d) 7, 3, 1, 3. (e) 227, 11, 0, 4. (f) Which
# :math:`p` keeps the size of 28 for :math:`f = 5`, :math:`s = 1`?
#
# *Answer.* :math:`\lfloor (n + 2p - f) / s \rfloor + 1`: 4, 6, 3, 3, 55. For (f), :math:`p = (f - 1) / 2 = 2`.

cases = {
    "a": (6, 3, 0, 1, 4),
    "b": (6, 3, 1, 1, 6),
    "c": (7, 3, 0, 2, 3),
    "d": (7, 3, 1, 3, 3),
    "e": (227, 11, 0, 4, 55),
}
for letter, (n, f, p, s, answer) in cases.items():
    assert output_size(n, f, s, (p, p)) == (n + 2 * p - f) // s + 1 == answer, letter
assert output_size(28, 5, 1, (2, 2)) == 28

# %%
# Exercise 2: a convolution by hand
# ---------------------------------
# Correlate the :math:`3 \times 4` image below with a :math:`2 \times 2` kernel of twos. Then put one zero around the
# image :math:`\bigl(\begin{smallmatrix} 1 & 2 \\ 4 & 5 \end{smallmatrix}\bigr)` and do it with strides 1 and 2.
#
# *Answer.* Each output is twice the sum of its window.

image = plane([[1, 2, 3, 1], [4, 5, 6, 1], [7, 8, 9, 1]])
twos = plane([[2, 2], [2, 2]])
y = conv(image, twos)
assert host(y)[0, 0].tolist() == [[24, 32, 22], [48, 56, 34]]

small = plane([[1, 2], [4, 5]])
around, strided = conv(small, twos, padding=1), conv(small, twos, padding=1, stride=2)
assert host(around)[0, 0].tolist() == [[2, 6, 4], [10, 24, 14], [8, 18, 10]]
assert host(strided)[0, 0].tolist() == [[2, 4], [8, 10]]

# sphinx_gallery_start_ignore
axes = drawing.board(
    "The three by four image and its output 24, 32, 22, 48, 56, 34; then the image 1, 2, 4, 5 with its three by three "
    "output for one zero around it, and its two by two output at stride 2, which are the corners of the other",
    19,
    11.6,
)
drawing.matrix(axes, image[0, 0], 2.5, 1.5, "image")
drawing.sign(axes, "→", 8, 3)
drawing.matrix(axes, y[0, 0], 9.5, 2, "output", drawing.shades(y[0, 0]))
drawing.matrix(axes, small[0, 0], 2.5, 7.8, "image")
drawing.sign(axes, "→", 6, 8.8)
drawing.matrix(axes, around[0, 0], 7.5, 7.3, "stride 1", drawing.shades(around[0, 0]))
drawing.matrix(axes, strided[0, 0], 13.5, 7.8, "stride 2", drawing.shades(strided[0, 0]))
# sphinx_gallery_end_ignore

# %%
# Exercise 3: im2col
# ------------------
# Write the same convolution as a product of a matrix and a vector. What shape has the matrix, and what is its first
# row? What shape has it for a batch of 8 images with 3 channels of :math:`32 \times 32` and a valid kernel of
# :math:`5 \times 5`, and how many bytes is that in float32?
#
# *Answer.* One row for each of :math:`2 \cdot 3` windows, one column for each of :math:`2 \cdot 2` weights; the first
# row is 1, 2, 4, 5. For the batch there are :math:`8 \cdot 28 \cdot 28 = 6272` rows of :math:`3 \cdot 5 \cdot 5 = 75`,
# 1,881,600 bytes: 19 times as many as the images have.

windows = Windows(kernel=(2, 2), stride=(1, 1), dilation=(1, 1), count=(2, 3))
cut = nn.backends.operations_of(xp).windows(xp.reshape(image, (1, 3, 4, 1)), windows)
rows = xp.reshape(cut, (6, 4))
assert host(rows)[0].tolist() == [1, 2, 4, 5]
assert host(rows @ xp.reshape(twos, (4, 1)))[:, 0].tolist() == host(y).ravel().tolist()

side = output_size(32, 5, 1, (0, 0))
shape = (8 * side * side, 3 * 5 * 5)
assert shape == (6272, 75) and 4 * shape[0] * shape[1] == 1_881_600
assert round(shape[0] * shape[1] / (8 * 3 * 32 * 32)) == 19

# %%
# Exercise 4: an edge, and ReLU
# -----------------------------
# Correlate the image in the code with Sobel's kernel, and take the ReLU. Where is the edge?
#
# *Answer.* At the right, where the numbers rise from left to right. Falling edges are negative, and the ReLU takes
# them away.

street = plane([[4, 1, 2, 4, 7, 9], [0, 1, 2, 0, 2, 3], [6, 4, 5, 2, 1, 3], [8, 1, 2, 1, 3, 2]])
sobel = plane([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
edges = conv(street, sobel)
assert host(edges)[0, 0].tolist() == [[1, -1, 1, 12], [-6, -5, -7, 6]]
assert host(relu(edges))[0, 0].tolist() == [[1, 0, 1, 12], [0, 0, 0, 6]]

# %%
# Exercise 5: gradients by hand
# -----------------------------
# The image of exercise 2 is correlated with :math:`\bigl(\begin{smallmatrix} 1 & 2 \\ 3 & 4 \end{smallmatrix}\bigr)`,
# and the gradient that arrives at the output is :math:`\bigl(\begin{smallmatrix} 1 & -1 & 2 \\ 0 & 3 & 1
# \end{smallmatrix}\bigr)`. Compute the gradients of the kernel, of a bias and of the pixel at the upper left.
#
# *Answer.* The gradient of the kernel is the correlation of the image with what arrives; its first entry is
#
# .. math::
#
#    1 \cdot 1 - 1 \cdot 2 + 2 \cdot 3 + 0 \cdot 4 + 3 \cdot 5 + 1 \cdot 6 = 26 .
#
# The bias is in every output: :math:`1 - 1 + 2 + 0 + 3 + 1 = 6`. The upper left pixel is in one window only, times 1:
# its gradient is 1.

kernel, dy = plane([[1, 2], [3, 4]]), plane([[1, -1, 2], [0, 3, 1]])
dx, dweight, dbias = conv_backward(dy, image, kernel)
assert host(dweight)[0, 0].tolist() == host(conv(image, dy))[0, 0].tolist()
assert float(dweight[0, 0, 0, 0]) == 26 and float(dbias[0]) == 6 and float(dx[0, 0, 0, 0]) == 1
rotated = plane([[4, 3], [2, 1]])
assert host(dx)[0, 0].tolist() == host(conv(dy, rotated, padding=1))[0, 0].tolist()

# sphinx_gallery_start_ignore
axes = drawing.board(
    "The upstream gradient, two by three; the gradient of the kernel, two by two, with 26 at the upper left; and the "
    "gradient of the image, three by four, with 1 at the upper left",
    18,
    5.6,
)
drawing.matrix(axes, dy[0, 0], 1, 2, "dy")
drawing.matrix(axes, dweight[0, 0], 6.5, 2, "dweight", drawing.shades(dweight[0, 0], drawing.ORANGE))
drawing.matrix(axes, dx[0, 0], 11.5, 1.5, "dx", drawing.shades(dx[0, 0]))
# sphinx_gallery_end_ignore

# %%
# Exercise 6: pools
# -----------------
# Pool the matrix below by :math:`2 \times 2`, once by the maximum and once by the mean, and send the gradients 10, 20,
# 30, 40 back.
#
# *Answer.* Maxima 6, 8, 3, 4, and each gradient goes to its maximum. Means 11/4, 19/4, 7/4, 7/4, and each cell gets a
# quarter.

x, upstream = plane([[1, 0, 2, 3], [4, 6, 6, 8], [3, 1, 1, 0], [1, 2, 2, 4]]), plane([[10, 20], [30, 40]])
assert host(max_pool(x, 2)).ravel().tolist() == [6, 8, 3, 4]
assert host(avg_pool(x, 2)).ravel().tolist() == [2.75, 4.75, 1.75, 1.75]
to_maxima, to_all = max_pool_backward(upstream, x, 2), avg_pool_backward(upstream, x.shape, 2)
assert host(to_maxima)[0, 0].tolist() == [[0, 0, 0, 0], [0, 10, 0, 20], [30, 0, 0, 0], [0, 0, 0, 40]]
assert host(to_all)[0, 0].tolist() == [[2.5, 2.5, 5, 5]] * 2 + [[7.5, 7.5, 10, 10]] * 2

# %%
# Exercise 7: parameters
# ----------------------
# How many parameters has each layer of LeNet-5 for images of :math:`28 \times 28` and ten classes? How many would one
# dense layer from the image to the first planes have?
#
# *Answer.* A convolution has :math:`F (C f^2 + 1)`, a dense layer :math:`O (I + 1)`: 156, 2,416, 48,120, 10,164 and
# 850, together 61,706. The dense layer would have :math:`784 \cdot 6 \cdot 784` weights and :math:`6 \cdot 784` biases,
# 3,692,640, in place of 156.

summary = nn.models.lenet5((1, 28, 28), 10, backend=backend, seed=0).summary((1, 1, 28, 28))
counts = [row.parameters for row in summary.rows if row.parameters]
print(summary)
assert counts == [6 * 26, 16 * (6 * 25 + 1), 120 * 401, 84 * 121, 10 * 85] == [156, 2416, 48120, 10164, 850]
assert sum(counts) == 61_706
assert 784 * 6 * 784 + 6 * 784 == 3_692_640

# %%
# Exercise 8: receptive fields
# ----------------------------
# A pool by 2, a convolution of :math:`3 \times 3`, a pool by 2, a convolution of :math:`3 \times 3`: how many pixels
# does one output see?
#
# *Answer.* With :math:`r = 1 + \sum_l (f_l - 1) \prod_{k<l} s_k`: :math:`1 + 1 + 2 \cdot 2 + 1 \cdot 2 + 2 \cdot 4 =
# 16` along each axis. The gradient of one output with respect to the image is not 0 in just as many pixels, if all
# weights are positive and pools are means.


def seen(size=32):
    """The gradient of the first output with respect to an image of ones."""
    ones = nn.initialisers.constant(1.0)
    net = nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, 1, 3, weight_init=ones),
        nn.AvgPool2d(2),
        nn.Conv2d(1, 1, 3, weight_init=ones),
        backend=backend,
        seed=0,
    )
    y = net(array(np.ones((1, 1, size, size))))
    only_first = np.zeros(y.shape)
    only_first[0, 0, 1, 1] = 1
    return host(net.backward(array(only_first)))[0, 0]


field = seen()
rows_seen, columns_seen = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
receptive, distance = 1, 1
for f, s in ((2, 2), (3, 1), (2, 2), (3, 1)):
    receptive, distance = receptive + (f - 1) * distance, distance * s
assert len(rows_seen) == len(columns_seen) == receptive == 16

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "A map of 32 by 32 pixels in which a square of 16 by 16 is coloured, the part that one output sees; it is darkest "
    "in the middle",
    size=(4, 3.2),
)
picture = axes[0, 0].imshow(field, cmap="cividis_r")
axes[0, 0].set_title("gradient of one output")
axes[0, 0].figure.colorbar(picture)
# sphinx_gallery_end_ignore

# %%
# Exercise 9: a loss
# ------------------
# The logits are :math:`\log 1, \log 2, \log 5` and the class is the third. What are the probabilities, the loss and
# its gradient?
#
# *Answer.* :math:`1/8, 2/8, 5/8`; :math:`-\log (5/8) = 0.470`; and :math:`1/8, 2/8, -3/8`.

logits, third = array(np.log([[1, 2, 5]])), backend.asarray(np.array([2]))
np.testing.assert_allclose(host(nn.functional.softmax(logits))[0], [1 / 8, 2 / 8, 5 / 8], rtol=1e-6)
np.testing.assert_allclose(float(nn.functional.cross_entropy(logits, third)), 0.470, atol=5e-4)
gradient = nn.functional.cross_entropy_backward(1.0, logits, third)
np.testing.assert_allclose(host(gradient)[0], [1 / 8, 2 / 8, -3 / 8], rtol=1e-5)

# %%
# The last page asks what these numbers are when they are no small integers: :doc:`plot_11_the_last_bit`.
