"""RMSNorm and LocalResponseNorm: against PyTorch and the written formulas of ONNX, and errors."""

import re

import numpy as np
import pytest

import xpnn as nn
from xpnn import functional as F
from xpnn.testing import assert_match, gradcheck

DTYPES = ["float32", "float64"]
RMS = {
    "last axis": ((3, 4, 5), 5, {}),
    "two axes": ((3, 4, 5), (4, 5), {"eps": 0.1}),
    "all axes": ((3, 4), (3, 4), {}),
    "one value": ((3, 1), 1, {"eps": 0.5}),
    "no samples": ((0, 4), 4, {}),
}
LOCAL = {
    "usual": ((2, 7, 3, 2), 5, {}),
    "size 1": ((2, 3, 4), 1, {"alpha": 0.5}),
    "even": ((2, 7, 3), 4, {"alpha": 2.0, "beta": 0.5, "k": 0.25}),
    "more than all channels": ((2, 3, 2, 1, 2), 11, {"alpha": 3.0, "beta": 1.5, "k": 2.0}),
    "one channel": ((2, 1, 3), 3, {"alpha": 0.5}),
    "no samples": ((0, 3, 4), 3, {}),
}
every_rms = pytest.mark.parametrize(("shape", "axes", "options"), RMS.values(), ids=RMS)
every_local = pytest.mark.parametrize(("shape", "size", "options"), LOCAL.values(), ids=LOCAL)


@pytest.mark.parametrize("dtype", DTYPES)
@every_rms
def test_rms_norm_matches_pytorch(at, torch, rng, shape, axes, options, dtype):
    sizes = axes if isinstance(axes, tuple) else (axes,)
    x, dy, w = (rng.standard_normal(s).astype(dtype) for s in (shape, shape, sizes))
    tx, tw = (torch.tensor(each, requires_grad=True) for each in (x, w))
    ty = torch.nn.functional.rms_norm(tx, sizes, tw, **options)
    tdx, tdw = torch.autograd.grad(ty, (tx, tw), torch.tensor(dy))
    form = {"level": "reduction", "terms": max(x.size, 1), "backend": at.backend, "dtype": dtype}
    assert_match(F.rms_norm(at.put(x), axes, at.put(w), **options), ty.detach(), **form)
    dx, dweight = F.rms_norm_backward(at.put(dy), at.put(x), axes, at.put(w), **options)
    assert_match(dx, tdx, **form)
    assert_match(dweight, tdw, **form)


@pytest.mark.parametrize("dtype", DTYPES)
@every_local
def test_local_response_norm_matches_pytorch(at, torch, rng, shape, size, options, dtype):
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    tx = torch.tensor(x, requires_grad=True)
    if shape[0]:
        ty = torch.nn.functional.local_response_norm(tx, size, **options)
        (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy))
    else:
        ty = tdx = torch.tensor(x)
    form = {"level": "reduction", "terms": 16, "backend": at.backend, "dtype": dtype}
    assert_match(F.local_response_norm(at.put(x), size, **options), ty.detach(), **form)
    assert_match(F.local_response_norm_backward(at.put(dy), at.put(x), size, **options), tdx, **form)


def test_local_response_norm_of_odd_size_is_the_formula_of_onnx(at, rng):
    x, size, alpha, beta, bias = rng.standard_normal((5, 6, 4, 3)), 3, 0.0002, 0.5, 2.0
    squares = np.zeros(x.shape)
    for n, c, h, w in np.ndindex(*x.shape):
        first, last = max(0, c - (size - 1) // 2), min(5, c + -(-(size - 1) // 2))
        squares[n, c, h, w] = sum(x[n, first : last + 1, h, w] ** 2)
    y = F.local_response_norm(at.put(x, "float32"), size, alpha=alpha, beta=beta, k=bias)
    assert_match(y, x / (bias + alpha / size * squares) ** beta, backend=at.backend, dtype="float32")


def test_eps_is_by_default_that_of_the_dtype(at):
    x = np.full((1, 4), 1e-4)
    for dtype in DTYPES:
        desired = x / np.sqrt(1e-8 + np.finfo(dtype).eps)
        y = F.rms_norm(at.put(x, dtype), 4)
        assert_match(y, desired, backend=at.backend, dtype=dtype)


def test_eps_is_that_of_float32_in_exact_numerics(exact):
    x = np.full((1, 4), 1e-4, np.float32)
    desired = (x.astype(np.float64) / np.sqrt(np.float64(x[0, 0]) ** 2 + np.finfo(np.float32).eps)).astype(np.float32)
    for affine in (False, True):
        y = nn.RMSNorm(4, elementwise_affine=affine, backend=exact)(exact.asarray(x))
        assert exact.to_numpy(y).tobytes() == desired.tobytes()


def test_nan_spreads_as_far_as_in_pytorch(torch, rng):
    x = rng.standard_normal((3, 6, 4)).astype(np.float32)
    x[1, 2, 3] = np.nan
    tx = torch.tensor(x)
    assert np.array_equal(np.isnan(F.rms_norm(x, 4)), torch.nn.functional.rms_norm(tx, (4,)).isnan().numpy())
    found = F.local_response_norm(x, 3)
    assert np.array_equal(np.isnan(found), torch.nn.functional.local_response_norm(tx, 3).isnan().numpy())


def test_weights_of_pytorch_load_by_name(torch, rng):
    theirs, ours = torch.nn.RMSNorm((3, 4), eps=0.25), nn.RMSNorm((3, 4), eps=0.25)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(rng.standard_normal((3, 4))))
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    assert_match(ours(x), theirs(torch.tensor(x)).detach())


CALLS = {
    "RMSNorm((4,))": (2, 3, 4),
    "RMSNorm((3, 4), eps=0.5)": (2, 3, 4),
    "RMSNorm((4,), elementwise_affine=False)": (2, 4),
    "LocalResponseNorm(3)": (2, 4, 3),
    "LocalResponseNorm(2, alpha=0.5, beta=2.0, k=0.5)": (2, 4, 3, 2),
}


@pytest.mark.parametrize("call", CALLS)
def test_repr_is_the_call_and_backward_the_derivative_of_forward(rng, call):
    layer = eval(call, {"RMSNorm": nn.RMSNorm, "LocalResponseNorm": nn.LocalResponseNorm})
    assert repr(layer) == call
    assert layer.output_shape(CALLS[call]) == CALLS[call]
    gradcheck(layer.to("numpy", "float64"), rng.standard_normal(CALLS[call]))


def test_without_input_grad_only_the_weight_has_a_gradient(rng):
    layer = nn.RMSNorm(4)
    y = layer(rng.standard_normal((2, 4)).astype(np.float32))
    assert layer.backward(y, input_grad=False) is None
    assert layer.parameters["weight"].grad is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.RMSNorm(()), "normalized_shape must be an integer >= 1, or one for each of the last axes, got ()"),
        (lambda: nn.RMSNorm(3, eps=-1), "eps must be a number >= 0, got -1"),
        (
            lambda: nn.RMSNorm(3)(np.zeros((2, 4), np.float32)),
            "RMSNorm((3,)): input must have shape (..., 3), got (2, 4)",
        ),
        (lambda: nn.LocalResponseNorm(0), "size must be an integer >= 1, got 0"),
        (lambda: nn.LocalResponseNorm(3, k=-1), "k must be a number >= 0, got -1"),
        (
            lambda: nn.LocalResponseNorm(3)(np.zeros((2, 4), np.float32)),
            "LocalResponseNorm(3): input must have shape (N, C, *spatial)",
        ),
    ],
)
def test_arguments_out_of_range_are_errors(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
