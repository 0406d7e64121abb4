"""The nets are what their papers and PyTorch say, and their summaries count right."""

from itertools import pairwise

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

WIDE = {"dtype": "float64", "backend": "numpy"}
MODELS = {
    "resnet18": (lambda **p: nn.models.resnet18((3, 16, 16), 5, width=2, seed=1, **p), (3, 16, 16)),
    "vgg11_bn": (lambda **p: nn.models.vgg11_bn((3, 32, 32), 5, width=2, seed=1, **p), (3, 32, 32)),
    "mobilenet_v2": (
        lambda **p: nn.models.mobilenet_v2((3, 12, 12), 5, width=4, stages=((1, 16, 1, 1), (2, 32, 2, 2)), seed=1, **p),
        (3, 12, 12),
    ),
    "unet": (lambda **p: nn.models.unet((3, 8, 12), 5, width=2, seed=1, **p), (3, 8, 12)),
}


def as_torch(torch, layer):
    """The same structure in PyTorch, layer by layer."""
    t = torch.nn

    class Residual(t.Module):
        def __init__(self, children):
            super().__init__()
            self.body = children["body"]
            self.shortcut = children.get("shortcut", t.Identity())
            self.activation = children.get("activation", t.Identity())

        def forward(self, x):
            return self.activation(self.body(x) + self.shortcut(x))

    class Parallel(t.Module):
        def __init__(self, children):
            super().__init__()
            for name, child in children.items():
                self.add_module(name, child)

        def forward(self, x):
            return torch.cat([child(x) for child in self.children()], 1)

    if isinstance(layer, nn.Container):
        children = {name: as_torch(torch, child) for name, child in layer.children.items()}
        if isinstance(layer, nn.Residual):
            return Residual(children)
        return Parallel(children) if isinstance(layer, nn.Parallel) else t.Sequential(*children.values())
    if isinstance(layer, nn.Conv2d):
        return t.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            1,
            layer.groups,
            layer.bias,
        )
    if isinstance(layer, nn.ConvTranspose2d):
        return t.ConvTranspose2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
    if isinstance(layer, nn.BatchNorm2d):
        return t.BatchNorm2d(layer.num_features)
    if isinstance(layer, nn.Dense):
        return t.Linear(layer.in_features, layer.out_features)
    plain = {
        nn.ReLU: t.ReLU,
        nn.Flatten: t.Flatten,
        nn.Identity: t.Identity,
        nn.MaxPool2d: lambda: t.MaxPool2d(2),
        nn.GlobalAvgPool: lambda: t.AdaptiveAvgPool2d(1),
    }
    return plain[type(layer)]()


def inputs(shape, rng, n=3):
    return rng.standard_normal((n, *shape))


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_pytorchs(torch, rng, name):
    build, image = MODELS[name]
    model = build(**WIDE)
    net = as_torch(torch, model).double()
    net.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in model.state_dict().items()})
    x = inputs(image, rng)
    logits = model(x)
    theirs = net(torch.from_numpy(x))
    assert_match(logits, theirs, level="network", terms=1000, name="logits")
    dy = rng.standard_normal(logits.shape)
    model.backward(dy)
    theirs.backward(torch.from_numpy(dy))
    wanted = {key: parameter.grad for key, parameter in net.named_parameters()}
    # Together: the gradient of a scale that the next norm takes out again is all but 0, the rest of large terms.
    ours = [parameter.grad.ravel() for _, parameter in model.named_parameters()]
    whole = np.concatenate([wanted[key].numpy().ravel() for key, _ in model.named_parameters()])
    assert_match(np.concatenate(ours), whole, level="network", terms=1000, name="gradients")
    state = model.state_dict()
    theirs = {key: buffer.numpy().ravel() for key, buffer in net.named_buffers()}
    found = np.concatenate([np.asarray(state[key]).ravel() for key in theirs])
    assert_match(found, np.concatenate(list(theirs.values())), level="network", terms=1000, name="buffers")
    assert_match(model.eval()(x), net.eval()(torch.from_numpy(x)), level="network", terms=1000, name="evaluation")


@pytest.mark.parametrize("name", MODELS)
def test_backward_is_the_derivative(rng, name):
    """Along one random direction of each parameter and of the input."""
    build, image = MODELS[name]
    model = build(**WIDE)
    x, step = inputs(image, rng, 2), 1e-6
    weights = rng.standard_normal(model(x).shape)
    dx = model.backward(weights)

    def slope(move):
        ahead, behind = (float(np.sum(weights * move(sign * step))) for sign in (1, -1))
        return (ahead - behind) / (2 * step)

    direction = rng.standard_normal(x.shape)
    assert slope(lambda d: model(x + d * direction)) == pytest.approx(float(np.sum(dx * direction)), rel=1e-4, abs=1e-5)
    for key, parameter in model.named_parameters():
        original, gradient = parameter.value, parameter.grad
        along = rng.standard_normal(parameter.shape)

        def moved(d, parameter=parameter, original=original, along=along):
            parameter.value = original + d * along
            return model(x)

        found = slope(moved)
        parameter.value = original
        assert found == pytest.approx(float(np.sum(gradient * along)), rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("name", MODELS)
def test_model_is_the_same_on_every_backend(at, rng, name):
    build, image = MODELS[name]
    x = inputs(image, rng).astype(np.float32)
    model, reference = build(backend=at.backend), build(backend="numpy")
    assert_match(model(at.put(x)), reference(x), level="network", terms=1000, backend=at.backend)
    dy = np.ones(reference(x).shape, np.float32)
    assert_match(model.backward(at.put(dy)), reference.backward(dy), level="network", terms=100_000)


def test_full_size_nets_have_the_known_numbers_of_parameters():
    """ResNet-18 for CIFAR-10: 11,173,962, as in the usual implementations of this form."""
    assert count(nn.models.resnet18((3, 32, 32), 10)) == 11_173_962
    # eight convolutions without bias, their norms, and 512 x 10 + 10
    channels = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + 2 * b for a, b in pairwise(channels))
    assert count(nn.models.vgg11_bn((3, 32, 32), 10)) == convolutions + 5130


def test_mobilenet_filters_each_channel_by_itself():
    model = nn.models.mobilenet_v2((3, 32, 32), 10)
    filters = [part for _, part in model.named_layers() if isinstance(part, nn.Conv2d) and part.kernel_size == 3]
    assert len(filters) == 18
    assert all(part.groups == part.in_channels == part.out_channels for part in filters[1:])


def count(model):
    return sum(int(np.prod(parameter.shape)) for _, parameter in model.named_parameters())


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 32 x 32"):
        nn.models.vgg11_bn((3, 31, 64), 10)
    with pytest.raises(ValueError, match="multiples of 4"):
        nn.models.unet((3, 10, 8), 2)


def test_summary_counts_parameters_and_multiply_adds():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 2),
        nn.Flatten(),
        nn.Dense(75, 6),
    )
    summary = model.summary((5, 2, 8, 8))
    assert [row.output_shape for row in summary.rows] == [(5, 4, 4, 4), (5, 4, 4, 4), (5, 3, 5, 5), (5, 75), (5, 6)]
    assert [row.parameters for row in summary.rows] == [4 * 9 + 4, 0, 4 * 3 * 4 + 3, 0, 75 * 6 + 6]
    assert [row.multiply_adds for row in summary.rows] == [5 * 64 * 9, 0, 5 * 64 * 3 * 4, 0, 5 * 6 * 75]
    assert summary.parameters == count(model)
    text = str(summary)
    assert "Conv2d(2, 4, 3, stride=2, padding=1, groups=2)" in text
    assert f"{summary.multiply_adds:,}" in text


def test_summary_leaves_the_model_as_it_was(at, rng):
    model = nn.models.resnet18((3, 8, 8), 4, width=2, backend=at.backend)
    model[1].eval()
    x = at.put(rng.standard_normal((2, 3, 8, 8)).astype(np.float32))
    y = model(x)
    before = {name: at.get(array).copy() for name, array in model.state_dict().items()}
    model.summary((1, 3, 8, 8))
    assert [layer.training for layer in model[:3]] == [True, False, True]
    for name, array in model.state_dict().items():
        assert_match(array, before[name], level="exact", name=name)
    assert "forward" not in vars(model[0])
    model[1].train()
    model(x)
    model.summary((1, 3, 8, 8))
    assert model.backward(y).shape == (2, 3, 8, 8)
