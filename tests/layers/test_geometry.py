"""Padding, window counts and their errors: integers, no arrays."""

import re

import numpy as np
import pytest
from oracles import window_count

from xpnn.common import checks
from xpnn.layers.windows.geometry import check_padding, output_size, place_windows, resolve_padding


def resolve(padding, spatial, kernel, stride=None, dilation=None):
    ones = (1,) * len(spatial)
    return resolve_padding(padding, spatial, kernel, stride or ones, dilation or ones)


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((0, 1), (2, 3)), ((0, 1), (2, 3))),
        ([[0, 1], [2, 3]], ((0, 1), (2, 3))),
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 1), (2, 2))),
    ],
)
def test_every_form_of_padding_becomes_pairs(padding, pairs):
    assert resolve(padding, (8, 9), (3, 5)) == pairs


def test_padding_of_one_axis_may_be_one_pair():
    assert resolve(((1, 2),), (8,), (3,)) == ((1, 2),)


@pytest.mark.parametrize(("kernel", "pair"), [(1, (0, 0)), (2, (0, 1)), (3, (1, 1)), (4, (1, 2)), (6, (2, 3))])
def test_same_puts_the_extra_cell_of_an_even_kernel_after(kernel, pair):
    assert resolve("same", (9,), (kernel,)) == (pair,)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_gives_the_input_size_over_the_stride_rounded_up(kernel, stride, dilation):
    for n in range(1, 12):
        ((before, after),) = resolve("same", (n,), (kernel,), (stride,), (dilation,))
        assert after - before in (0, 1)
        assert output_size(n, kernel, stride, (before, after), dilation) == -(-n // stride)


def test_same_with_a_stride_pads_no_more_than_it_must():
    assert resolve("same", (6,), (3,), (2,)) == ((0, 1),)
    assert resolve("same", (7,), (3,), (2,)) == ((1, 1),)
    assert resolve("same", (7,), (2,), (3,)) == ((0, 1),)
    assert resolve("same", (8,), (2,), (3,)) == ((0, 0),)
    assert resolve("same", (9,), (1,), (4,)) == ((0, 0),)


def test_same_counts_the_reach_of_a_dilated_kernel():
    assert resolve("same", (9,), (3,), dilation=(2,)) == ((2, 2),)
    assert resolve("same", (9,), (2,), dilation=(3,)) == ((1, 2),)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("pad", [(0, 0), (1, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_output_size_is_the_number_of_windows_that_a_loop_counts(pad, dilation, ceil_mode):
    for n in range(1, 12):
        for kernel in (2, 3):
            for stride in (1, 2, 3, 4):
                if dilation * (kernel - 1) + 1 <= n + sum(pad):
                    walked = window_count(n, kernel, stride, pad, dilation, ceil_mode)
                    assert output_size(n, kernel, stride, pad, dilation, ceil_mode) == walked


def test_ceil_mode_adds_a_window_for_the_cells_left_over():
    assert (output_size(5, 2, 2), output_size(5, 2, 2, ceil_mode=True)) == (2, 3)
    assert (output_size(6, 2, 2), output_size(6, 2, 2, ceil_mode=True)) == (3, 3)


def test_ceil_mode_drops_a_window_that_starts_in_the_padding_after():
    # windows of 2 at -1 and 2 cover -1 .. 3; a third would start at 5, after the 4 cells of the input
    assert output_size(4, 2, 3, (1, 1), ceil_mode=True) == 2
    assert output_size(5, 1, 3, ceil_mode=True) == 2


def test_windows_of_ceil_mode_report_their_overhang():
    geometry = place_windows((5, 6), (2, 2), (2, 2), 0, (1, 1), ceil_mode=True)
    assert geometry.windows.count == (3, 3)
    assert geometry.overhang == (1, 0)
    assert geometry.is_padded


def test_windows_know_their_cells_and_extent():
    windows = place_windows((9, 5), (3, 2), (2, 3), 0, (2, 1)).windows
    assert windows.count == (3, 2)
    assert windows.cells == 6
    assert windows.extent == (9, 5)
    assert len(list(windows.slices())) == 6


def test_a_stride_past_the_input_leaves_one_window():
    assert place_windows((3,), (2,), (7,), 0, (1,)).windows.count == (1,)


def test_kernel_larger_than_the_padded_input_is_an_error_with_the_sizes():
    message = (
        "kernel (3, 3) with dilation (1, 2) spans (3, 5) cells, more than the padded input (4, 4) "
        "(input (4, 2), padding ((0, 0), (1, 1)))"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        place_windows((4, 2), (3, 3), (1, 1), ((0, 0), (1, 1)), (1, 2))


def test_ceil_mode_makes_no_window_where_the_kernel_does_not_fit():
    with pytest.raises(ValueError, match="more than the padded input"):
        place_windows((2,), (3,), (2,), 0, (1,), ceil_mode=True)


def test_a_size_is_one_integer_or_one_per_axis():
    assert checks.per_axis("stride", 3, 2) == (3, 3)
    assert checks.per_axis("stride", [1, 2], 2) == (1, 2)


@pytest.mark.parametrize(
    "value", [0, -1, 1.0, True, np.bool_(True), "3", None, (1,), (1, 2, 3), (1, 0), (1, 2.0), (1, True)]
)
def test_what_is_not_a_size_is_an_error_that_says_what_is_accepted(value):
    message = f"stride must be an integer >= 1, or one for each of 2 axes, got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        checks.per_axis("stride", value, 2)


@pytest.mark.parametrize(
    "padding",
    [
        -1,
        1.0,
        True,
        None,
        "SAME",
        "full",
        (1,),
        (1, 2, 3),
        (1, -1),
        ((1, 2), (3,)),
        ((1, 2), (3, -4)),
        ((1, 2), (3, 4.0)),
        ("a", "b"),
        ("same", "valid"),
    ],
)
def test_padding_of_no_known_form_is_an_error_that_lists_the_forms(padding):
    with pytest.raises(
        ValueError, match=rf"padding must be an integer >= 0, .*pair.*'valid' or 'same'.*{re.escape(repr(padding))}"
    ):
        check_padding(padding, 2)


def test_numpy_integers_are_integers():
    assert checks.per_axis("stride", np.int64(3), 2) == (3, 3)
    assert checks.per_axis("stride", (np.int32(1), 2), 2) == (1, 2)
    assert resolve(np.int64(2), (8, 9), (3, 5)) == ((2, 2), (2, 2))
    assert resolve((np.int64(2), (np.int64(0), 1)), (8, 9), (3, 5)) == ((2, 2), (0, 1))
