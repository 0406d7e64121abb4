"""The nets match their papers and PyTorch, and their summaries count correctly."""

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
    "vit": (lambda **p: nn.models.vit((3, 8, 12), 5, 4, 8, 2, 2, 6, seed=1, **p), (3, 8, 12)),
    "unet": (lambda **p: nn.models.unet((3, 8, 12), 5, width=2, seed=1, **p), (3, 8, 12)),
}


def written_in_torch(name):
    """The net of that entry of MODELS, written independently of ours."""
    import torch_nets

    blocks = [(4, 2, 1, 1), (2, 4, 2, 2), (4, 4, 1, 2)]
    nets = {
        "resnet18": lambda: torch_nets.ResNet18(3, 5, 2),
        "vgg11_bn": lambda: torch_nets.VGG11(3, 5, 2),
        "mobilenet_v2": lambda: torch_nets.MobileNetV2(3, 5, 4, blocks, 160),
        "vit": lambda: torch_nets.ViT(3, 5, (2, 3), 4, 8, 2, 2, 6),
        "unet": lambda: torch_nets.UNet(3, 5, 2),
    }
    return nets[name]().double()


def inputs(shape, rng, n=3):
    return rng.standard_normal((n, *shape))


def scatter(model, rng):
    """Draw weights, biases and statistics of norms too: while they are 1 and 0, a mistake in them goes unnoticed."""
    for name, array in model.state_dict().items():
        if "num_batches" not in name and array.ndim == 1:
            value = rng.uniform(0.5, 1.5, array.shape) if "var" in name else rng.uniform(-0.5, 0.5, array.shape)
            array[...] = value + (1.0 if "weight" in name else 0.0)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_are_pytorchs(torch, rng, name):
    build, image = MODELS[name]
    model = scatter(build(**WIDE), rng)
    net = written_in_torch(name)
    names = dict(zip(model.state_dict(), net.state_dict(), strict=True))
    net.load_state_dict({names[key]: torch.from_numpy(np.array(value)) for key, value in model.state_dict().items()})
    x = inputs(image, rng)
    # Before training mode moves the statistics.
    assert_match(model.eval()(x), net.eval()(torch.from_numpy(x)), level="network", terms=1000, name="evaluation")
    tx = torch.from_numpy(x).requires_grad_()
    logits, theirs = model.train()(x), net.train()(tx)
    assert_match(logits, theirs, level="network", terms=1000, name="logits")
    dy = rng.standard_normal(logits.shape)
    theirs.backward(torch.from_numpy(dy))
    assert_match(model.backward(dy), tx.grad, level="network", terms=1000, name="dx")
    wanted = {key: parameter.grad.numpy().ravel() for key, parameter in net.named_parameters()}
    for path, layer in model.named_layers():
        # Weight and bias together: the gradient of a bias before a norm is 0 up to rounding errors.
        if layer.parameters:
            ours = np.concatenate([parameter.grad.ravel() for parameter in layer.parameters.values()])
            whole = np.concatenate([wanted.pop(names[f"{path}.{key}"]) for key in layer.parameters])
            assert_match(ours, whole, level="network", terms=1000, name=path)
    assert not wanted
    buffers = dict(net.named_buffers())
    for key, array in model.state_dict().items():
        if names[key] in buffers:
            assert_match(array, buffers[names[key]], level="network", terms=1000, name=key)


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


def test_vit_has_patches_positions_and_blocks():
    model = nn.models.vit((3, 12, 8), 10, patch=4, width=16, depth=3, heads=2, mlp=20, dropout=0.1)
    kinds = [type(part) for _, part in model.named_layers()]
    assert [kinds.count(kind) for kind in (nn.MultiHeadAttention, nn.LayerNorm, nn.Dropout, nn.Residual)] == [
        3,
        7,
        6,
        6,
    ]
    assert model[3].length == 6
    block = 4 * 16 * 16 + 4 * 16 + 2 * 16 * 20 + 16 + 20 + 4 * 16
    assert count(model) == (48 * 16 + 16) + 6 * 16 + 3 * block + 2 * 16 + 170
    assert nn.Dropout not in {type(part) for _, part in nn.models.vit((3, 8, 8), 10).named_layers()}


def test_vit_learns():
    """Where in the image the bright patch is."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, 64)
    x = rng.standard_normal((64, 1, 8, 8)).astype(np.float32)
    for i, place in enumerate(target):
        x[i, 0, 4 * (place // 2) :, 4 * (place % 2) :][:4, :4] += 1.5
    model, loss = nn.models.vit((1, 8, 8), 4, width=16, depth=1, heads=2, mlp=16, seed=0), nn.CrossEntropy()
    optimizer, losses = nn.Adam(model, lr=0.01), []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(float(loss(model(x), target)))
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
    assert losses[0] > 1.0 and losses[-1] < 0.2


def test_mobilenet_filters_each_channel_separately():
    model = nn.models.mobilenet_v2((3, 32, 32), 10)
    filters = [part for _, part in model.named_layers() if isinstance(part, nn.Conv2d) and part.kernel_size == 3]
    assert len(filters) == 18
    assert all(part.groups == part.in_channels == part.out_channels for part in filters[1:])


def count(model):
    return sum(int(np.prod(parameter.shape)) for _, parameter in model.named_parameters())


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 32 x 32"):
        nn.models.vgg11_bn((3, 31, 64), 10)
    with pytest.raises(ValueError, match="vit: image sizes must be multiples of the patch, 4, got 28 x 30"):
        nn.models.vit((1, 28, 30), 10)
    with pytest.raises(ValueError, match="vit: width must be a multiple of heads, got width=64, heads=5"):
        nn.models.vit((1, 28, 28), 10, heads=5)
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


def test_summary_draws_no_weights_and_fixes_no_seed():
    looked_at, other = nn.Dense(4, 3), nn.Dense(4, 3)
    looked_at.summary((1, 4))
    first, second = (nn.Sequential(layer, seed=9).state_dict()["0.weight"] for layer in (looked_at, other))
    assert_match(first, second, level="exact")


def test_summary_leaves_gradients_statistics_and_masks_unchanged(rng):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), seed=1)
    twin = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), seed=1)
    x = rng.standard_normal((2, 1, 4, 4)).astype(np.float32)
    for _ in range(2):
        model.summary((3, 1, 6, 5))
        y = model(x)
        model.summary((3, 1, 6, 5))
        assert_match(y, twin(x), level="exact")
        assert_match(model.backward(y), twin.backward(y), level="exact")
    for (name, a), (_, b) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert_match(a.grad, b.grad, level="exact", name=name)
    for name, array in model.state_dict().items():
        assert_match(array, twin.state_dict()[name], level="exact", name=name)


def test_summary_that_fails_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Dense(4, 3), nn.Dense(2, 2))
    with pytest.raises(ValueError, match=r"Dense\(2, 2\): input must have shape"):
        model.summary((1, 4))
    assert all(layer.training and "forward" not in vars(layer) for _, layer in model.named_layers())


@pytest.mark.parametrize("shape", [4, (), (-1, 4), (1, 4.0), "14"], ids=repr)
def test_summary_accepts_only_a_shape(shape):
    with pytest.raises(ValueError, match=r"input_shape must be the shape of an input with its batch axis"):
        nn.Dense(4, 3).summary(shape)


def test_summary_of_branches_names_every_layer_and_uses_the_dtype_of_the_weights(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    model = nn.Residual(
        nn.Dense(4, 4), nn.Parallel(nn.Identity(), nn.Dense(4, 4), join="add"), nn.ReLU(), dtype="float64"
    )
    summary = nn.Sequential(nn.Flatten(), model).summary([0, 2, 2])
    names = ["0", "1.body", "1.shortcut.0", "1.shortcut.1", "1.activation"]
    assert [row.name for row in summary.rows] == names
    assert {row.output_shape for row in summary.rows} == {(0, 4)}
    assert (summary.parameters, summary.multiply_adds) == (40, 0)
    assert all(name in str(summary) for name in names)
    assert "\x1b" not in str(summary)


def test_multiply_adds_of_known_nets():
    """ResNet-18 for CIFAR: 0.56 G, as the usual counters give for its convolutions and its dense layer."""
    assert nn.models.resnet18((3, 32, 32), 10).summary((1, 3, 32, 32)).multiply_adds == 555_422_720


def test_mobilenet_has_the_stages_of_its_paper():
    """Table 2: blocks, channels and where the image is halved; the first two strides are 1 for small images."""
    model = nn.models.mobilenet_v2((3, 32, 32), 10)
    rows = model.summary((1, 3, 32, 32)).rows
    depthwise = [row for row in rows if "groups=" in row.layer]
    assert len(depthwise) == 17
    assert [row.output_shape[2] for row in depthwise] == [32] * 3 + [16] * 3 + [8] * 7 + [4] * 4
    assert [row.output_shape[1] for row in depthwise] == [
        32,
        96,
        *[144] * 2,
        *[192] * 3,
        *[384] * 4,
        *[576] * 3,
        *[960] * 3,
    ]
    assert sum(isinstance(layer, nn.Residual) for layer in model) == 10
    # torchvision's 3,504,872 with 1000 classes
    assert count(nn.models.mobilenet_v2((3, 32, 32), 1000)) == 3_504_872
