"""Pooling of ties, NaN, infinities and the cells of the padding."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

F = nn.functional
INF, NAN = float("inf"), float("nan")


def assert_values(at, actual, numbers):
    assert_match(actual, np.asarray(numbers, np.float32), level="exact", backend=at.backend)


def indices(at, x, *arguments, **options):
    return at.get(F.max_pool(x, *arguments, return_indices=True, **options)[1]).tolist()


def test_max_pool_tie_goes_to_first_cell(at):
    x = at.put([[[[2.0, 5.0, 1.0], [5.0, 5.0, 1.0]]]])
    y, index = F.max_pool(x, (2, 3), return_indices=True)
    assert at.get(index).tolist() == [[[[1]]]]
    dx = F.max_pool_backward(at.put([[[[7.0]]]]), x, (2, 3))
    assert_values(at, y, [[[[5]]]])
    assert_values(at, dx, [[[[0, 7, 0], [0, 0, 0]]]])


def test_max_pool_tie_of_the_two_zeros_goes_to_first_cell(at):
    x = at.put([[[-0.0, 0.0, 0.0, -0.0]]])
    assert indices(at, x, 2) == [[[0, 2]]]
    assert_values(at, F.max_pool_backward(at.put([[[3.0, 4.0]]]), x, 2), [[[3, 0, 4, 0]]])


def test_max_pool_gradients_of_overlapping_windows_add_up(at):
    x = at.put([[[1.0, 3.0, 2.0]]])
    dx = F.max_pool_backward(at.put([[[10.0, 5.0]]]), x, 2, stride=1)
    assert_values(at, dx, [[[0, 15, 0]]])


def test_nan_is_the_maximum_in_every_cell(at):
    x = [[[NAN, 1.0, 2.0], [INF, NAN, 2.0], [1.0, INF, NAN], [1.0, 2.0, 3.0]]]
    assert_values(at, F.max_pool(at.put(x), 3), [[[NAN], [NAN], [NAN], [3]]])
    assert indices(at, at.put(x), 3) == [[[0], [1], [2], [2]]]


def test_first_of_several_nans_gets_the_gradient(at):
    dx = F.max_pool_backward(at.put([[[3.0]]]), at.put([[[1.0, NAN, NAN, 5.0]]]), 4)
    assert_values(at, dx, [[[0, 3, 0, 0]]])


def test_nan_stays_in_the_windows_that_contain_it(at):
    x = at.put([[[1.0, 2.0, NAN, 4.0, 5.0, 6.0]]])
    assert_values(at, F.max_pool(x, 2), [[[2, NAN, 6]]])
    assert_values(at, F.avg_pool(x, 2), [[[1.5, NAN, 5.5]]])


def test_padding_is_not_the_maximum_of_negative_input(at):
    x = at.put(np.full((1, 1, 3, 3), -4.0, np.float32))
    y = F.max_pool(x, 3, stride=1, padding=1)
    assert_values(at, y, np.full((1, 1, 3, 3), -4))


@pytest.mark.parametrize("pads", [1, ((1, 0), (0, 1)), ((0, 1), (1, 1))])
def test_padding_does_not_win_where_all_of_the_input_is_minus_infinity(at, pads):
    x = at.put(np.full((1, 1, 4, 3), -INF, np.float32))
    options = {"stride": 1, "padding": pads}
    y = F.max_pool(x, 3, **options)
    assert_values(at, y, np.full(y.shape, -INF))
    dx = F.max_pool_backward(at.put(np.ones(y.shape, np.float32)), x, 3, **options)
    assert float(at.get(dx).sum()) == np.prod(y.shape), "some gradient went to the padding"


def test_first_cell_of_the_input_wins_a_window_of_minus_infinities(at):
    x = at.put(np.full((1, 1, 3), -INF, np.float32))
    assert indices(at, x, 3, stride=1, padding=1) == [[[0, 0, 1]]]
    dx = F.max_pool_backward(at.put([[[1.0, 2.0, 4.0]]]), x, 3, stride=1, padding=1)
    assert_values(at, dx, [[[3, 4, 0]]])


def test_first_cell_of_the_input_wins_in_a_dilated_padded_window(at):
    x = at.put(np.full((1, 1, 5), -INF, np.float32))
    assert indices(at, x, 3, stride=1, padding=2, dilation=2) == [[[0, 1, 0, 1, 2]]]


def test_minus_infinities_under_the_overhang_of_ceil_mode_keep_their_gradient(at):
    x = at.put(np.full((1, 1, 5), -INF, np.float32))
    dx = F.max_pool_backward(at.put([[[1.0, 2.0, 4.0]]]), x, 2, ceil_mode=True)
    assert_values(at, F.max_pool(x, 2, ceil_mode=True), [[[-INF, -INF, -INF]]])
    assert_values(at, dx, [[[1, 0, 2, 0, 4]]])


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_special_upstream_gradient_reaches_the_winner_and_no_other_cell(at, value):
    x = at.put([[[1.0, 5.0, 2.0, 4.0]]])
    dx = F.max_pool_backward(at.put([[[1.0, value, 3.0]]]), x, 2, stride=1)
    assert_values(at, dx, [[[0, 1 + value, 0, 3]]])


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_special_upstream_gradient_of_an_average_reaches_its_cells_only(at, value):
    dx = F.avg_pool_backward(at.put([[[2.0, value, 4.0]]]), (1, 1, 6), 2)
    assert_values(at, dx, [[[1, 1, value, value, 2, 2]]])


def test_average_counts_the_padding_or_not(at):
    x = at.put([[[6.0, 6.0, 6.0]]])
    assert_values(at, F.avg_pool(x, 3, stride=1, padding=1), [[[4, 6, 4]]])
    assert_values(at, F.avg_pool(x, 3, stride=1, padding=1, count_include_pad=False), [[[6, 6, 6]]])


def test_average_never_counts_cells_that_ceil_mode_adds(at):
    x = at.put([[[6.0, 6.0, 6.0, 6.0, 6.0]]])
    for counted in (True, False):
        y = F.avg_pool(x, 3, stride=2, ceil_mode=True, count_include_pad=counted)
        assert_values(at, y, [[[6, 6]]])
        assert_values(at, F.avg_pool(x, 2, ceil_mode=True, count_include_pad=counted), [[[6, 6, 6]]])


def test_average_counts_the_padding_but_not_the_overhang_behind_it(at):
    x = at.put([[[6.0, 6.0, 6.0, 6.0]]])
    # windows of 4 at -1 and 2: the second has two cells of the input, one of the padding and one after it
    assert_values(at, F.avg_pool(x, 4, stride=3, padding=1, ceil_mode=True), [[[4.5, 4]]])


def test_given_divisor_divides_every_sum(at):
    x = at.put([[[6.0, 6.0, 6.0]]])
    for counted in (True, False):
        options = {"stride": 1, "padding": 1, "count_include_pad": counted, "divisor_override": 2}
        assert_values(at, F.avg_pool(x, 3, **options), [[[6, 9, 6]]])
        dx = F.avg_pool_backward(at.put([[[2.0, 4.0, 8.0]]]), (1, 1, 3), 3, **options)
        assert_values(at, dx, [[[3, 7, 6]]])


@pytest.mark.parametrize("divisor", [0, -1, 2.0, True, "2"])
def test_divisor_that_is_not_a_positive_integer_is_an_error_at_once(divisor):
    with pytest.raises(ValueError, match="divisor_override must be an integer >= 1"):
        nn.AvgPool2d(2, divisor_override=divisor)


@pytest.mark.parametrize("pool", [F.max_pool, F.avg_pool])
@pytest.mark.parametrize(
    ("n", "kernel", "stride", "pads", "windows"),
    [
        (4, 2, 3, (0, 0), 2),  # the last window holds one cell
        (3, 1, 3, (0, 0), 1),  # the last would start at 3, after the input
        (4, 2, 3, (1, 1), 2),  # the last would start at 5, in the padding after the input
        (4, 2, 2, (1, 1), 3),  # the last starts at 3 and is full
        (5, 2, 3, (1, 0), 2),  # the last would start at 5 in the input, not counting the padding before it
        (5, 2, 3, (0, 1), 2),
        (6, 3, 2, (1, 1), 4),
    ],
)
def test_windows_that_ceil_mode_adds(at, pool, n, kernel, stride, pads, windows):
    x = at.put(np.ones((1, 1, n), np.float32))
    y = pool(x, kernel, stride=stride, padding=(pads,), ceil_mode=True)
    assert y.shape == (1, 1, windows)


def test_layer_with_indices_returns_both_and_accepts_the_gradient_of_the_maxima(at):
    layer = nn.MaxPool2d(2, return_indices=True, backend=at.backend)
    x = at.put([[[[1.0, 2.0], [4.0, 3.0]], [[9.0, 2.0], [4.0, 3.0]]]])
    y, where = layer(x)
    assert_values(at, y, [[[[4]], [[9]]]])
    assert at.get(where).tolist() == [[[[2]], [[0]]]]
    assert_values(at, layer.backward(at.put([[[[5.0]], [[7.0]]]])), [[[[0, 0], [5, 0]], [[7, 0], [0, 0]]]])
    y, where = layer.eval()(x)
    assert at.get(where).tolist() == [[[[2]], [[0]]]]


def test_non_contiguous_inputs(at, rng):
    host = rng.standard_normal((6, 10, 3, 4)).astype(np.float32)
    x = at.xp.permute_dims(at.put(host)[:, 1::2, ...], (3, 2, 1, 0))
    plain = at.put(np.ascontiguousarray(host[:, 1::2].transpose(3, 2, 1, 0)))
    for pool in (lambda a: F.max_pool(a, 2), lambda a: F.avg_pool(a, 2)):
        assert_match(pool(x), pool(plain), level="exact", backend=at.backend)


@pytest.mark.parametrize("kernel", [1, 2])
def test_output_is_not_a_view_of_the_input_and_inputs_are_not_changed(at, kernel):
    host = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    x = at.put(host.copy())
    y = F.max_pool(x, kernel)
    mean = F.avg_pool(x, kernel)
    dy = at.put(np.ones(y.shape, np.float32))
    F.max_pool_backward(dy, x, kernel)
    F.avg_pool_backward(dy, (1, 2, 4), kernel)
    y[...] = -1.0
    mean[...] = -1.0
    assert_values(at, x, host)
    assert_values(at, dy, np.ones(y.shape))


def test_more_padding_than_half_a_window_is_accepted_as_pairs_only(rng):
    """ONNX allows it, PyTorch does not; pairs are given on purpose."""
    x = rng.standard_normal((1, 2, 5, 5)).astype(np.float32)
    pads = ((2, 2), (2, 2))
    with pytest.raises(ValueError, match="more than half"):
        nn.MaxPool2d(3, 1, 2)(x)
    assert nn.MaxPool2d(3, 1, pads)(x).shape == (1, 2, 7, 7)
    padded = np.full((1, 2, 9, 9), -np.inf)
    padded[..., 2:7, 2:7] = x
    wanted = np.stack([padded[..., i : i + 7, j : j + 7] for i in range(3) for j in range(3)]).max(axis=0)
    assert_match(nn.MaxPool2d(3, 1, pads)(x), wanted, level="exact", dtype="float32")
    zeros = np.where(np.isinf(padded), 0.0, padded)
    total = np.stack([zeros[..., i : i + 7, j : j + 7] for i in range(3) for j in range(3)]).sum(axis=0)
    assert_match(nn.AvgPool2d(3, 1, pads)(x), total / 9, level="reduction", terms=9, dtype="float32")
    with pytest.raises(ValueError, match="padding only"):
        nn.MaxPool2d(3, 1, ((3, 0), (0, 0)))(x)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(2, 2, 2), (3, 3, 2), (2, 3, 4), ((2, 1), (2, 1), (3, 2))])
def test_gradients_of_dilated_windows_add_up_where_they_cross(at, kernel, stride, dilation):
    x = np.zeros((2, 3, 9, 8), np.float32)
    # Larger at each second cell, so that windows share their maxima.
    x[:, :, 2::2, ::2] = np.arange(16).reshape(4, 4)[::-1, ::-1] + 1
    options = {"stride": stride, "dilation": dilation}
    y, index = F.max_pool(at.put(x), kernel, return_indices=True, **options)
    dy = np.random.default_rng(0).integers(1, 9, y.shape).astype(np.float32)
    expected = np.zeros((2, 3, 72), np.float32)
    n, c = np.indices((2, 3))
    for cells, each in zip(at.get(index).reshape(6, -1).T, dy.reshape(6, -1).T, strict=True):
        np.add.at(expected, (n.ravel(), c.ravel(), cells), each)
    assert_values(at, F.max_pool_backward(at.put(dy), at.put(x), kernel, **options), expected.reshape(x.shape))
