"""Models and modules of PyTorch, converted in both directions: `from_torch` and `to_torch`."""

import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing.cases import LayerCase

CASES = {case.name: case for case in nn.testing.cases() if type(case) is LayerCase}
# What PyTorch does not have, with a word of the error.
REFUSED = {
    r"ConvTranspose.*/asymmetric": "padding",
    r"MaxPool.*/ceil_mode, no window in the padding": "padding",
    r"MaxPool2d/indices": "return_indices",
    r"AvgPool.*/(asymmetric|same|ceil_mode, no window)": "padding",
    r"AvgPool.*/dilation": "dilation",
    r"LpPool.*/power 2, (padding|same)": "padding",
    r"LpPool.*/(plain|power 1|power 2.5|float64)": "norm_type",
}
# PyTorch returns another shape for an empty batch, and NaN where the limit for an infinity is a number.
DIFFERENT = re.compile(
    r"Pixel(Uns|S)huffle/empty batch|(SiLU|Mish|Softsign|GELU|HardSwish)/NaN and infinities|Softmin/minus infinity"
)
# Gradients of NaN, and where there are two, are PyTorch's own.
OWN_GRADIENT = re.compile(r".*(NaN|nan|infinit|ties|equal|constant|zeros|limits|at the|whole numbers)")
RANDOM = ("Dropout", "MultiHeadAttention/dropout")


def refusal(name):
    return next((word for pattern, word in REFUSED.items() if re.match(pattern, name)), None)


SUPPORTED = [name for name in CASES if refusal(name) is None and not DIFFERENT.match(name)]


def close(found, wanted, dtype="float32"):
    found, wanted = found.detach().numpy(), np.asarray(wanted)
    bound = 2e-4 if dtype == "float32" else 1e-9
    finite = np.abs(wanted[np.isfinite(wanted)]).max(initial=1.0)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=bound, atol=bound * finite, equal_nan=True)


def tensors(torch, x):
    """The input of a case, one array or several."""
    return torch.tensor(np.ascontiguousarray(x))


def state(model):
    return {name: np.asarray(array).tobytes() for name, array in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", SUPPORTED)
def test_every_case_is_a_module_that_computes_the_same(torch, name):
    case = CASES[name]
    layer, x, _ = case.prepare("numpy")
    module = nn.to_torch(layer)
    assert set(module.state_dict()) == set(layer.state_dict())
    if name.startswith(RANDOM):
        layer.eval(), module.eval()
        close(module(tensors(torch, x)), layer(x), case.dtype)
        return
    wanted, given = case.run("numpy"), tensors(torch, x)
    if given.is_floating_point() and case.training:
        given.requires_grad_()
    y = module(given)
    close(y, wanted["y"], case.dtype)
    buffers = dict(module.named_buffers())
    if not case.training or OWN_GRADIENT.match(name):
        return
    if y.requires_grad:
        y.backward(torch.tensor(case.upstream(tuple(y.shape))).to(y.dtype))
    for key, parameter in module.named_parameters():
        close(parameter.grad, wanted[f"d{key}"], case.dtype)
    if given.requires_grad:
        # Hardmax has none.
        close(given.grad if y.requires_grad else torch.zeros_like(given), wanted["dx"], case.dtype)
    for key, array in buffers.items():
        close(array, wanted[key], case.dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", [name for name in SUPPORTED if name != "Graph/one layer in two nodes"])
def test_every_case_comes_back_with_the_same_bits(torch, name):
    layer, x, _ = CASES[name].prepare("numpy")
    back = nn.from_torch(nn.to_torch(layer), x.shape, backend="numpy")
    assert state(back) == state(layer)
    layer.eval(), back.eval()
    assert np.array_equal(back(x), layer(x), equal_nan=True)


@pytest.mark.parametrize("name", [name for name in CASES if refusal(name)])
def test_what_pytorch_lacks_is_refused_by_name(torch, name):
    layer, _, _ = CASES[name].prepare("numpy")
    with pytest.raises(ValueError, match=rf"to_torch: no counterpart in PyTorch for conv\.deep: .*{refusal(name)}"):
        nn.to_torch(nn.Graph({"conv.deep": (layer, "input")}))


IMAGE = (3, 32, 32)
NETS = {
    "lenet": (lambda: nn.models.lenet((1, 28, 28), 10), (1, 28, 28)),
    "lenet5": (lambda: nn.models.lenet5((1, 28, 28), 10), (1, 28, 28)),
    "mlp": (lambda: nn.models.mlp((1, 8, 8), 10), (1, 8, 8)),
    "mobilenet_v2": (lambda: nn.models.mobilenet_v2(IMAGE, 10), IMAGE),
    "resnet18": (lambda: nn.models.resnet18(IMAGE, 10, width=8), IMAGE),
    "unet": (lambda: nn.models.unet((1, 16, 16), 3, width=4), (1, 16, 16)),
    "vgg11_bn": (lambda: nn.models.vgg11_bn(IMAGE, 10, width=8), IMAGE),
    "vit": (lambda: nn.models.vit((1, 8, 8), 10), (1, 8, 8)),
    "torchvision.resnet50": (lambda: nn.models.torchvision.resnet50(7), IMAGE),
    "torchvision.mobilenet_v2": (lambda: nn.models.torchvision.mobilenet_v2(7), IMAGE),
}


def test_every_net_of_the_package_is_among_these():
    assert {*nn.models.BUILDERS, "unet"} <= {*NETS}


@pytest.mark.parametrize("name", NETS)
def test_every_net_goes_round(torch, rng, name):
    build, shape = NETS[name]
    model = build().to("numpy").eval()
    x = rng.standard_normal((2, *shape)).astype(np.float32)
    module = nn.to_torch(model)
    close(module(torch.tensor(x)), model(x))
    back = nn.from_torch(module, (None, *shape), backend="numpy")
    assert state(back) == state(model)
    np.testing.assert_allclose(back(x), model(x), rtol=1e-5, atol=1e-5)
