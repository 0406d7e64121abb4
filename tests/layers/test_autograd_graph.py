"""Tensors that require gradients: nothing that the library returns or keeps is in PyTorch's graph."""

import numpy as np
import pytest
from function_calls import CALLS

import xpnn as nn
from xpnn.layers import functional as F
from xpnn.testing.cases import LayerCase, LossCase, cases

LAYERS = [case for case in cases() if isinstance(case, LayerCase)]
LOSSES = [case for case in cases() if isinstance(case, LossCase)]


@pytest.fixture(scope="module")
def backend(torch):
    return nn.get_backend("torch")


def tensors(value):
    """All tensors in nested containers and plain objects."""
    if hasattr(value, "grad_fn"):
        yield value
    elif isinstance(value, dict):
        yield from tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors(each)
    elif hasattr(value, "__dataclass_fields__"):
        yield from tensors(tuple(vars(value).values()))


def require_outside(*values):
    for tensor in tensors(values):
        assert tensor.grad_fn is None and not tensor.requires_grad


def graded(tensor):
    """A tensor that PyTorch records, if it may."""
    return tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor


def require_layer(layer, x, torch):
    for mode in (True, False):
        if mode is False:
            layer.eval()
        inputs = [graded(x)]
        # A result of other tensors too, which has a history.
        if x.is_floating_point():
            inputs.append(inputs[0] * 1.0)
        for each in inputs:
            y = layer(each)
            require_outside(y)
            if mode:
                y = y[0] if isinstance(y, tuple) else y
                dx = layer.backward(graded(torch.ones_like(y)))
                require_outside(dx)
                for _, part in layer.named_layers():
                    require_outside(part.saved, dict(part.buffers.items()))
                require_outside([parameter.grad for _, parameter in layer.named_parameters()])


def subject(case):
    return case.name


@pytest.mark.parametrize("case", LAYERS, ids=subject)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_layer_gives_or_keeps_a_graph(backend, torch, case):
    layer, x, _ = case.prepare(backend)
    if case.training:
        require_layer(layer, x, torch)
    else:
        require_outside(layer(graded(x)))


@pytest.mark.parametrize("case", LOSSES, ids=subject)
def test_no_loss_gives_or_keeps_a_graph(backend, torch, case):
    loss, prediction, target = case.prepare(backend)
    value = loss(graded(prediction) * 1.0, graded(target))
    require_outside(value, loss._saved)
    require_outside(loss.backward(graded(torch.ones_like(value))))


@pytest.mark.parametrize("name", F.__all__)
def test_no_function_gives_a_graph(backend, name):
    call = {
        key: graded(backend.asarray(value)) if isinstance(value, np.ndarray) else value
        for key, value in CALLS[name].items()
    }
    require_outside(getattr(F, name)(**call))


CONTAINERS = {
    "empty": lambda b: nn.Sequential(backend=b),
    "identity": lambda b: nn.Sequential(nn.Identity(), backend=b),
    "nothing but views": lambda b: nn.Sequential(nn.Identity(), nn.Reshape(2, 3), nn.Flatten(), backend=b),
    "residual": lambda b: nn.Residual(nn.Identity(), backend=b),
    "residual of a shortcut": lambda b: nn.Residual(nn.Identity(), nn.Identity(), nn.ReLU(), backend=b),
    "one way": lambda b: nn.Parallel(nn.Identity(), backend=b),
    "one way, added": lambda b: nn.Parallel(nn.Identity(), join="add", backend=b),
    "two ways": lambda b: nn.Parallel(nn.Identity(), nn.Dense(6, 6), backend=b),
    "graph": lambda b: nn.Graph({"a": (nn.Dense(6, 6), "input"), "b": (nn.Add(), ("a", "input"))}, backend=b),
    "graph of a product": lambda b: nn.Graph({"a": (nn.Multiply(), ("input", "input"))}, backend=b),
    "graph of a concatenation": lambda b: nn.Graph({"a": (nn.Concat(), ("input",))}, backend=b),
    "checkpointed": lambda b: nn.Checkpointed(nn.Sequential(nn.Flatten(), nn.Dense(6, 6)), backend=b),
    "checkpointed identity": lambda b: nn.Checkpointed(nn.Identity(), backend=b),
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_no_container_gives_or_keeps_a_graph(backend, torch, make):
    require_layer(make(backend), torch.ones((4, 6)), torch)


VIEWS = {
    "identity": (lambda b: nn.Identity(backend=b), (4, 6)),
    "flatten": (lambda b: nn.Flatten(backend=b), (4, 3, 2)),
    "flatten of what is flat": (lambda b: nn.Flatten(backend=b), (4, 6)),
    "reshape": (lambda b: nn.Reshape(3, 2, backend=b), (4, 6)),
    "reshape to the same": (lambda b: nn.Reshape(6, backend=b), (4, 6)),
    "dropout of nothing": (lambda b: nn.Dropout(0.0, backend=b), (4, 6)),
    "dropout in evaluation": (lambda b: nn.Dropout(0.5, backend=b).eval(), (4, 6)),
    "pad by nothing": (lambda b: nn.Pad(0, backend=b), (4, 3, 2)),
    "empty": (lambda b: nn.Sequential(backend=b), (4, 6)),
    "one way": (lambda b: nn.Parallel(nn.Identity(), backend=b), (4, 6)),
}


@pytest.mark.parametrize(("make", "shape"), VIEWS.values(), ids=VIEWS.keys())
def test_what_is_the_input_or_a_view_of_it_shares_its_memory(backend, torch, make, shape):
    x = torch.ones(shape).requires_grad_()
    y = make(backend)(x)
    require_outside(y)
    assert y.data_ptr() == x.data_ptr()
    assert x.requires_grad


def test_recording_goes_on_around_the_library(backend, torch):
    x = torch.ones((2, 3)).requires_grad_()
    F.relu(x)
    nn.ReLU(backend=backend)(x)
    assert torch.is_grad_enabled() and (x * 2).requires_grad


def test_functions_of_numpy_arrays_leave_the_recording_of_pytorch_alone(monkeypatch):
    torch = pytest.importorskip("torch")

    def refused():
        raise AssertionError("turning recording off takes longer than the function")

    monkeypatch.setattr(torch, "no_grad", refused)
    x, target = np.ones((2, 3), np.float32), np.zeros(2, np.int64)
    nn.functional.relu(x)
    nn.functional.cross_entropy_backward(1.0, x, target)
