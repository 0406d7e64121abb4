"""The launches of a training step, counted on an emulated device, and the memory layout of arrays between layers.

On a GPU launches take most of the time of a step of a small net. Kernels, copies within the device and fills are
counted; a matrix product is one more launch, by either routine.
"""

import numpy as np
import pytest
from device_counts import device_counts, hidden

import xpnn as nn

# The most launches of a step of batch 2, without matrix products, as measured when this was written, and the aim.
NETS = {
    "mlp": ((3, 8, 8), 15, 40),
    "lenet5": ((1, 28, 28), 34, 80),
    "vgg11_bn": ((3, 32, 32), 140, 220),
    "unet": ((3, 32, 32), 225, 450),
    "resnet18": ((3, 32, 32), 345, 450),
    "mobilenet_v2": ((3, 32, 32), 585, 900),
}
OPTIMIZERS = {
    "sgd": lambda model: nn.SGD(model, lr=0.01, momentum=0.9),
    "adam": lambda model: nn.Adam(model, lr=0.001),
    "adam, capturable": lambda model: nn.Adam(model, lr=0.001, capturable=True),
}


@pytest.mark.parametrize("net", NETS)
def test_a_training_step_is_few_launches_and_no_copy(gpu, net):
    b, (image, most, aim) = gpu, NETS[net]
    model, loss = getattr(nn.models, net)(image, 10, backend=b, seed=0), nn.CrossEntropy(backend=b)
    x = b.asarray(np.random.default_rng(0).random((2, *image)).astype("float32"))
    y = b.asarray(np.zeros((2, 32, 32), np.int64) if net == "unet" else np.array([0, 1]))
    for name, make in OPTIMIZERS.items():
        optimizer = make(model)

        def step(optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(model(x), y)
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            return value

        step()
        step()
        with device_counts() as counts:
            step()
        # The powers of decay rates are a launch more for some tens of parameters.
        more = 8 if name == "adam, capturable" else 0
        launches = sum(counts.get(kind, 0) for kind in ("kernels", "within", "fills"))
        assert launches <= most + more <= aim, f"{net} {name}: {counts}"
        assert not hidden(counts), f"{net} {name}"


@pytest.mark.parametrize(
    "layers",
    [
        lambda: (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        lambda: (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.AvgPool2d(2)),
        lambda: (nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.LeakyReLU(), nn.LpPool2d(2, 2)),
        lambda: (nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.HardSwish(), nn.Dropout2d(0.5)),
        lambda: (nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Residual(nn.Conv2d(8, 8, 1)), nn.Dropout(0.5)),
        lambda: (nn.Conv2d(3, 8, 3), nn.Parallel(nn.Identity(), nn.Conv2d(8, 8, 1)), nn.Softmax(1)),
        lambda: (nn.Conv2d(3, 8, 3, groups=1), nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.SiLU(), nn.Upsample(2)),
        lambda: (nn.ConvTranspose2d(3, 8, 3), nn.ELU(), nn.AdaptiveAvgPool2d(3)),
        lambda: (nn.Conv2d(3, 8, 3), nn.Softplus(), nn.AdaptiveMaxPool2d(3)),
    ],
    ids=["max", "average", "group", "instance", "residual", "parallel", "depthwise", "transposed", "adaptive"],
)
def test_arrays_stay_channels_last_between_layers(gpu, layers):
    """An input with channels first is not copied; in each later array and gradient, channels are contiguous."""
    b = gpu
    model = nn.Sequential(*layers(), backend=b, seed=0)
    x = b.asarray(np.random.default_rng(0).random((2, 3, 12, 12)).astype("float32"))
    for layer in model:
        x = layer(x)
        assert is_channels_last(x), f"{layer}: {x.strides}"
    dy = x
    for layer in reversed(list(model)[1:]):
        dy = layer.backward(dy)
        assert is_channels_last(dy), f"{layer}, backward: {dy.strides}"


def is_channels_last(x):
    return x.transpose(0, 2, 3, 1).flags.c_contiguous
