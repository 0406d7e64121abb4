"""The numbers that lectures on convolutional nets work out by hand, on every backend.

All are integers, so every backend has to give exactly these.
"""

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.contractions.windows import Windows
from xpnn.layers.core import geometry
from xpnn.testing import assert_match

F = nn.functional
IMAGE = [[1, 2, 3, 1], [4, 5, 6, 1], [7, 8, 9, 1]]
SMALL = [[1, 2], [4, 5]]
TWOS = [[2, 2], [2, 2]]
STREET = [[4, 1, 2, 4, 7, 9], [0, 1, 2, 0, 2, 3], [6, 4, 5, 2, 1, 3], [8, 1, 2, 1, 3, 2]]
SOBEL = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]


def plane(at, numbers):
    """A matrix as one image (or kernel) of one channel."""
    return at.put(np.asarray(numbers, dtype=np.float32)[None, None])


def assert_plane(at, actual, numbers):
    assert_match(actual, np.asarray(numbers, dtype=np.float32)[None, None], level="exact", backend=at.backend)


def test_convolution_of_a_matrix_with_a_kernel_of_twos(at):
    assert_plane(at, F.conv(plane(at, IMAGE), plane(at, TWOS)), [[24, 32, 22], [48, 56, 34]])


def test_im2col_has_one_row_per_window(at):
    image = at.xp.reshape(plane(at, IMAGE), (1, 3, 4, 1))
    windows = Windows(kernel=(2, 2), stride=(1, 1), dilation=(1, 1), count=(2, 3))
    cut = nn.backends.operations_of(at.xp).windows(image, windows)
    assert cut.shape == (1, 2, 3, 2, 2, 1)
    rows = [[1, 2, 4, 5], [2, 3, 5, 6], [3, 1, 6, 1], [4, 5, 7, 8], [5, 6, 8, 9], [6, 1, 9, 1]]
    assert_match(at.xp.reshape(cut, (6, 4)), np.asarray(rows, dtype=np.float32), level="exact", backend=at.backend)


def test_im2col_times_the_kernel_is_the_convolution(at):
    rows = at.put([[1, 2, 4, 5], [2, 3, 5, 6], [3, 1, 6, 1], [4, 5, 7, 8], [5, 6, 8, 9], [6, 1, 9, 1]], "float32")
    product = at.xp.reshape(at.xp.matmul(rows, at.xp.reshape(plane(at, TWOS), (4, 1))), (1, 1, 2, 3))
    assert_match(product, F.conv(plane(at, IMAGE), plane(at, TWOS)), level="exact")


def test_convolution_with_one_zero_around(at):
    # The printed lecture has 20 in the middle of the right column; it is 2 * (2 + 5) = 14.
    expected = [[2, 6, 4], [10, 24, 14], [8, 18, 10]]
    assert_plane(at, F.conv(plane(at, SMALL), plane(at, TWOS), padding=1), expected)


def test_convolution_with_one_zero_around_and_stride_two(at):
    assert_plane(at, F.conv(plane(at, SMALL), plane(at, TWOS), padding=1, stride=2), [[2, 4], [8, 10]])


def test_sobel_filter_then_relu(at):
    edges = F.conv(plane(at, STREET), plane(at, SOBEL))
    assert_plane(at, edges, [[1, -1, 1, 12], [-6, -5, -7, 6]])
    assert_plane(at, F.relu(edges), [[1, 0, 1, 12], [0, 0, 0, 6]])


def test_convolution_is_cross_correlation_and_does_not_flip_the_kernel(at):
    picks_last = [[0, 0], [0, 1]]
    assert_plane(at, F.conv(plane(at, IMAGE), plane(at, picks_last)), [[5, 6, 1], [8, 9, 1]])


def test_six_by_six_image_and_three_by_three_kernel(at):
    image, kernel = at.put(np.ones((1, 1, 6, 6), np.float32)), at.put(np.ones((1, 1, 3, 3), np.float32))
    assert F.conv(image, kernel).shape == (1, 1, 4, 4)
    assert F.conv(image, kernel, padding=1).shape == (1, 1, 6, 6)


@pytest.mark.parametrize("f", [1, 3, 5, 7])
@pytest.mark.parametrize("n", [6, 7, 28])
def test_same_padding_for_an_odd_kernel_is_half_of_it(n, f):
    half = (f - 1) // 2
    assert geometry.resolve_padding("same", (n,), (f,), (1,), (1,)) == ((half, half),)
    assert geometry.output_size(n, f, padding=(half, half)) == n


@pytest.mark.parametrize(
    ("n", "f", "p", "s", "size"),
    [(6, 3, 0, 1, 4), (6, 3, 1, 1, 6), (7, 3, 0, 2, 3), (7, 3, 1, 3, 3), (227, 11, 0, 4, 55), (28, 5, 2, 1, 28)],
)
def test_output_size_formula(n, f, p, s, size):
    assert geometry.output_size(n, f, s, (p, p)) == size == (n + 2 * p - f) // s + 1


def test_volume_of_three_channels_gives_one_plane_per_filter(at):
    x, weight = at.put(np.ones((1, 3, 6, 6), np.float32)), at.put(np.ones((2, 3, 3, 3), np.float32))
    assert_match(F.conv(x, weight), np.full((1, 2, 4, 4), 27, np.float32), level="exact", backend=at.backend)


def test_max_pool_and_its_mask(at):
    x = plane(at, [[1, 0, 2, 3], [4, 6, 6, 8], [3, 1, 1, 0], [1, 2, 2, 4]])
    y, indices = F.max_pool(x, 2, return_indices=True)
    assert_plane(at, y, [[6, 8], [3, 4]])
    assert at.get(indices).tolist() == [[[[5, 7], [8, 15]]]]
    dx = F.max_pool_backward(plane(at, [[10, 20], [30, 40]]), x, 2)
    assert_plane(at, dx, [[0, 0, 0, 0], [0, 10, 0, 20], [30, 0, 0, 0], [0, 0, 0, 40]])


def test_average_pool_shares_the_gradient_equally(at):
    assert_plane(at, F.avg_pool(plane(at, [[1, 3, 2, 0], [4, 8, 6, 8]]), 2), [[4, 4]])
    dx = F.avg_pool_backward(plane(at, [[4, 8]]), (1, 1, 2, 4), 2)
    assert_plane(at, dx, [[1, 1, 2, 2], [1, 1, 2, 2]])


KERNEL = np.array([[1, 2], [3, 4]])
UPSTREAM = np.array([[1, -1, 2], [0, 3, 1]])


def gradients(at):
    return F.conv_backward(plane(at, UPSTREAM), plane(at, IMAGE), plane(at, KERNEL))


def test_input_gradient_is_the_full_convolution_with_the_rotated_kernel(at):
    rotated = np.array([[4, 3], [2, 1]])
    around = np.zeros((4, 5))
    around[1:3, 1:4] = UPSTREAM
    expected = np.zeros((3, 4))
    for i in range(3):
        for j in range(4):
            for a in range(2):
                for b in range(2):
                    expected[i, j] += around[i + a, j + b] * rotated[a, b]
    assert_plane(at, gradients(at)[0], expected)
    assert_plane(at, F.conv(plane(at, UPSTREAM), plane(at, rotated), padding=1), expected)


def test_weight_gradient_is_the_cross_correlation_of_input_and_upstream(at):
    expected = np.zeros((2, 2))
    for a in range(2):
        for b in range(2):
            for i in range(2):
                for j in range(3):
                    expected[a, b] += IMAGE[a + i][b + j] * UPSTREAM[i, j]
    assert_plane(at, gradients(at)[1], expected)
    assert_plane(at, F.conv(plane(at, IMAGE), plane(at, UPSTREAM)), expected)


def test_bias_gradient_is_the_sum_of_the_upstream(at):
    assert at.get(gradients(at)[2]).tolist() == [1 - 1 + 2 + 0 + 3 + 1]
