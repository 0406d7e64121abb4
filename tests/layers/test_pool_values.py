"""What pooling does with ties, NaN, infinities and the cells of the padding."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

F = nn.functional
INF, NAN = float("inf"), float("nan")


def assert_values(at, actual, numbers):
    assert_match(actual, np.asarray(numbers, np.float32), level="exact", backend=at.backend)


def test_max_pool_tie_goes_to_first_cell(at):
    x = at.put([[[[2.0, 5.0, 1.0], [5.0, 5.0, 1.0]]]])
    y, cell = F.max_pool(x, (2, 3))
    assert at.get(cell).tolist() == [[[[1]]]]
    dx = F.max_pool_backward(at.put([[[[7.0]]]]), cell, (1, 1, 2, 3), (2, 3))
    assert_values(at, y, [[[[5]]]])
    assert_values(at, dx, [[[[0, 7, 0], [0, 0, 0]]]])


def test_max_pool_tie_of_the_two_zeros_goes_to_first_cell(at):
    _, cell = F.max_pool(at.put([[[-0.0, 0.0, 0.0, -0.0]]]), 2)
    assert at.get(cell).tolist() == [[[0, 0]]]


def test_max_pool_gradients_of_overlapping_windows_add_up(at):
    x = at.put([[[1.0, 3.0, 2.0]]])
    _, cell = F.max_pool(x, 2, stride=1)
    dx = F.max_pool_backward(at.put([[[10.0, 5.0]]]), cell, (1, 1, 3), 2, stride=1)
    assert_values(at, dx, [[[0, 15, 0]]])


def test_nan_wins_the_maximum_wherever_it_stands(at):
    x = [[[NAN, 1.0, 2.0], [INF, NAN, 2.0], [1.0, INF, NAN], [1.0, 2.0, 3.0]]]
    y, cell = F.max_pool(at.put(x), 3)
    assert_values(at, y, [[[NAN], [NAN], [NAN], [3]]])
    assert at.get(cell).tolist() == [[[0], [1], [2], [2]]]


def test_first_of_several_nans_gets_the_gradient(at):
    _, cell = F.max_pool(at.put([[[1.0, NAN, NAN, 5.0]]]), 4)
    dx = F.max_pool_backward(at.put([[[3.0]]]), cell, (1, 1, 4), 4)
    assert_values(at, dx, [[[0, 3, 0, 0]]])


def test_nan_stays_in_the_windows_that_contain_it(at):
    x = at.put([[[1.0, 2.0, NAN, 4.0, 5.0, 6.0]]])
    assert_values(at, F.max_pool(x, 2)[0], [[[2, NAN, 6]]])
    assert_values(at, F.avg_pool(x, 2), [[[1.5, NAN, 5.5]]])


def test_negative_input_is_not_beaten_by_the_padding(at):
    x = at.put(np.full((1, 1, 3, 3), -4.0, np.float32))
    y, _ = F.max_pool(x, 3, stride=1, padding=1)
    assert_values(at, y, np.full((1, 1, 3, 3), -4))


@pytest.mark.parametrize("pads", [1, ((1, 0), (0, 1)), ((0, 1), (1, 1))])
def test_padding_does_not_win_where_all_of_the_input_is_minus_infinity(at, pads):
    x = at.put(np.full((1, 1, 4, 3), -INF, np.float32))
    options = {"stride": 1, "padding": pads}
    y, cell = F.max_pool(x, 3, **options)
    assert_values(at, y, np.full(y.shape, -INF))
    dx = F.max_pool_backward(at.put(np.ones(y.shape, np.float32)), cell, (1, 1, 4, 3), 3, **options)
    assert float(at.get(dx).sum()) == np.prod(y.shape), "some gradient went to the padding"


def test_first_cell_of_the_input_wins_a_window_of_minus_infinities(at):
    x = at.put(np.full((1, 1, 3), -INF, np.float32))
    _, cell = F.max_pool(x, 3, stride=1, padding=1)
    assert at.get(cell).tolist() == [[[1, 0, 0]]]
    dx = F.max_pool_backward(at.put([[[1.0, 2.0, 4.0]]]), cell, (1, 1, 3), 3, stride=1, padding=1)
    assert_values(at, dx, [[[3, 4, 0]]])


def test_first_cell_of_the_input_wins_in_a_dilated_padded_window(at):
    x = at.put(np.full((1, 1, 5), -INF, np.float32))
    _, cell = F.max_pool(x, 3, stride=1, padding=2, dilation=2)
    assert at.get(cell).tolist() == [[[1, 1, 0, 0, 0]]]


def test_minus_infinities_under_the_overhang_of_ceil_mode_keep_their_gradient(at):
    x = at.put(np.full((1, 1, 5), -INF, np.float32))
    y, cell = F.max_pool(x, 2, ceil_mode=True)
    dx = F.max_pool_backward(at.put([[[1.0, 2.0, 4.0]]]), cell, (1, 1, 5), 2, ceil_mode=True)
    assert_values(at, y, [[[-INF, -INF, -INF]]])
    assert_values(at, dx, [[[1, 0, 2, 0, 4]]])


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_special_upstream_gradient_reaches_the_winner_and_no_other_cell(at, value):
    _, cell = F.max_pool(at.put([[[1.0, 5.0, 2.0, 4.0]]]), 2, stride=1)
    dx = F.max_pool_backward(at.put([[[1.0, value, 3.0]]]), cell, (1, 1, 4), 2, stride=1)
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
    # windows of 4 at -1 and 2: the second has two cells of the input, one of the padding and one behind it
    assert_values(at, F.avg_pool(x, 4, stride=3, padding=1, ceil_mode=True), [[[4.5, 4]]])


def test_non_contiguous_inputs(at, rng):
    host = rng.standard_normal((6, 10, 3, 4)).astype(np.float32)
    x = at.xp.permute_dims(at.put(host)[:, 1::2, ...], (3, 2, 1, 0))
    plain = at.put(np.ascontiguousarray(host[:, 1::2].transpose(3, 2, 1, 0)))
    for pool in (lambda a: F.max_pool(a, 2)[0], lambda a: F.avg_pool(a, 2)):
        assert_match(pool(x), pool(plain), level="exact", backend=at.backend)


@pytest.mark.parametrize("kernel", [1, 2])
def test_output_is_no_view_of_the_input_and_inputs_are_not_changed(at, kernel):
    host = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    x = at.put(host.copy())
    y, cell = F.max_pool(x, kernel)
    mean = F.avg_pool(x, kernel)
    dy = at.put(np.ones(y.shape, np.float32))
    F.max_pool_backward(dy, cell, (1, 2, 4), kernel)
    F.avg_pool_backward(dy, (1, 2, 4), kernel)
    y[...] = -1.0
    mean[...] = -1.0
    assert_values(at, x, host)
    assert_values(at, dy, np.ones(y.shape))
