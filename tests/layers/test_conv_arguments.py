"""Arguments that convolution refuses, and their messages."""

import re

import numpy as np
import pytest

import xpnn as nn

F = nn.functional


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def test_input_with_other_channels_is_an_error_that_names_the_layer():
    message = "Conv2d(3, 16, 3): input has 1 channel, expected 3 (shape (8, 1, 28, 28))"
    with raises(ValueError, message):
        nn.Conv2d(3, 16, 3)(zeros(8, 1, 28, 28))


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (1, 3, 8, 8, 8)])
def test_input_of_another_rank_is_an_error_that_names_the_layer(shape):
    with raises(ValueError, "Conv2d(3, 16, 3): ") as caught:
        nn.Conv2d(3, 16, 3)(zeros(*shape))
    assert str(shape) in str(caught.value)


def test_kernel_larger_than_the_input_is_an_error_that_names_the_layer():
    with raises(ValueError, "Conv2d(1, 1, 5): kernel (5, 5) with dilation (1, 1) spans (5, 5) cells"):
        nn.Conv2d(1, 1, 5)(zeros(1, 1, 4, 9))


def test_upstream_gradient_of_another_shape_is_an_error():
    layer = nn.Conv1d(1, 2, 3)
    layer(zeros(1, 1, 5))
    with raises(ValueError, "Conv1d(1, 2, 3): the upstream gradient is float32 array of numpy, shape (1, 2, 4)"):
        layer.backward(zeros(1, 2, 4))


def test_function_checks_the_upstream_gradient():
    with raises(ValueError, "dy has shape (1, 2, 4), expected (1, 2, 3)"):
        F.conv_backward(zeros(1, 2, 4), zeros(1, 1, 5), zeros(2, 1, 3))


def test_mixed_dtypes_are_an_error_that_names_them():
    with raises(TypeError, "mixed dtypes (input float32, weight float64)"):
        F.conv(zeros(1, 1, 5), zeros(1, 1, 3, dtype="float64"))
    with raises(TypeError, "mixed dtypes (input float32, weight float32, bias float64)"):
        F.conv(zeros(1, 1, 5), zeros(1, 1, 3), zeros(1, dtype="float64"))


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16", "complex64"])
def test_other_dtypes_are_an_error(dtype):
    with raises(TypeError, f"input must be a float32 or float64 array, got {dtype} array of numpy, shape (1, 1, 5)"):
        F.conv(zeros(1, 1, 5, dtype=dtype), zeros(1, 1, 3))


def test_bias_of_another_size_is_an_error():
    with raises(ValueError, "bias has shape (3,), expected (2,)"):
        F.conv(zeros(1, 1, 5), zeros(2, 1, 3), zeros(3))


def test_weight_and_input_of_different_rank_are_an_error():
    with raises(ValueError, "got shapes (1, 1, 5) and (2, 1, 3, 3)"):
        F.conv(zeros(1, 1, 5), zeros(2, 1, 3, 3))


def test_features_that_do_not_split_into_groups_are_an_error():
    with raises(ValueError, "output channels must be a multiple of groups, got 3 channels in 2 groups"):
        F.conv(zeros(1, 2, 5), zeros(3, 1, 3), groups=2)


@pytest.mark.parametrize(("channels", "features"), [(3, 4), (4, 3)])
def test_layer_whose_channels_do_not_split_into_groups_is_an_error_at_once(channels, features):
    with raises(ValueError, f"{channels} and {features} channels in 2 groups"):
        nn.Conv2d(channels, features, 3, groups=2)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"out_channels": -1}, "out_channels"),
        ({"in_channels": 2.0}, "in_channels"),
        ({"in_channels": (2,)}, "in_channels"),
        ({"out_channels": [4]}, "out_channels"),
        ({"kernel_size": 0}, "kernel_size"),
        ({"kernel_size": (3,)}, "kernel_size"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"stride": 0}, "stride"),
        ({"stride": (1, 0)}, "stride"),
        ({"dilation": 0}, "dilation"),
        ({"dilation": True}, "dilation"),
        ({"groups": 0}, "groups"),
        ({"groups": (2,)}, "groups"),
        ({"padding": -1}, "padding"),
        ({"padding": "full"}, "padding"),
        ({"padding": ((1, 1),)}, "padding"),
    ],
    ids=str,
)
def test_argument_out_of_range_is_an_error_at_once(arguments, name):
    with raises(ValueError, f"{name} must be"):
        nn.Conv2d(**{"in_channels": 2, "out_channels": 4, "kernel_size": 3, **arguments})


@pytest.mark.parametrize("arguments", [{"stride": 0}, {"padding": -1}, {"dilation": 0}, {"groups": 0}], ids=str)
def test_function_checks_its_arguments_too(arguments):
    with raises(ValueError, f"{next(iter(arguments))} must be"):
        F.conv(zeros(1, 1, 5), zeros(1, 1, 3), **arguments)


def test_unknown_keyword_is_an_error():
    with raises(TypeError, "Conv2d got an unexpected keyword argument: device"):
        nn.Conv2d(1, 1, 3, device="cuda")
