"""Padding ``"same_lower"``, and average pools with dilation: against PyTorch's own padding and windows, and ONNX."""

import numpy as np
import pytest

import xpnn as nn
from xpnn import functional as F
from xpnn.layers.windows.geometry import resolve_padding
from xpnn.testing import assert_match, gradcheck


def pairs(n, kernel, stride=1, dilation=1, padding="same_lower"):
    return resolve_padding(padding, (n,), (kernel,), (stride,), (dilation,))[0]


def test_the_extra_cell_comes_before():
    assert pairs(5, 2) == (1, 0)
    assert pairs(5, 4) == (2, 1)
    assert pairs(6, 3, 2) == (1, 0)
    assert pairs(5, 2, dilation=3) == (2, 1)


def test_an_even_total_is_that_of_same():
    for n, kernel, stride, dilation in ((5, 3, 1, 1), (7, 5, 2, 1), (5, 1, 2, 1), (9, 2, 1, 2)):
        assert pairs(n, kernel, stride, dilation) == pairs(n, kernel, stride, dilation, "same")


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_pytorch_s_with_the_zeros_before(at, torch, rng, stride):
    x, w = rng.standard_normal((2, 3, 6, 7)).astype("float32"), rng.standard_normal((4, 3, 2, 4)).astype("float32")
    before, sides = [], []
    for n, k in ((6, 2), (7, 4)):
        total = max(0, (-(-n // stride) - 1) * stride + k - n)
        before.append(total - total // 2)
        sides.append(total // 2)
    padded = torch.nn.functional.pad(torch.tensor(x), (before[1], sides[1], before[0], sides[0]))
    desired = torch.nn.functional.conv2d(padded, torch.tensor(w), stride=stride)
    y = F.conv(at.put(x), at.put(w), stride=stride, padding="same_lower")
    assert_match(y, desired, level="reduction", terms=24, backend=at.backend)
    assert y.shape[2:] == (-(-6 // stride), -(-7 // stride))


def test_the_example_of_onnx_for_average_pools(at):
    x = at.put(np.arange(1.0, 17.0).reshape(1, 1, 4, 4))
    y = nn.AvgPool2d(2, 1, "same_lower", count_include_pad=False, backend=at.backend)(x)
    desired = [[1, 1.5, 2.5, 3.5], [3, 3.5, 4.5, 5.5], [7, 7.5, 8.5, 9.5], [11, 11.5, 12.5, 13.5]]
    assert at.get(y).tolist() == [[desired]]


def test_max_pool_pads_before_too(at):
    x = at.put([[[-1.0, -5.0, -2.0]]])
    assert at.get(F.max_pool(x, 2, stride=1, padding="same_lower")).tolist() == [[[-1, -1, -2]]]
    assert at.get(F.max_pool(x, 2, stride=1, padding="same")).tolist() == [[[-1, -2, -2]]]


def test_shape_and_repr_with_same_lower():
    layer = nn.Conv2d(2, 3, 4, stride=2, padding="same_lower")
    assert repr(layer) == "Conv2d(2, 3, 4, stride=2, padding='same_lower')"
    assert layer.output_shape((1, 2, 7, 6)) == (1, 3, 4, 3)


def averages(x, kernel, stride, dilation, padding, ceil_mode, include):
    """One axis, by ONNX's formulas: sums over the cells of a window, and the number of them that counts."""
    n, (before, after) = len(x), padding
    span = n + before + after - dilation * (kernel - 1) - 1
    count = -(-span // stride) + 1 if ceil_mode else span // stride + 1
    found = []
    for o in range(count):
        cells = [o * stride - before + k * dilation for k in range(kernel)]
        if cells[0] >= n:
            break
        values = [x[i] for i in cells if 0 <= i < n]
        found.append(sum(values) / (sum(i < n + after for i in cells) if include else len(values)))
    return found


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(2, 1, 2), (3, 2, 2), (2, 3, 3), (3, 1, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (1, 0), (0, 2)])
def test_average_pool_with_dilation(at, rng, kernel, stride, dilation, padding, ceil_mode, include):
    x = rng.standard_normal(8).astype("float32")
    options = {"stride": stride, "dilation": dilation, "padding": (padding,)}
    options |= {"ceil_mode": ceil_mode, "count_include_pad": include}
    y = F.avg_pool(at.put(x[None, None]), kernel, **options)
    desired = averages(x.astype("float64"), kernel, stride, dilation, padding, ceil_mode, include)
    assert_match(y, np.array([[desired]]), level="reduction", terms=kernel, backend=at.backend, dtype="float32")


def test_the_example_of_onnx_for_average_pools_with_dilation(at):
    x = at.put(np.arange(1.0, 17.0).reshape(1, 1, 4, 4))
    y = F.avg_pool(x, 2, stride=1, dilation=2, ceil_mode=True)
    assert at.get(y).tolist() == [[[[6, 7], [10, 11]]]]


LAYERS = [
    (nn.AvgPool1d(3, 2, 1, dilation=2), (2, 2, 9)),
    (nn.AvgPool2d((2, 3), 1, 1, True, False, dilation=(3, 2)), (1, 2, 6, 7)),
    (nn.AvgPool3d(2, dilation=2, divisor_override=3), (1, 2, 4, 5, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda each: repr(each) if isinstance(each, nn.Layer) else "")
def test_backward_is_the_derivative_of_forward(layer, shape, rng):
    assert repr(eval(repr(layer), vars(nn))) == repr(layer)
    assert "dilation=" in repr(layer)
    assert layer.output_shape(shape) == layer(rng.standard_normal(shape).astype("float32")).shape
    gradcheck(layer.to("numpy", "float64"), rng.standard_normal(shape))


def test_a_window_with_gaps_over_padding_only_is_an_error():
    with pytest.raises(ValueError, match="a window would read padding only"):
        F.avg_pool(np.zeros((1, 1, 1), np.float32), 2, padding=((1, 1),), dilation=2)
