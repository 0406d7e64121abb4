r"""
1. Images, kernels and edges
============================

An image is an array of numbers. A *kernel* is a small array that is laid on every place of the image: the numbers below
it are multiplied with those of the image, and the products are added up. That is all that a convolution does, and it is
enough to find edges. This page shows it on a photograph.

Every page of the course is a program in the folder ``docs/course``, and runs as it stands there. The lines that only
draw, with the module ``drawing`` beside it, are left out on the page.
"""

import drawing
import numpy as np
from scipy import signal
from sklearn.datasets import load_sample_image

import xpnn as nn
from xpnn.functional import conv

# %%
# An image as an array
# --------------------
# scikit-learn ships a photograph of a tower. It has three numbers for each pixel, the brightness of red, green and
# blue, from 0 to 255, with the colour as the last axis: :math:`(H, W, 3)`. Layers expect a batch of images with the
# *channels* in front of rows and columns, :math:`(N, C, H, W)`, and numbers of about 1.
#
# ``backend.asarray`` puts the array where it is computed with: in NumPy's memory, or, with ``XPNN_BACKEND=cupy``, on a
# GPU. Nothing else on these pages depends on it.

backend = nn.get_backend()
photograph = load_sample_image("china.jpg")
pixels = np.moveaxis(photograph, -1, 0)[None] / np.float32(255)
x = backend.asarray(pixels)

print("photograph", photograph.shape, photograph.dtype, "-> input", tuple(x.shape), x.dtype)
assert x.shape == (1, 3, 427, 640)

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "The photograph of a Chinese tower in colour, and its red, green and blue channel as three grey images: the red "
    "walls and orange roofs are brighter in the red channel than in the others.",
    2,
    2,
    size=(6.4, 4.5),
)
drawing.image(axes[0, 0], x[0], "three channels together")
for panel, channel, name in zip(axes.flat[1:], x[0], ("red", "green", "blue"), strict=True):
    drawing.image(panel, channel, f"channel {name}", limits=(0, 1))
# sphinx_gallery_end_ignore

# %%
# Grey is a weighted sum of the three channels, because eyes see green brighter than blue. A sum over channels at each
# pixel is already a convolution, with a kernel of one pixel: one filter, three channels, :math:`1\times 1`.

luminance = backend.asarray(np.array([0.299, 0.587, 0.114], "float32").reshape(1, 3, 1, 1))
grey = conv(x, luminance)

assert grey.shape == (1, 1, 427, 640)

# %%
# Close up, the picture is gone and only numbers are left: this is what a net sees. It is the tip of the tower before
# the sky. In the fifth row brightness falls from 81 to 13 percent between two neighbours.

tip = grey[0, 0, 28:36, 192:204]
assert backend.to_numpy(100 * tip[4, 4:6]).round().tolist() == [81, 13]

# sphinx_gallery_start_ignore
axes = drawing.board(
    "The tip of the tower, eight rows and twelve columns of the grey image, as a table of numbers in percent of white, "
    "on cells of that brightness: about 85 for the sky, about 25 for the tower.",
    13,
    9.4,
    cell=0.4,
)
drawing.matrix(
    axes, 100 * tip, 0.5, 1, "grey, in percent of white", [[str(v) for v in row] for row in backend.to_numpy(tip)]
)
# sphinx_gallery_end_ignore

# %%
# Kernel convolution
# ------------------
# In signal processing the convolution of an image :math:`f` with a kernel :math:`h` is
#
# .. math::
#
#    (f * h)[i, j] = \sum_{m, n} f[i - m,\, j - n] \; h[m, n] .
#
# Both indices of :math:`f` run backwards while those of :math:`h` run forwards. Think of light that passes through a
# lens: each point of the image is spread out in the shape of :math:`h`, and at :math:`(i, j)` arrives what the points
# :math:`(i - m, j - n)` have sent over the distance :math:`(m, n)`. An image of one bright point therefore becomes
# :math:`h` itself. With the substitution :math:`(m, n) \to (i - m, j - n)` one sees that :math:`f * h = h * f`.
#
# Frameworks compute something else under that name, the *cross-correlation*
#
# .. math::
#
#    (f \star h)[i, j] = \sum_{m, n} f[i + m,\, j + n] \; h[m, n] ,
#
# in which both run forwards: the kernel is laid on the image as it is written. The two differ by a rotation of the
# kernel by 180 degrees, that is a flip of both axes, since :math:`f * h` takes :math:`h[m, n]` where :math:`f \star h`
# takes :math:`h[-m, -n]`. :func:`xpnn.functional.conv` is the second one. One bright point shows it:


def as_plane(numbers):
    """A matrix as a batch of one image of one channel, or as one filter of one channel."""
    return backend.asarray(np.array(numbers, "float32")[None, None])


def rotate(kernel):
    """A kernel turned by 180 degrees."""
    return backend.xp.flip(kernel, axis=(2, 3))


point = np.zeros((5, 5))
point[2, 2] = 1
kernel = as_plane([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
correlation = conv(as_plane(point), kernel)
convolution = conv(as_plane(point), rotate(kernel))

assert backend.to_numpy(correlation).tolist() == backend.to_numpy(rotate(kernel)).tolist()
assert backend.to_numpy(convolution).tolist() == backend.to_numpy(kernel).tolist()

# sphinx_gallery_start_ignore
axes = drawing.board(
    "An image of five by five zeros with a 1 in the middle. Its correlation with the kernel 1 to 9 is the kernel "
    "rotated, 9 to 1; its convolution is the kernel itself.",
    19,
    6.2,
)
drawing.matrix(axes, point, 0.3, 1, "image f", drawing.shades(point))
drawing.matrix(axes, kernel[0, 0], 6.2, 2, "kernel h", drawing.shades(kernel[0, 0], drawing.ORANGE))
drawing.matrix(axes, correlation[0, 0], 10.7, 2, r"correlation $f \star h$", drawing.shades(correlation[0, 0]))
drawing.matrix(axes, convolution[0, 0], 15.2, 2, "convolution $f * h$", drawing.shades(convolution[0, 0]))
# sphinx_gallery_end_ignore

# %%
# SciPy has both under their proper names, and agrees.

f = backend.to_numpy(grey[0, 0])
h = backend.to_numpy(kernel[0, 0])
correlated = backend.to_numpy(conv(grey, kernel))[0, 0]
convolved = backend.to_numpy(conv(grey, rotate(kernel)))[0, 0]
np.testing.assert_allclose(correlated, signal.correlate2d(f, h, mode="valid"), atol=1e-4)
np.testing.assert_allclose(convolved, signal.convolve2d(f, h, mode="valid"), atol=1e-4)

# %%
# Why frameworks correlate
# ------------------------
# The true convolution has better algebra: :math:`*` is commutative and associative, and :math:`\star` is neither. But a
# net *learns* its kernels. If the best kernel for a task is :math:`h`, a net that correlates learns :math:`h`, a net
# that convolves learns :math:`h` rotated, and both compute the same output. So the flip changes nothing but the order
# in which the weights are stored, and without it the formulas have a plus where they had a minus.
#
# Where the algebra matters, one rotates by hand. Two correlations in a row, written for one axis, are
#
# .. math::
#
#    ((f \star a) \star b)[i] &= \sum_{k, l} f[i + l + k] \, a[k] \, b[l] \\
#    &= \sum_{m} f[i + m] \sum_{l} a[m - l] \, b[l] ,
#
# with :math:`m = l + k`. The inner sum has a minus: it is the *convolution* of the two kernels. So two correlations are
# one, :math:`(f \star a) \star b = f \star (a * b)`. The kernel :math:`a * b` has an entry for all places where the two
# overlap at all, so :math:`a` is surrounded by zeros.
#
# Sobel's kernel, the best known one for edges, is of that kind: the difference of the right and the left neighbour,
# smoothed along the edge.

smooth, difference = as_plane([[1], [2], [1]]), as_plane([[-1, 0, 1]])
sobel = conv(smooth, rotate(difference), padding=((0, 0), (2, 2)))

assert backend.to_numpy(sobel[0, 0]).tolist() == [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]

in_two_steps = conv(conv(grey, smooth), difference)
np.testing.assert_allclose(backend.to_numpy(conv(grey, sobel)), backend.to_numpy(in_two_steps), atol=1e-5)

# %%
# The two steps read 3 + 3 numbers for each output, the :math:`3 \times 3` kernel reads 9. A kernel that is a column
# times a row is called *separable*.
#
# Edges
# -----
# An edge is where brightness changes, so a kernel that finds edges is a derivative: its numbers add up to 0, and on a
# wall of one colour it gives 0. Kernels that smooth add up to 1 and keep the brightness of that wall. Six kernels, each
# the weight of one filter, are computed in one call: the weight has the shape :math:`(F, C, f, f)`, here
# :math:`(6, 1, 3, 3)`, and the output has one channel for each filter.

kernels = {
    "blur (Gauss)": np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16,
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "Sobel, vertical edges": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    "Sobel, horizontal edges": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
    "Laplace": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "diagonal (Prewitt)": np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]]),
}
weight = backend.asarray(np.stack(list(kernels.values()))[:, None].astype("float32"))
filtered = conv(grey, weight)

assert weight.shape == (6, 1, 3, 3)
assert filtered.shape == (1, 6, 425, 638)

wall = conv(backend.asarray(np.full((1, 1, 3, 3), 0.7, "float32")), weight)
np.testing.assert_allclose(backend.to_numpy(wall).ravel(), [0.7, 0.7, 0, 0, 0, 0], atol=1e-6)

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "The photograph after six kernels. Blurred and sharpened it is still a photograph. The two Sobel kernels leave "
    "the vertical and the horizontal lines of the tower, Laplace's all thin lines, Prewitt's the diagonal ones; "
    "everything of one brightness is grey, which is 0.",
    3,
    2,
    size=(6.4, 6.9),
)
for panel, name, plane in zip(axes.flat, kernels, filtered[0], strict=True):
    drawing.image(panel, plane, name, limits=(0, 1) if name in ("blur (Gauss)", "sharpen") else (-1, 1))
# sphinx_gallery_end_ignore

# %%
# The two Sobel kernels are the two parts of a gradient, :math:`g_x` across and :math:`g_y` down. Its length
# :math:`\sqrt{g_x^2 + g_y^2}` is the strength of the edge, whatever its direction.

xp = backend.xp
across, down = filtered[0, 2], filtered[0, 3]
strength = xp.sqrt(across**2 + down**2)

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Left the grey photograph, right the strength of its edges: bright outlines of the tower, its roofs and columns, "
    "and a black sky.",
    1,
    2,
    size=(6.4, 2.5),
)
drawing.image(axes[0, 0], grey[0, 0], "grey", limits=(0, 1))
drawing.image(axes[0, 1], strength, "strength of edges", limits=(0, 2))
# sphinx_gallery_end_ignore

# %%
# In a net nobody writes these numbers down. The weight of a :class:`xpnn.Conv2d` starts random and is changed step by
# step until the output is what it should be (:doc:`plot_05_backward` shows the step), and kernels
# such as Sobel's are among those that appear. The next page is about *where* a kernel is laid:
# :doc:`plot_02_windows`.
