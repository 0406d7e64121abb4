"""The PyTorch side of a benchmark computes what ours computes: a figure beside another net would mean nothing."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.bench.net_steps import NETS
from xpnn.cli.bench.pytorch import find_pytorch
from xpnn.cli.bench.torch_module import load_weights, torch_module

torch = pytest.importorskip("torch")


def body():
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding="same", bias=False), nn.BatchNorm2d(3))


SMALL = {
    "identity as shortcut": lambda: nn.Residual(body()),
    "identity, activation": lambda: nn.Residual(body(), activation=nn.ReLU()),
    "convolution as shortcut": lambda: nn.Residual(body(), nn.Conv2d(3, 3, 1), nn.ReLU()),
    "groups, stride, dilation": lambda: nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, groups=3),
    "same padding, dilation": lambda: nn.Conv2d(3, 4, 3, padding="same", dilation=2),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, padding=1), nn.GlobalAvgPool()),
    "transposed convolution": lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
    "branches, concatenated": lambda: nn.Parallel(nn.Identity(), nn.Conv2d(3, 2, 1)),
    "branches, added": lambda: nn.Parallel(nn.Identity(), nn.Conv2d(3, 3, 1), join="add"),
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Dense(3 * 16 * 16, 5, bias=False), nn.ReLU()),
}


def outputs(model, shape, rng, training):
    """Of a model and of its PyTorch module; in evaluation with the running statistics after one forward."""
    b = nn.get_backend("numpy")
    pytorch, _ = find_pytorch(b)
    x = rng.standard_normal(shape).astype(np.float32)
    if not training:
        model(x)
        model.eval()
    module = torch_module(pytorch, model)
    load_weights(pytorch, module, model, b)
    module.train(training)
    with torch.no_grad():
        return model(x), module(torch.from_numpy(x.copy())).numpy()


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", SMALL)
def test_a_layer_and_its_module_agree(rng, name, training):
    layer = nn.Sequential(SMALL[name](), backend="numpy", seed=1)
    ours, theirs = outputs(layer, (2, 3, 16, 16), rng, training)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", NETS.values(), ids=list(NETS))
def test_a_net_and_its_module_agree(rng, case):
    model = case.build(nn.get_backend("numpy"))
    ours, theirs = outputs(model, (2, *case.image), rng, training=False)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_a_layer_without_a_module_is_refused_by_name():
    pytorch, _ = find_pytorch(nn.get_backend("numpy"))
    with pytest.raises(ValueError, match=r"no PyTorch module for GELU\(\)"):
        torch_module(pytorch, nn.GELU())
