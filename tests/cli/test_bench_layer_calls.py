"""All sides of a layer benchmark do the same computation, on arrays in the memory layout of a net."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.bench.host_arrays import relative_error
from xpnn.cli.bench.layer_calls import OurLayer
from xpnn.cli.bench.layers import CASES, LayerCase, UpdateCase, _sides, conv
from xpnn.cli.bench.net_steps import NETS
from xpnn.cli.bench.pytorch import find_pytorch
from xpnn.cli.bench.textbook_convolution import TextbookConv2d
from xpnn.cli.bench.torch_module import torch_module


@pytest.mark.parametrize(
    "case",
    [
        conv(3, 7, 4, 3, 2),
        conv(4, 7, 6, 3, 2, stride=2),
        conv(4, 8, 6, 3, 2, stride=2),
        conv(4, 5, 4, 3, 2, groups=4),
        conv(4, 6, 6, 5, 2, padding=0, groups=2),
        conv(1, 9, 2, 7, 2, stride=2, first=True),
        conv(5, 4, 3, 1, 2),
    ],
    ids=lambda case: case.name,
)
def test_the_textbook_computes_what_a_layer_computes(case):
    b = nn.get_backend("numpy")
    sides, _ = _sides(case, b, None, case.batch)
    for phase in case.phases:
        assert relative_error(sides["ours"].results(phase), sides["plain"].results(phase)) < 1e-5


def test_the_textbook_is_the_formula():
    x, weight = np.arange(16.0).reshape(1, 1, 4, 4), np.array([[[[1.0, 0.0], [0.0, -1.0]]]])
    found = TextbookConv2d(weight, np.array([10.0]), 1, 0, 1).forward(x)
    assert found.tolist() == [[[[5.0] * 3] * 3]]


def test_inputs_have_the_memory_layout_of_a_layers_output():
    b = nn.get_backend("numpy")
    x = np.zeros((2, 3, 4, 4), np.float32)
    inner, first = (OurLayer(b, nn.Conv2d(3, 2, 3, backend=b), x, first=first) for first in (False, True))
    assert inner.x.shape == (2, 3, 4, 4) and inner.x.transpose(0, 2, 3, 1).flags.c_contiguous
    assert first.x.flags.c_contiguous
    assert inner.dy.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("phase", ["forward", "backward", "step"])
def test_every_layer_loss_and_update_agrees_with_pytorch(phase):
    pytest.importorskip("torch")
    b = nn.get_backend("numpy")
    pytorch, _ = find_pytorch(b)
    small = [case for case in CASES if not isinstance(case, LayerCase) or case.shape[-1] < 20 or len(case.shape) < 3]
    for case in small:
        if phase not in case.phases:
            continue
        if isinstance(case, UpdateCase):
            case = UpdateCase(case.name, case.ours, case.theirs, ((3, 4), (5,)))
        sides, _ = _sides(case, b, pytorch, 2)
        ours = sides.pop("ours").results(phase)
        for name, side in sides.items():
            assert relative_error(ours, side.results(phase)) < 1e-5, (case.name, name)


@pytest.mark.parametrize("name", NETS)
def test_the_pytorch_module_of_a_net_has_our_names_and_shapes(name):
    pytest.importorskip("torch")
    pytorch, _ = find_pytorch(nn.get_backend("numpy"))
    case = NETS[name]
    ours = case.build(nn.get_backend("numpy"))
    theirs = torch_module(pytorch, ours)
    shapes = {key: tuple(array.shape) for key, array in theirs.state_dict().items()}
    expected = {key: parameter.shape for key, parameter in ours.named_parameters()}
    assert expected.items() <= shapes.items()
    assert {key for key, _ in theirs.named_parameters()} == expected.keys()


def test_a_layer_without_a_pytorch_module_is_named():
    pytest.importorskip("torch")
    pytorch, _ = find_pytorch(nn.get_backend("numpy"))
    with pytest.raises(ValueError, match="no PyTorch module for GELU"):
        torch_module(pytorch, nn.GELU())


def test_the_relative_error_is_that_of_the_worst_array():
    one, nan = np.ones(4, np.float32), np.full(4, np.nan, np.float32)
    assert relative_error([one, one], [one, one * 2.0]) == 0.5
    assert relative_error([nan], [one]) == float("inf") == relative_error([one], [np.ones(5)])
