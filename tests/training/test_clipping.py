"""Gradient clipping has PyTorch's results and reads nothing back to the host."""

import math

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match
from xpnn.training.optimizers.clipping import clip_grad_norm, clip_grad_value

GRADIENTS = [np.array([[1.5, -2.0], [0.25, 4.0]], np.float32), np.array([-3.0, 0.5, 0.0], np.float32)]


def parameters(at, gradients=GRADIENTS):
    made = [nn.Parameter(at.put(np.zeros_like(g)), at.put(g)) for g in gradients]
    return [*made, nn.Parameter(at.put(np.zeros(2, np.float32)))]


def torch_parameters(torch):
    made = []
    for gradient in GRADIENTS:
        made.append(torch.zeros(gradient.shape, requires_grad=True))
        made[-1].grad = torch.from_numpy(gradient.copy())
    return made


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_norm_is_clipped_as_pytorch_does(at, torch, norm_type, max_norm):
    ours, theirs = parameters(at), torch_parameters(torch)
    total = clip_grad_norm(ours, max_norm, norm_type)
    wanted = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert_match(total, wanted, terms=7, backend=at.backend)
    for parameter, tensor in zip(ours, theirs, strict=False):
        assert_match(parameter.grad, tensor.grad, terms=7, backend=at.backend)
    assert ours[-1].grad is None


def test_values_are_clipped(at):
    ours = parameters(at)
    clip_grad_value(ours, 1.0)
    for parameter, gradient in zip(ours, GRADIENTS, strict=False):
        assert_match(parameter.grad, np.clip(gradient, -1, 1), level="exact", backend=at.backend)


def test_clipping_copies_nothing_and_mutates_nothing(at):
    ours = parameters(at)
    backend = ours[0].backend
    before, arrays = backend.transfers, [p.grad for p in ours[:-1]]
    clip_grad_norm(ours, 0.1)
    clip_grad_value(ours, 0.01)
    assert backend.transfers == before
    for array, gradient in zip(arrays, GRADIENTS, strict=True):
        assert_match(array, gradient, level="exact")


def test_gradients_below_the_limit_stay_as_they_are(at):
    ours = parameters(at)
    clip_grad_norm(ours, 1e6)
    for parameter, gradient in zip(ours, GRADIENTS, strict=False):
        assert_match(parameter.grad, gradient, level="exact")


def test_nan_reaches_all_gradients(at):
    ours = parameters(at, [GRADIENTS[0], np.array([np.nan, 1.0], np.float32)])
    clip_grad_norm(ours, 1.0)
    assert np.isnan(at.get(ours[0].grad)).all()


def test_layers_and_mappings_are_accepted(at):
    layer = nn.Dense(3, 2, backend=at.backend)
    layer.backward(layer(at.put(np.ones((4, 3), np.float32))) * 1e3)
    clip_grad_norm(layer, 1.0)
    assert_match(clip_grad_norm(layer.parameters, 1.0), np.float32(1.0), terms=8)
    clip_grad_value(layer, 0.0)
    assert not at.get(layer.parameters["weight"].grad).any()


def test_norm_of_no_gradients_is_zero(at):
    total = clip_grad_norm([nn.Parameter(at.put(np.ones(2, np.float32)))], 1.0)
    assert_match(total, np.float32(0.0), level="exact", backend=at.backend)


def test_a_millionth_is_added_to_the_norm(at):
    ours = parameters(at, [np.array([1e-6], np.float32)])
    clip_grad_norm(ours, 1e-6)
    assert_match(ours[0].grad, np.array([5e-7], np.float32), backend=at.backend)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinite_gradient_gives_zeros_and_nan_as_in_pytorch(at, torch):
    gradient = np.array([np.inf, 1.0], np.float32)
    ours, theirs = parameters(at, [gradient]), torch.zeros(2, requires_grad=True)
    theirs.grad = torch.from_numpy(gradient.copy())
    clip_grad_norm(ours, 1.0)
    torch.nn.utils.clip_grad_norm_([theirs], 1.0)
    assert_match(ours[0].grad, theirs.grad, level="exact", backend=at.backend)


@pytest.mark.parametrize(
    "call",
    [
        lambda p: clip_grad_norm(p, -1.0),
        lambda p: clip_grad_norm(p, 1.0, 0.5),
        lambda p: clip_grad_value(p, -1.0),
        lambda p: clip_grad_value([], 1.0),
    ],
)
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(ValueError):
        call([nn.Parameter(np.ones(2, np.float32))])


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_norms_whose_powers_leave_the_range_are_right(at, norm_type, size):
    gradients = [np.array([3.0, -4.0], np.float32) * np.float32(size), np.array([12.0], np.float32) * np.float32(size)]
    wide = np.concatenate(gradients).astype(np.float64)
    norm = (
        np.abs(wide).max()
        if norm_type == math.inf
        else (np.abs(wide / size) ** norm_type).sum() ** (1 / norm_type) * size
    )
    ours = parameters(at, gradients)
    assert_match(clip_grad_norm(ours, 5.0, norm_type), np.float32(norm), terms=3, backend=at.backend)
    for parameter, gradient in zip(ours, gradients, strict=False):
        wanted = gradient.astype(np.float64) * min(1.0, 5.0 / norm)
        assert_match(parameter.grad, wanted.astype(np.float32), terms=3, backend=at.backend)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinite_gradient_becomes_nan_and_the_others_0_as_in_pytorch(at):
    ours = parameters(at, [np.array([math.inf, 1.0], np.float32), np.array([2.0], np.float32)])
    assert at.get(clip_grad_norm(ours, 1.0)).item() == math.inf
    np.testing.assert_array_equal(at.get(ours[0].grad), [np.nan, 0.0])
    np.testing.assert_array_equal(at.get(ours[1].grad), [0.0])


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, np.inf])
def test_an_empty_gradient_adds_nothing_to_the_norm(at, norm_type):
    empty, other = (nn.Parameter(at.put(np.float32(values)), at.put(np.float32(values))) for values in ([], [3.0, 4.0]))
    norm = nn.clip_grad_norm([empty, other], 1.0, norm_type)
    np.testing.assert_allclose(at.get(norm), np.linalg.norm([3.0, 4.0], norm_type), rtol=1e-6)
    assert tuple(empty.grad.shape) == (0,)
