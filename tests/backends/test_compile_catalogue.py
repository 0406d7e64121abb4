"""Every layer, loss and net of the library as a compiled step has the bits of the uncompiled step in each call.

For single cases of the parity catalogue a step is one forward and backward; for nets it is a training step.
"""

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import overrides
from xpnn.backends.cpu import replay
from xpnn.testing.cases import cases
from xpnn.testing.cases.case import LossCase

CALLS = 5
pytestmark = pytest.mark.usefixtures("nothing_compiles_in_a_recording")
CASES = {case.name: case for case in cases() if case.single and case.dtype == "float32"}


# On the CPU also as for large arrays, which are cut into parts for workers, with and without compiled kernels.
MODES = ("numpy-fast", "numpy-exact", "numpy-parts", "numpy-kernels", "gpu-fast", "gpu-exact")


@pytest.fixture(params=MODES)
def b(request, monkeypatch):
    where, _, mode = request.param.partition("-")
    backend = "numpy" if where == "numpy" else request.getfixturevalue("gpu")
    if mode in ("parts", "kernels"):
        if mode == "kernels":
            request.getfixturevalue("compiled_kernels")
        monkeypatch.setenv("XPNN_NUM_THREADS", "3")
        # All groups of items run on threads, however short they are.
        monkeypatch.setattr(replay, "WORTH_SHARING", 0.0)
        with overrides.using(overrides.Choices(kernels=mode == "kernels", large=True, block_bytes=1 << 11)):
            yield nn.get_backend("numpy")
    else:
        yield nn.get_backend(backend, numerics="exact" if mode == "exact" else "fast")


def upstream(case, y):
    return case.generator.fold_in("upstream").uniform(tuple(y.shape), -1.0, 1.0, "float32", "numpy")


def layer_step(case, b):
    """A layer, a step that gives its output and gradients, and arguments."""
    layer, x, _ = case.prepare(b, "float32")
    y = layer(x)
    dy = case._put(upstream(case, y[0] if isinstance(y, tuple) else y), b)

    def step(x, dy):
        layer.zero_grad()
        y, found = layer(x), {}
        if isinstance(y, tuple):
            y, found["indices"] = y
        found["y"] = y
        if case.training:
            found["dx"] = layer.backward(dy)
            found |= {f"d{name}": parameter.grad for name, parameter in layer.named_parameters()}
        return found

    return layer, step, (x, dy)


def loss_step(case, b):
    loss, x, target = case.prepare(b, "float32")
    value = loss(x, target)
    dy = b.asarray(upstream(case, value)) if value.ndim else None

    def step(x, target, dy):
        return {"loss": loss(x, target), "dx": loss.backward() if dy is None else loss.backward(dy)}

    return loss, step, (x, target, dy)


def bits(b, found):
    return {name: b.to_numpy(array).tobytes() for name, array in found.items() if array is not None}


def state(layer):
    """All that a step may change except gradients: buffers and positions of random streams."""
    b = layer.backend
    found = {slot.name: slot.get() for slot in layer.slots() if not slot.name.endswith(".grad")}
    return {name: b.to_numpy(value).tobytes() if b.owns(value) else value for name, value in found.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_case_gives_the_plain_ones_bits(b, name):
    case = CASES[name]
    make = loss_step if isinstance(case, LossCase) else layer_step
    ours, step, arguments = make(case, b)
    reference, plain, _ = make(case, b)
    owners = [ours] if hasattr(ours, "slots") else []
    compiled = b.compile(step, *owners)
    before = state(reference) if owners else None
    wanted = bits(b, plain(*arguments))
    changes = owners and state(reference) != before
    for i in range(CALLS):
        # A step that does not change its layer has the same results again.
        if i and changes:
            wanted = bits(b, plain(*arguments))
        assert bits(b, compiled(*arguments)) == wanted, i
    assert compiled.recorded == 1 and compiled.replayed >= 2
    if owners:
        assert state(ours) == state(reference)


# Two stages of MobileNet's seven.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2))
NETS = {
    "mlp": lambda **p: (nn.models.mlp((3, 8, 8), 5, **p), (3, 8, 8)),
    "mlp with dropout": lambda **p: (
        nn.Sequential(nn.Flatten(), nn.Dense(192, 32), nn.ReLU(), nn.Dropout(0.5), nn.Dense(32, 5), **p),
        (3, 8, 8),
    ),
    "lenet": lambda **p: (nn.models.lenet((1, 12, 12), 5, **p), (1, 12, 12)),
    "lenet5": lambda **p: (nn.models.lenet5((1, 16, 16), 5, **p), (1, 16, 16)),
    "resnet18": lambda **p: (nn.models.resnet18((3, 8, 8), 5, width=8, **p), (3, 8, 8)),
    "vgg11_bn": lambda **p: (nn.models.vgg11_bn((3, 32, 32), 5, width=4, **p), (3, 32, 32)),
    "mobilenet_v2": lambda **p: (nn.models.mobilenet_v2((3, 16, 16), 5, 8, STAGES, **p), (3, 16, 16)),
    "vit": lambda **p: (nn.models.vit((1, 8, 8), 5, 4, 16, 2, 2, 16, dropout=0.2, **p), (1, 8, 8)),
    "unet": lambda **p: (nn.models.unet((1, 8, 8), 3, width=8, **p), (1, 8, 8)),
}


def train(b, make, compiled):
    model, shape = make(backend=b, seed=1)
    optimizer, loss = nn.AdamW(model, lr=0.01), nn.CrossEntropy(backend=b)

    def step(x, y):
        optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        nn.clip_grad_norm(model, 1.0)
        optimizer.step()
        return value

    chosen = b.compile(step, model, optimizer) if compiled else step
    generator, values = np.random.default_rng(0), []
    dense = model(b.asarray(np.zeros((2, *shape)), "float32")).shape[2:]
    for _ in range(CALLS):
        x = generator.normal(size=(2, *shape)).astype("float32")
        values.append(chosen(b.asarray(x), b.asarray(generator.integers(0, 3, (2, *dense)))))
    if compiled:
        assert chosen.recorded == 1 and chosen.replayed >= 2
    return [b.to_numpy(value).tobytes() for value in values], bits(b, model.state_dict())


@pytest.mark.parametrize("name", NETS)
def test_a_compiled_net_trains_to_the_plain_ones_bits(b, name):
    assert train(b, NETS[name], True) == train(b, NETS[name], False)
