"""Arguments that losses refuse: the message names the loss, what it was given and what it accepts."""

import re

import numpy as np
import pytest

from xpnn.layers.losses import (
    MSE,
    NLL,
    BinaryCrossEntropy,
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    Huber,
    SmoothL1,
)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (CrossEntropy, {"weight": "mean"}, TypeError, "weight must be numbers, got str"),
        (NLL, {"weight": [True, False]}, TypeError, "weight must be numbers, got list"),
        (CrossEntropy, {"label_smoothing": 1.5}, ValueError, "label_smoothing must be a number from 0 to 1, got 1.5"),
        (CrossEntropy, {"label_smoothing": "a"}, ValueError, "label_smoothing must be a number from 0 to 1, got 'a'"),
        (NLL, {"ignore_index": 1.0}, ValueError, "ignore_index must be an integer, got 1.0"),
    ],
)
def test_options_out_of_range_are_an_error_at_once(make, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make(**options)


@pytest.mark.parametrize(
    ("loss", "shape", "target", "error", "message"),
    [
        (CrossEntropy(), (2, 3), np.zeros((2, 4), np.float32), ValueError, "target of probabilities has shape (2, 4)"),
        (CrossEntropy(), (3,), np.array(1), ValueError, "logits must have shape (N, C, ...), got (3,)"),
        (CrossEntropy(), (2, 0), np.zeros(2, np.int64), ValueError, "is empty: there are no classes"),
        (CrossEntropy(weight=[1, 2]), (2, 3), np.array([0, 1]), ValueError, "weight of classes has shape (2,), expect"),
        (
            NLL(),
            (2, 3),
            np.zeros((2, 3), np.float32),
            TypeError,
            "target must be classes, an array of integers, got float",
        ),
        (NLL(), (3,), np.array(1), ValueError, "log-probabilities must have shape (N, C, ...), got (3,)"),
    ],
)
def test_arrays_that_do_not_fit_are_an_error_that_names_the_loss(loss, shape, target, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        loss(np.zeros(shape, np.float32), target)
    assert str(caught.value).startswith(f"{loss!r}: ")


def test_classes_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match=re.escape("target of classes has shape (3,), expected (2,)")):
        CrossEntropy()(np.zeros((2, 3), np.float32), np.zeros(3, np.int64))


@pytest.mark.parametrize("make", [BinaryCrossEntropy, BinaryCrossEntropyWithLogits])
@pytest.mark.parametrize("shape", [(4,), (2, 1), (1, 2, 3), (3, 3)], ids=str)
def test_weight_of_another_shape_is_an_error(make, shape):
    message = f"weight has shape {shape}, which does not broadcast to the prediction's, (2, 3)"
    with pytest.raises(ValueError, match=re.escape(message)) if shape != (2, 1) else np.errstate():
        make(weight=np.ones(shape))(np.full((2, 3), 0.5), np.ones((2, 3)))


@pytest.mark.parametrize("delta", [0, -1.0, np.nan, "a", True])
def test_widths_out_of_range_are_an_error_at_once(delta):
    with pytest.raises(ValueError, match=re.escape(f"delta must be a number > 0, got {delta!r}")):
        Huber(delta=delta)
    if delta != 0:
        with pytest.raises(ValueError, match=re.escape(f"beta must be a number >= 0, got {delta!r}")):
            SmoothL1(beta=delta)


def test_mixed_dtypes_are_an_error_that_names_the_loss():
    message = "MSE(): mixed dtypes (prediction float32, target float64)"
    with pytest.raises(TypeError, match=re.escape(message)):
        MSE()(np.zeros(2, np.float32), np.zeros(2))
