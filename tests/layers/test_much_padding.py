"""Padding, dilation and stride far beyond the input: small results without huge arrays, or an error before them."""

import tracemalloc

import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import xpnn as nn
from xpnn.layers.convolution import trim_padding as module
from xpnn.testing import assert_match

F = nn.functional
FAR = 10**9


@pytest.fixture
def little_memory():
    """Fails a test that allocates more than some MB at once."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def array(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


ONE_FAR = {"padding": ((FAR, FAR), (1, 1)), "dilation": (FAR, 1)}
STRIDES = {"padding": ((FAR, FAR), (2 * FAR, 2 * FAR)), "dilation": FAR, "stride": (2, 3)}
# Input, kernel, options, and what is left of the kernel's cells.
CASES = {
    "same padding": ((8,), (3,), {"padding": "same", "dilation": FAR}, (slice(1, 2),)),
    "all before": ((8,), (2,), {"padding": ((FAR, 0),), "dilation": FAR}, (slice(1, 2),)),
    "all after": ((8,), (2,), {"padding": ((0, FAR),), "dilation": FAR}, (slice(0, 1),)),
    "one of two axes": ((6, 5), (3, 3), ONE_FAR, (slice(1, 2), slice(3))),
    "two axes, strides": ((6, 5), (3, 5), STRIDES, (slice(1, 2), slice(2, 3))),
    "nothing met": ((8,), (2,), {"padding": ((FAR // 2, FAR // 2),), "dilation": FAR}, ()),
}


@pytest.mark.parametrize(("spatial", "kernel", "options", "cells"), CASES.values(), ids=CASES.keys())
def test_a_far_dilation_matches_the_cells_that_it_reaches(at, little_memory, spatial, kernel, options, cells):
    x, weight, bias = array(2, 3, *spatial), array(4, 3, *kernel), array(4)
    y = F.conv(at.put(x), at.put(weight), at.put(bias), **options)
    dy = array(*y.shape)
    dx, dweight, dbias = F.conv_backward(at.put(dy), at.put(x), at.put(weight), **options)
    part = (slice(None), slice(None), *cells)
    near = {"stride": options.get("stride", 1), "padding": tuple((1, 1) if c == slice(3) else (0, 0) for c in cells)}
    wanted_y = np.broadcast_to(bias.reshape(1, 4, *(1,) * len(spatial)), y.shape)
    wanted_dx, wanted_dweight = np.zeros_like(x), np.zeros_like(weight)
    if cells:
        wanted_y = F.conv(x, weight[part], bias, **near)
        wanted_dx, wanted_dweight[part], _ = F.conv_backward(dy, x, weight[part], **near)
    assert_match(y, wanted_y, terms=100, backend=at.backend)
    assert_match(dx, wanted_dx, terms=100, backend=at.backend)
    assert_match(dweight, wanted_dweight, terms=100, backend=at.backend)
    assert_match(dbias, dy.sum(axis=(0, *range(2, dy.ndim))), terms=100, backend=at.backend)


def test_a_layer_with_a_far_dilation(at, little_memory):
    layer = nn.Conv1d(1, 1, 3, padding="same", dilation=FAR, backend=at.backend)
    y = layer(at.put(np.ones((1, 1, 8), np.float32)))
    middle = at.get(layer.parameters["weight"].value)[0, 0, 1]
    assert at.get(y).tolist() == [[[middle] * 8]]


def test_a_transposed_convolution_cut_to_a_few_cells(at, little_memory):
    x, weight = array(1, 2, 8), array(2, 3, 3)
    options = {"dilation": FAR, "padding": FAR}
    y = F.conv_transpose(at.put(x), at.put(weight), **options)
    assert_match(y, F.conv_transpose(x, weight[..., 1:2]), terms=10, backend=at.backend)
    dx, dweight, _ = F.conv_transpose_backward(at.put(array(*y.shape)), at.put(x), at.put(weight), **options)
    near_dx, near, _ = F.conv_transpose_backward(array(*y.shape), x, weight[..., 1:2])
    assert_match(dx, near_dx, terms=10, backend=at.backend)
    assert_match(dweight, np.concatenate([0 * near, near, 0 * near], axis=2), terms=10, backend=at.backend)


REFUSED = {
    "windows far apart": lambda x: F.conv(x, np.ones((1, 1, 2), np.float32), padding=FAR, stride=FAR, dilation=FAR + 3),
    "max pool": lambda x: F.max_pool(x, 2, stride=1, padding=((FAR, 0),), dilation=FAR),
    "average pool": lambda x: F.avg_pool(x, FAR, stride=1, padding=FAR // 2),
    "Lp pool": lambda x: F.lp_pool(x, 2.0, 2, stride=1, padding=((0, FAR),), dilation=FAR),
    "adaptive average pool": lambda x: F.adaptive_avg_pool(x, FAR),
    "adaptive max pool": lambda x: F.adaptive_max_pool(x, FAR),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_arrays_too_large_for_memory_are_refused_before_they_are_made(little_memory, call):
    with pytest.raises(ValueError, match=r"makes [\d,]+ cells|requests [\d,]+ bins"):
        call(np.ones((1, 1, 8), np.float32))


@pytest.mark.parametrize("make", [nn.Conv1d, nn.MaxPool1d], ids=lambda make: make.__name__)
def test_a_window_larger_than_the_padded_input_is_refused(little_memory, make):
    layer = make(1, 1, 3, dilation=FAR) if make is nn.Conv1d else make(3, dilation=FAR)
    with pytest.raises(ValueError, match=r"spans \(2000000001,\) cells, more than the padded input \(8,\)"):
        layer(np.ones((1, 1, 8), np.float32))


@st.composite
def problems(draw):
    axes = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    spatial, kernel, stride, dilation = each(1, 6), each(1, 3), each(1, 7), each(1, 9)
    pads = tuple((draw(st.integers(0, 20)), draw(st.integers(0, 20))) for _ in range(axes))
    axis = zip(spatial, kernel, pads, dilation, strict=True)
    assume(all(d * (k - 1) + 1 <= n + sum(pad) for n, k, pad, d in axis))
    return spatial, kernel, stride, pads, dilation


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(problem=problems(), groups=st.sampled_from([1, 2]))
def test_any_geometry_matches_loops_when_parts_are_left_out(problem, groups):
    spatial, kernel, stride, pads, dilation = problem
    much, module.LITTLE_PADDING = module.LITTLE_PADDING, 0
    module.trim.cache_clear()
    try:
        x, weight, bias = array(2, 2, *spatial), array(4, 2 // groups, *kernel), array(4)
        options = {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}
        y = F.conv(x, weight, bias, **options)
        assert_match(
            y, oracles.conv_forward(x, weight, bias, stride, pads, dilation, groups), terms=50, dtype="float32"
        )
        dy = array(*y.shape)
        wanted = oracles.conv_backward(dy, x, weight, stride, pads, dilation, groups)
        for found, want in zip(F.conv_backward(dy, x, weight, **options), wanted, strict=True):
            assert_match(found, want, terms=500, dtype="float32")
    finally:
        module.LITTLE_PADDING = much
        module.trim.cache_clear()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(problem=problems())
def test_pools_refuse_only_windows_that_read_padding_only(problem):
    spatial, kernel, stride, pads, dilation = problem
    counts = oracles.window_counts(spatial, kernel, stride, pads, dilation)
    met = {window for window, _, _ in oracles.reads(spatial, kernel, counts, stride, pads, dilation)}
    x = array(1, 1, *spatial)
    if len(met) == np.prod(counts):
        assert F.max_pool(x, kernel, stride=stride, padding=pads, dilation=dilation).shape[2:] == counts
    else:
        with pytest.raises(ValueError, match="a window would read padding only"):
            F.max_pool(x, kernel, stride=stride, padding=pads, dilation=dilation)


SINGLE = {
    "conv": lambda x, far: F.conv(x, x[..., :1], stride=far, dilation=far),
    "max pool": lambda x, far: F.max_pool(x, 2, stride=far, padding=1),
    "max pool of one cell": lambda x, far: F.max_pool(x, 1, stride=far, dilation=far),
    "average pool": lambda x, far: F.avg_pool(x, 2, stride=far, padding=1, count_include_pad=False),
    "Lp pool": lambda x, far: F.lp_pool(x, 2.0, 1, stride=far, dilation=far),
}


@pytest.mark.parametrize("call", SINGLE.values(), ids=SINGLE.keys())
def test_stride_of_one_window_and_dilation_of_one_cell_do_not_matter(at, call):
    """Also for one that does not fit into 32 bits."""
    x = array(1, 1, 8)
    near = call(x, 100)
    assert near.shape == (1, 1, 1)
    assert_match(call(at.put(x), 10**12), near, terms=4, backend=at.backend)
