"""Padding by reflection, replication and continuation: NumPy's `pad`, PyTorch's layers, limits and errors."""

import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn import functional as F
from xpnn.testing import assert_match, gradcheck

F32 = np.float32
NUMPY = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
PADS = {
    "one for all": (1, (2, 3, 4, 2), ((1, 1), (1, 1))),
    "one per axis": ((2, 0), (2, 3, 3, 2), ((2, 2), (0, 0))),
    "pairs": (((1, 2), (0, 3)), (2, 1, 3, 4), ((1, 2), (0, 3))),
    "as much as possible": (3, (2, 3, 4), ((3, 3),)),
    "three axes": ((1, 0, (2, 1)), (2, 1, 2, 3, 3), ((1, 1), (0, 0), (2, 1))),
    "nothing": (0, (2, 3, 4), ((0, 0),)),
    "no samples": (1, (0, 3, 4), ((1, 1),)),
}
every_mode = pytest.mark.parametrize("mode", NUMPY)
every_pad = pytest.mark.parametrize(("padding", "shape", "pairs"), PADS.values(), ids=PADS)


def numbers(rng, shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def channels_last_view(at, host):
    """The same array with channels last in memory."""
    stored = at.put(np.ascontiguousarray(np.moveaxis(host, 1, -1)))
    return at.xp.permute_dims(stored, (0, host.ndim - 1, *range(1, host.ndim - 1)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_mode
@every_pad
def test_pad_is_that_of_numpy_and_its_gradient_adds_up_the_copies(at, rng, padding, shape, pairs, mode, dtype):
    host = numbers(rng, shape, dtype)
    pad, backward = getattr(F, f"pad_{mode}"), getattr(F, f"pad_{mode}_backward")
    desired = np.pad(host, ((0, 0), (0, 0), *pairs), mode=NUMPY[mode])
    for x in (at.put(host), channels_last_view(at, host)):
        assert_match(pad(x, padding), desired, level="exact", backend=at.backend, dtype=dtype)
        assert_match(x, host, level="exact")
    upstream = numbers(rng, desired.shape, dtype)
    places = np.pad(np.arange(host.size).reshape(shape), ((0, 0), (0, 0), *pairs), mode=NUMPY[mode])
    dx = np.zeros(host.size)
    np.add.at(dx, places.reshape(-1), upstream.reshape(-1).astype(np.float64))
    for dy in (at.put(upstream), channels_last_view(at, upstream)):
        form = {"level": "reduction", "terms": 27, "backend": at.backend, "dtype": dtype}
        assert_match(backward(dy, shape, padding), dx.reshape(shape), **form)
        assert_match(dy, upstream, level="exact")


@every_mode
def test_the_layer_is_the_function(at, rng, mode):
    layer, x = nn.Pad((1, (0, 2)), mode=mode, backend=at.backend), at.put(numbers(rng, (2, 3, 4, 5)))
    y = layer(x)
    assert_match(y, getattr(F, f"pad_{mode}")(x, (1, (0, 2))), level="exact", backend=at.backend)
    dx = getattr(F, f"pad_{mode}_backward")(y, x.shape, (1, (0, 2)))
    assert_match(layer.backward(y), dx, level="exact", backend=at.backend)
    assert layer.output_shape((2, 3, 4, 5)) == tuple(y.shape)


@every_mode
def test_nan_and_infinity_are_copied(at, mode):
    x = at.put([[[np.nan, 1.0, np.inf]]])
    y = at.get(nn.Pad(1, mode=mode, backend=at.backend)(x))[0, 0]
    ends = {"reflect": (1, 1), "replicate": (np.nan, np.inf), "circular": (np.inf, np.nan)}[mode]
    np.testing.assert_array_equal(y, [ends[0], np.nan, 1, np.inf, ends[1]])


CONVOLUTIONS = {
    "plain": (1, {"padding": 1}),
    "asymmetric by PyTorch's same": (1, {"kernel_size": 4, "padding": "same"}),
    "two axes": (2, {"padding": (2, 1), "stride": (2, 1), "dilation": (1, 2)}),
    "groups": (2, {"padding": 1, "groups": 2}),
    "three axes": (3, {"padding": (0, 1, 2), "kernel_size": (1, 2, 3)}),
    "no padding": (2, {}),
}


@pytest.mark.parametrize("training", [True, False])
@every_mode
@pytest.mark.parametrize(("axes", "options"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_matches_pytorch(at, torch, rng, axes, options, mode, training):
    options = {"kernel_size": 3, "padding_mode": mode} | options
    theirs = getattr(torch.nn, f"Conv{axes}d")(4, 6, **options)
    ours = getattr(nn, f"Conv{axes}d")(4, 6, **options, backend=at.backend)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    x = numbers(rng, (2, 4, 7, 6, 5)[: axes + 2])
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    ours.train(training)
    y = ours(at.put(x))
    form = {"level": "reduction", "terms": 300, "backend": at.backend}
    assert_match(y, ty.detach(), **form)
    assert ours.output_shape(x.shape) == tuple(ty.shape)
    if training:
        dy = numbers(rng, tuple(ty.shape))
        ty.backward(torch.tensor(dy))
        assert_match(ours.backward(at.put(dy)), tx.grad, **form)
        assert_match(ours.parameters["weight"].grad, theirs.weight.grad, **form)
        assert_match(ours.parameters["bias"].grad, theirs.bias.grad, **form)


@every_mode
def test_a_net_folds_and_fuses_a_convolution_with_borders(at, rng, mode):
    """Batch norm and ReLU after it are computed together with it, with the same borders."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), nn.BatchNorm2d(4), nn.ReLU(), backend=at.backend, seed=3
    )
    x = at.put(numbers(rng, (2, 3, 6, 5)))
    net(x)
    net.eval()
    y = net(x)
    for layer in net:
        x = layer(x)
    assert_match(y, x, level="network", backend=at.backend)


@every_mode
def test_the_gradient_of_the_input_is_skipped_if_it_is_not_wanted(rng, mode):
    layer = nn.Conv1d(2, 3, 3, padding=1, padding_mode=mode)
    y = layer(numbers(rng, (2, 2, 5)))
    assert layer.backward(y, input_grad=False) is None
    assert layer.parameters["weight"].grad is not None


CALLS = {
    "Pad(2, mode='reflect')": (2, 1, 3),
    "Pad(((1, 2), (0, 1)), mode='replicate')": (1, 2, 2, 2),
    "Pad((1, 2), mode='circular')": (1, 2, 2, 2),
    "Conv1d(2, 3, 3, padding=1, padding_mode='reflect')": (2, 2, 4),
    "Conv2d(2, 3, 2, padding='same', padding_mode='replicate')": (1, 2, 3, 4),
    "Conv2d(2, 2, 3, stride=2, padding=((1, 0), (2, 1)), groups=2, padding_mode='circular')": (1, 2, 4, 3),
}


@pytest.mark.parametrize("call", CALLS)
def test_repr_is_the_call_and_backward_the_derivative_of_forward(rng, call):
    layer = eval(call, {"Pad": nn.Pad, "Conv1d": nn.Conv1d, "Conv2d": nn.Conv2d})
    assert repr(layer) == repr(pickle.loads(pickle.dumps(layer))) == call
    gradcheck(layer.to("numpy", "float64"), numbers(rng, CALLS[call], "float64"))


def test_a_border_of_more_cells_than_there_are_is_an_error_that_names_the_layer():
    x = np.zeros((1, 1, 3), F32)
    for mode, padding, most in (("reflect", 3, 2), ("circular", 4, 3)):
        message = f"padding (({padding}, {padding}),) with mode {mode!r} has {padding} cells on a side of an axis of 3"
        for layer in (nn.Pad(padding, mode=mode), nn.Conv1d(1, 1, 3, padding=padding, padding_mode=mode)):
            for call in (layer, lambda x, layer=layer: layer.output_shape(x.shape)):
                with pytest.raises(ValueError, match=re.escape(f"{layer!r}: {message}; at most {most} can be copied")):
                    call(x)
    assert nn.Pad(9, mode="replicate")(x).shape == (1, 1, 21)


@every_mode
def test_an_axis_without_cells_is_an_error(mode):
    with pytest.raises(ValueError, match="on a side of an axis of 0"):
        nn.Pad(1, mode=mode)(np.zeros((2, 3, 0), F32))
    assert nn.Pad(0, mode=mode)(np.zeros((2, 3, 0), F32)).shape == (2, 3, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Pad(1, mode="wrap"), "mode must be 'constant', 'reflect', 'replicate' or 'circular', got 'wrap'"),
        (lambda: nn.Pad(1, 2.0, "reflect"), "value is for mode 'constant' only, got 2.0 with mode 'reflect'"),
        (
            lambda: nn.Conv2d(1, 1, 3, padding_mode="constant"),
            "padding_mode must be 'zeros', 'reflect', 'replicate' or 'circular', got 'constant'",
        ),
    ],
)
def test_arguments_out_of_range_are_errors_at_once(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_the_layers_of_pytorch_are_named_in_the_error():
    with pytest.raises(AttributeError, match=r"did you mean nn\.Pad\?"):
        nn.ReflectionPad2d  # noqa: B018
