"""Upsampling by interpolation, to sizes and by fractions, and pixel shuffles: PyTorch's values, shapes and errors."""

import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn import functional as F
from xpnn.testing import assert_match, gradcheck

F32 = np.float32
SHAPES = {"linear": (2, 3, 7), "bilinear": (2, 3, 5, 4), "bicubic": (2, 3, 5, 4), "trilinear": (1, 2, 3, 4, 2)}
NEAREST = ("nearest", "nearest-exact")
RESIZED = {
    "by 2": {"scale_factor": 2},
    "by a fraction": {"scale_factor": 1.7},
    "smaller": {"scale_factor": 0.6},
    "to a size": {"size": 9},
    "to one cell": {"size": 1},
    "to the same size by a factor": {"scale_factor": 1.1},
}


def numbers(rng, shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def compared(at, torch, x, dy, options, form):
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.interpolate(tx, **options)
    dy = dy[tuple(slice(n) for n in ty.shape)]
    (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy))
    assert_match(F.upsample(at.put(x), **options), ty.detach(), **form)
    assert_match(F.upsample_backward(at.put(dy), x.shape, **options), tdx, **form)
    layer = nn.Upsample(**options, backend=at.backend)
    layer.to(at.backend, form["dtype"])
    assert_match(layer(at.put(x)), ty.detach(), **form)
    assert_match(layer.backward(at.put(dy)), tdx, **form)
    assert layer.output_shape(x.shape) == tuple(ty.shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resized", RESIZED.values(), ids=RESIZED)
@pytest.mark.parametrize("align", [None, False, True])
@pytest.mark.parametrize("mode", SHAPES)
def test_interpolation_matches_pytorch(at, torch, rng, mode, align, resized, dtype):
    x = numbers(rng, SHAPES[mode], dtype)
    dy = numbers(rng, (2, 3, *(14,) * (x.ndim - 2)), dtype)
    if resized == {"scale_factor": 1.1} and mode == "bicubic":
        # If no axis changes its size PyTorch's backward copies, though its forward does not.
        resized = {"scale_factor": (1.1, 1.3)}
    options = {**resized, "mode": mode, "align_corners": align}
    # In float32 PyTorch's positions are rounded too.
    compared(at, torch, x, dy, options, {"level": "network", "terms": 64, "backend": at.backend, "dtype": dtype})


@pytest.mark.parametrize("resized", RESIZED.values(), ids=RESIZED)
@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 2, 4, 5), (1, 2, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("mode", NEAREST)
def test_the_nearest_cell_is_pytorch_s(at, torch, rng, mode, shape, resized):
    if resized == {"scale_factor": 1.1}:
        # With one or three spatial axes PyTorch moves cells although the size stays.
        shape = (1, 2, 4, 5)
    x, dy = numbers(rng, shape), numbers(rng, (2, 3, *(14,) * (len(shape) - 2)))
    form = {"level": "reduction", "terms": 100, "backend": at.backend, "dtype": "float32"}
    compared(at, torch, x, dy, {**resized, "mode": mode}, form)


@pytest.mark.parametrize("mode", NEAREST)
def test_the_nearest_cell_is_pytorch_s_for_all_small_sizes(torch, mode):
    for n in range(1, 25):
        x = np.arange(n, dtype=F32)[None, None]
        for size in range(1, 40):
            ty = torch.nn.functional.interpolate(torch.tensor(x), size=size, mode=mode)
            assert np.array_equal(F.upsample(x, size=size, mode=mode), ty), (n, size)
        for scale in (0.5, 0.7, 1.1, 1.3, 1.6, 1.9, 2.0, 2.2, 2.3, 3.7):
            if n * scale >= 1 and (mode == "nearest-exact" or int(n * scale) != n):
                ty = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=scale, mode=mode)
                assert np.array_equal(F.upsample(x, scale, mode=mode), ty), (n, scale)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align", [False, True])
def test_interpolation_matches_pytorch_for_all_small_sizes(torch, rng, mode, align):
    for n in range(1, 9):
        x = numbers(rng, (1, 1, n, 3), "float64")
        for size in range(1, 14):
            options = {"size": (size, 4), "mode": mode, "align_corners": align}
            ty = torch.nn.functional.interpolate(torch.tensor(x), **options)
            assert_match(F.upsample(x, **options), ty, level="reduction", terms=16)


@pytest.mark.parametrize("mode", ["linear", "bilinear", "bicubic"])
def test_nan_spreads_as_far_as_in_pytorch(torch, rng, mode):
    x = numbers(rng, (1, 1, *(6,) * len(SHAPES[mode][2:])))
    x[(0, 0, *(2,) * (x.ndim - 2))] = np.nan
    for options in ({"scale_factor": 2.0}, {"size": 11, "align_corners": True}, {"scale_factor": 0.5}):
        ty = torch.nn.functional.interpolate(torch.tensor(x), mode=mode, **options)
        assert np.array_equal(np.isnan(F.upsample(x, mode=mode, **options)), ty.isnan()), options


def test_corners_stay_if_they_are_aligned(at):
    y = F.upsample(at.put([[[1.0, 3.0]]]), size=5, mode="linear", align_corners=True)
    assert at.get(y).tolist() == [[[1, 1.5, 2, 2.5, 3]]]
    y = F.upsample(at.put([[[1.0, 3.0]]]), 2, mode="linear")
    assert at.get(y).tolist() == [[[1, 1.5, 2.5, 3]]]


def test_whole_factors_repeat_cells(at, rng):
    x = at.put(numbers(rng, (2, 3, 4, 5)))
    for scale in (2, (3, 1)):
        assert_match(F.upsample(x, scale), F.upsample_nearest(x, scale), level="exact", backend=at.backend)


def test_inputs_with_channels_last_and_without_samples(at, rng):
    host = numbers(rng, (2, 3, 4, 5))
    stored = at.put(np.ascontiguousarray(np.moveaxis(host, 1, -1)))
    view = at.xp.permute_dims(stored, (0, 3, 1, 2))
    y = F.upsample(view, 1.5, mode="bicubic")
    assert_match(y, F.upsample(at.put(host), 1.5, mode="bicubic"), level="exact", backend=at.backend)
    assert F.upsample(view[:0, ...], 2, mode="bilinear").shape == (0, 3, 8, 10)


CALLS = {
    "Upsample(1.5)": (1, 2, 4),
    "Upsample((0.5, 2.5))": (1, 2, 4, 3),
    "Upsample(None, size=(3, 7))": (1, 2, 4, 3),
    "Upsample(2, mode='bilinear')": (1, 2, 3, 2),
    "Upsample(2, mode='nearest-exact')": (1, 2, 3, 2),
    "Upsample(None, size=5, mode='linear', align_corners=True)": (2, 2, 3),
    "Upsample(1.7, mode='bicubic', align_corners=False)": (1, 2, 3, 4),
    "Upsample((2, 1, 1.5), mode='trilinear')": (1, 1, 2, 2, 3),
    "PixelShuffle(2)": (2, 8, 2, 3),
    "PixelUnshuffle(3)": (2, 1, 6, 3),
}


@pytest.mark.parametrize("call", CALLS)
def test_repr_is_the_call_and_backward_the_derivative_of_forward(rng, call):
    layer = eval(call, vars(nn))
    assert repr(layer) == repr(pickle.loads(pickle.dumps(layer))) == call
    x = numbers(rng, CALLS[call], "float64")
    gradcheck(layer.to("numpy", "float64"), x)
    assert layer.output_shape(x.shape) == layer(x).shape


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_is_pytorch_s_and_unshuffle_its_inverse(at, torch, rng, factor):
    x = numbers(rng, (2, 2 * factor**2, 3, 4))
    layer, back = nn.PixelShuffle(factor, backend=at.backend), nn.PixelUnshuffle(factor, backend=at.backend)
    y = layer(at.put(x))
    assert_match(y, torch.nn.functional.pixel_shuffle(torch.tensor(x), factor), level="exact", backend=at.backend)
    assert_match(back(y), x, level="exact", backend=at.backend)
    assert_match(layer.backward(y), x, level="exact", backend=at.backend)
    assert_match(back.backward(at.put(x)), y, level="exact", backend=at.backend)
    unshuffled = torch.nn.functional.pixel_unshuffle(torch.tensor(at.get(y)), factor)
    assert_match(F.pixel_unshuffle(y, factor), unshuffled, level="exact", backend=at.backend)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Upsample(), "give either size or scale_factor, got size None and scale_factor None"),
        (lambda: nn.Upsample(2, 3), "give either size or scale_factor, got size 3 and scale_factor 2"),
        (lambda: nn.Upsample(-0.5), "scale_factor must be an integer >= 1, another number > 0, or one for each"),
        (lambda: nn.Upsample(size=0), "size must be an integer >= 1"),
        (lambda: nn.Upsample(2, mode="area"), "mode must be 'nearest', 'nearest-exact', 'linear', 'bilinear'"),
        (
            lambda: nn.Upsample(2, align_corners=True),
            "align_corners is for modes that interpolate, got True with mode 'nearest'",
        ),
        (lambda: nn.Upsample(2, mode="linear", align_corners=1), "align_corners must be True or False, got 1"),
        (
            lambda: nn.Upsample(2, mode="linear")(np.zeros((1, 1, 2, 2), F32)),
            "Upsample(2, mode='linear'): mode 'linear' is for 1 spatial axes, the input has 2 (shape (1, 1, 2, 2))",
        ),
        (
            lambda: nn.Upsample((2.0, 1.0))(np.zeros((1, 1, 2), F32)),
            "Upsample((2.0, 1.0)): scale_factor must have one number for each of 1 axes, got (2.0, 1.0)",
        ),
        (
            lambda: nn.Upsample(size=(2, 3))(np.zeros((1, 1, 2), F32)),
            "size must be an integer >= 1, or one for each of 1 axes, got (2, 3)",
        ),
        (
            lambda: nn.Upsample(0.3)(np.zeros((1, 1, 2), F32)),
            "input and output must have cells along every spatial axis, got (2,) and (0,)",
        ),
        (
            lambda: nn.PixelShuffle(2)(np.zeros((1, 6, 2, 2), F32)),
            "PixelShuffle(2): input must have shape (N, C, H, W) with a multiple of 4 channels, got (1, 6, 2, 2)",
        ),
        (
            lambda: nn.PixelUnshuffle(2)(np.zeros((1, 1, 3, 2), F32)),
            "PixelUnshuffle(2): input must have shape (N, C, H, W) with H and W multiples of 2, got (1, 1, 3, 2)",
        ),
        (lambda: nn.PixelShuffle(0), "upscale_factor must be an integer >= 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_errors(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
