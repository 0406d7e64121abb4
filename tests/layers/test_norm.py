"""Normalisation over axes: values and gradients of all four kinds, within a sample and over the batch."""

import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.normalisation.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, batch_norm, batch_norm_backward
from xpnn.layers.normalisation.group_norm import GroupNorm, group_norm, group_norm_backward
from xpnn.layers.normalisation.instance_norm import (
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    instance_norm,
    instance_norm_backward,
)
from xpnn.layers.normalisation.layer_norm import LayerNorm, layer_norm, layer_norm_backward
from xpnn.testing import assert_match, gradcheck

# function, gradient, arguments between input and weight, shape of the input, of the weight
CASES = {
    "batch (N, C)": (batch_norm, batch_norm_backward, (), (5, 3), (3,)),
    "batch 2d": (batch_norm, batch_norm_backward, (), (2, 3, 2, 4), (3,)),
    "batch of one sample": (batch_norm, batch_norm_backward, (), (1, 3, 4), (3,)),
    "batch of one channel": (batch_norm, batch_norm_backward, (), (4, 1, 2), (1,)),
    "instance 1d": (instance_norm, instance_norm_backward, (), (2, 3, 4), (3,)),
    "instance 3d": (instance_norm, instance_norm_backward, (), (2, 2, 2, 1, 3), (2,)),
    "group": (group_norm, group_norm_backward, (2,), (2, 4, 3, 2), (4,)),
    "group of all": (group_norm, group_norm_backward, (1,), (3, 4, 2), (4,)),
    "group of one each": (group_norm, group_norm_backward, (4,), (2, 4, 3), (4,)),
    "group without space": (group_norm, group_norm_backward, (2,), (3, 6), (6,)),
    "layer": (layer_norm, layer_norm_backward, (5,), (3, 5), (5,)),
    "layer over two axes": (layer_norm, layer_norm_backward, ((3, 4),), (2, 2, 3, 4), (3, 4)),
    "layer over all axes": (layer_norm, layer_norm_backward, ((3, 4),), (3, 4), (3, 4)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
KINDS = {
    kind.__name__: kind
    for kind in (BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d)
} | {"GroupNorm": GroupNorm, "LayerNorm": LayerNorm}
LAYERS = {
    "BatchNorm1d(3)": ((4, 3), (2, 3, 2)),
    "BatchNorm2d(3, eps=0.01, momentum=0.3)": ((2, 3, 2, 3),),
    "BatchNorm3d(2, affine=False)": ((2, 2, 2, 1, 2),),
    "BatchNorm1d(3, track_running_stats=False)": ((4, 3),),
    "InstanceNorm1d(3)": ((2, 3, 4),),
    "InstanceNorm2d(3, affine=True)": ((2, 3, 2, 3),),
    "InstanceNorm3d(2, affine=True, track_running_stats=True)": ((2, 2, 2, 1, 2),),
    "GroupNorm(2, 4)": ((2, 4, 3), (3, 4)),
    "GroupNorm(4, 4, eps=0.1, affine=False)": ((2, 4, 2, 2),),
    "LayerNorm((4,))": ((2, 4), (2, 3, 4)),
    "LayerNorm((3, 2), eps=0.1, bias=False)": ((2, 3, 2),),
    "LayerNorm((4,), elementwise_affine=False)": ((2, 4),),
}
every_layer = pytest.mark.parametrize("call", LAYERS)


def make(call, **placement):
    """The layer that a repr describes."""
    return eval(f"{call[:-1]}, **placement)", {**KINDS, "placement": placement})


def problem(rng, case):
    """Input, weight, bias, upstream gradient, all float32 numbers."""
    _, _, _, shape, laid = case
    return [(rng.standard_normal(s) * 2 + 1).astype(np.float32) for s in (shape, laid, laid, shape)]


def by_torch(torch, case, hosts):
    """y, dx, dweight, dbias in float64 from PyTorch."""
    function, _, arguments, _, _ = case
    x, weight, bias, dy = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in hosts)
    f = torch.nn.functional
    if function is batch_norm:
        y = f.batch_norm(x, None, None, weight, bias, training=True)
    elif function is instance_norm:
        y = f.instance_norm(x, None, None, weight, bias)
    elif function is layer_norm:
        y = f.layer_norm(x, np.atleast_1d(arguments[0]).tolist(), weight, bias)
    else:
        y = f.group_norm(x, arguments[0], weight, bias)
    return [a.detach().numpy() for a in (y, *torch.autograd.grad(y, (x, weight, bias), dy))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_case
def test_norm_and_its_gradients_match_pytorch(at, torch, rng, case, dtype):
    function, backward, arguments, shape, _ = case
    hosts = problem(rng, case)
    x, weight, bias, dy = (at.put(a, dtype) for a in hosts)
    actual = [function(x, *arguments, weight, bias), *backward(dy, x, *arguments, weight)]
    for name, a, d in zip(("y", "dx", "dweight", "dbias"), actual, by_torch(torch, case, hosts), strict=True):
        terms = int(np.prod(shape))
        assert_match(a, d, level="network", terms=terms, backend=at.backend, dtype=dtype, name=name)


@every_case
def test_without_weight_and_bias_matches_ones_and_zeros(at, rng, case):
    function, backward, arguments, _, laid = case
    x, _, _, dy = (at.put(a) for a in problem(rng, case))
    ones, zeros = at.put(np.ones(laid, np.float32)), at.put(np.zeros(laid, np.float32))
    assert_match(function(x, *arguments), function(x, *arguments, ones, zeros), level="exact", backend=at.backend)
    for a, d in zip(backward(dy, x, *arguments), backward(dy, x, *arguments, ones), strict=True):
        assert_match(a, d, level="exact", backend=at.backend)


@every_case
def test_a_channels_last_view_has_the_same_result_and_inputs_are_not_changed(at, rng, case):
    function, backward, arguments, _, _ = case
    hosts = problem(rng, case)
    x, weight, bias, dy = (at.put(a) for a in hosts)
    stored, order = np.ascontiguousarray(hosts[0].T), tuple(reversed(range(hosts[0].ndim)))
    base = at.put(stored.copy())
    view = at.xp.permute_dims(base, order)
    terms = hosts[0].size
    assert_match(
        function(view, *arguments, weight, bias), function(x, *arguments, weight, bias), level="network", terms=terms
    )
    for a, d in zip(backward(dy, view, *arguments, weight), backward(dy, x, *arguments, weight), strict=True):
        assert_match(a, d, level="network", terms=terms)
    for array, host in zip((x, weight, bias, dy, base), (*hosts, stored), strict=True):
        assert_match(array, host, level="exact")


@every_case
def test_without_input_gradient_the_others_are_the_same(rng, case):
    _, backward, arguments, _, _ = case
    x, weight, _, dy = problem(rng, case)
    dx, *others = backward(dy, x, *arguments, weight, input_grad=False)
    assert dx is None
    for a, d in zip(others, backward(dy, x, *arguments, weight)[1:], strict=True):
        assert_match(a, d, level="exact")


def test_a_group_of_one_value_has_the_bias_and_no_gradient(at, rng):
    host = rng.standard_normal((2, 3)).astype(np.float32) * 100
    group, each = [at.put(a) for a in (host, host[0], host[1])], [at.put(a) for a in (host[..., None], [2.0], [3.0])]
    for function, backward, size, (x, weight, bias) in (
        (group_norm, group_norm_backward, 3, group),
        (layer_norm, layer_norm_backward, 1, each),
    ):
        y = function(x, size, weight, bias)
        assert_match(y, at.xp.broadcast_to(at.xp.reshape(bias, (1, *bias.shape)), y.shape), level="exact")
        dx, dweight, _ = backward(x, x, size, weight)
        assert not at.get(dx).any()
        assert not at.get(dweight).any()


@pytest.mark.parametrize("function", [batch_norm, instance_norm])
def test_given_statistics_are_constants(at, torch, rng, function):
    backward = batch_norm_backward if function is batch_norm else instance_norm_backward
    x, dy = rng.standard_normal((2, 3, 2, 4))
    mean, weight, bias = rng.standard_normal((3, 2))
    var = rng.random(2) + 0.5
    tensors = tx, tweight, tbias = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    ty = torch.nn.functional.batch_norm(tx, torch.tensor(mean), torch.tensor(var), tweight, tbias)
    desired = [ty.detach(), *torch.autograd.grad(ty, tensors, torch.tensor(dy))]
    px, pweight, pbias, pmean, pvar, pdy = (at.put(a, "float64") for a in (x, weight, bias, mean, var, dy))
    given = {"mean": pmean, "var": pvar}
    for a, d in zip(
        [function(px, pweight, pbias, **given), *backward(pdy, px, pweight, **given)], desired, strict=True
    ):
        assert_match(a, d, level="reduction", terms=12, backend=at.backend)


@every_layer
def test_repr_is_the_call(call):
    assert repr(make(call)) == call
    assert repr(pickle.loads(pickle.dumps(make(call)))) == call


@every_layer
def test_backward_of_the_layer_is_the_derivative_of_its_forward(rng, call):
    for shape in LAYERS[call]:
        layer = make(call, dtype="float64")
        for parameter in layer.parameters.values():
            parameter.value = rng.standard_normal(parameter.shape)
        gradcheck(layer, rng.standard_normal(shape))


@every_layer
def test_state_of_the_same_layer_in_pytorch_loads_by_name_and_has_the_same_result(at, torch, rng, call):
    theirs = eval(f"torch.nn.{call}", {"torch": torch})
    for tensor in theirs.state_dict().values():
        tensor.copy_(torch.tensor(rng.random(tensor.shape) + 0.5) if tensor.is_floating_point() else 7)
    ours = make(call, backend=at.backend)
    ours.load_state_dict(theirs.state_dict())
    x = rng.standard_normal(LAYERS[call][0]).astype(np.float32)
    for train in (True, False):
        theirs.train(train)
        ours.train(train)
        assert_match(ours(at.put(x)), theirs(torch.tensor(x)).detach(), level="network", backend=at.backend)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert_match(state[name], tensor, level="network", backend=at.backend, name=name)


@every_layer
def test_an_empty_batch_is_accepted_and_does_not_change_running_statistics(at, call):
    layer = make(call, backend=at.backend)
    x = at.put(np.zeros((0, *LAYERS[call][0][1:]), np.float32))
    y = layer(x)
    assert y.shape == x.shape
    assert layer.backward(y).shape == x.shape
    for parameter in layer.parameters.values():
        assert_match(parameter.grad, np.zeros(parameter.shape, np.float32), level="exact")
    for name, value in (("running_mean", 0), ("running_var", 1)):
        if name in layer.buffers:
            assert at.get(layer.buffers[name]).tolist() == [value] * x.shape[1]
    assert layer.eval()(x).shape == x.shape


def test_equal_values_become_zero_to_the_last_bit(at):
    x = at.put(np.full((3, 6), 1000.1, np.float32))
    for layer in (LayerNorm(6, backend=at.backend), GroupNorm(2, 6, backend=at.backend)):
        assert at.get(layer(x)).tolist() == np.zeros((3, 6)).tolist()


def test_variance_is_accurate_beside_a_large_mean(at, rng):
    x = (rng.standard_normal((4, 64)) + 4096).astype(np.float32)
    wide = x.astype(np.float64)
    desired = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    y = LayerNorm(64, backend=at.backend)(at.put(x))
    assert_match(y, desired, level="reduction", terms=64, dtype="float32")


@pytest.mark.parametrize("call", ["GroupNorm(2, 4)", "LayerNorm((4,))"])
def test_a_nan_stays_in_its_sample(at, call):
    x = np.ones((2, 4), np.float32)
    x[0, 3] = np.nan
    y = at.get(make(call, backend=at.backend)(at.put(x)))
    assert np.isnan(y[0, 2:]).all()
    assert not np.isnan(y[1]).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LayerNorm(()), "normalized_shape must be an integer >= 1, or one for each of the last axes, got ()"),
        (
            lambda: LayerNorm((3, 0)),
            "normalized_shape must be an integer >= 1, or one for each of the last axes, got (3, 0)",
        ),
        (lambda: LayerNorm(3, eps=-1), "eps must be a number >= 0, got -1"),
        (lambda: LayerNorm(3, eps="x"), "eps must be a number >= 0, got 'x'"),
        (lambda: GroupNorm(3, 4), "num_channels must be a multiple of num_groups, got 4 and 3"),
        (lambda: GroupNorm(0, 4), "num_groups must be an integer >= 1, got 0"),
        (
            lambda: LayerNorm((3, 4))(np.zeros((2, 4), np.float32)),
            "LayerNorm((3, 4)): input must have shape (..., 3, 4)",
        ),
        (
            lambda: GroupNorm(2, 4)(np.zeros((2, 3), np.float32)),
            "GroupNorm(2, 4): input must have shape (N, 4, ...), got",
        ),
        (lambda: GroupNorm(2, 4)(np.zeros(4, np.float32)), "input must have shape (N, 4, ...), got (4,)"),
        (
            lambda: group_norm(np.zeros((2, 3)), 2),
            "channels must be a multiple of num_groups, got 3 and 2 (shape (2, 3))",
        ),
        (lambda: layer_norm(np.zeros((2, 3)), 3, np.zeros(2)), "weight has shape (2,), expected (3,)"),
        (lambda: layer_norm_backward(np.zeros((3, 2)), np.zeros((2, 3)), 3), "dy has shape (3, 2), expected (2, 3)"),
        (lambda: batch_norm(np.zeros((2, 3)), mean=np.zeros(3)), "mean and var must be given together or not at all"),
        (lambda: instance_norm(np.zeros((2, 3))), "with at least one spatial axis, got (2, 3)"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_mixed_and_integer_dtypes_are_named():
    with pytest.raises(TypeError, match=re.escape("mixed dtypes (input float32, weight float64)")):
        layer_norm(np.zeros((2, 3), np.float32), 3, np.zeros(3))
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64"):
        LayerNorm(3, elementwise_affine=False)(np.zeros((2, 3), np.int64))


def test_norms_in_a_net_on_every_backend(at):
    net = nn.Sequential(LayerNorm(4), nn.Dense(4, 4), GroupNorm(2, 4), BatchNorm1d(4), backend=at.backend)
    assert list(net.state_dict())[-3:] == ["3.running_mean", "3.running_var", "3.num_batches_tracked"]
    assert net(at.put(np.eye(4, dtype=np.float32))).shape == (4, 4)
