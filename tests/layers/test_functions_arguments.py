"""Every pure function with wrong arrays, shapes, axes and options: right, or the library's own error, on every backend.

A call is made that works, and one argument of it changed at a time. What is not listed as accepted must raise
`ValueError` or `TypeError` by a statement of this package, and what is accepted must give what NumPy gives.
"""

import inspect
import re
import traceback
from pathlib import Path

import numpy as np
import pytest
from function_calls import CALLS, FROM_INPUT, FROM_OUTPUT, LOSSES, PLANE, SUMS, array

import xpnn as nn
from xpnn.layers import functional as F

PACKAGE = Path(nn.__file__).parent
NAN, INF = float("nan"), float("inf")


#: Values that an option does not accept.
WRONG = {
    "algorithms": ["typo", None, 3],
    "align_corners": ["a", True, 2],
    "alpha": [NAN, INF, "a", None, True],
    "approximate": ["typo", None, 3],
    "axis": [7, -3, 1.5, "a", None, True],
    "beta": [NAN, INF, -1.0, "a", None, True],
    "causal": ["a", None, 2],
    "ceil_mode": ["a", None, 2],
    "count_include_pad": ["a", None, 2],
    "delta": [0, -1, NAN, INF, "a", None, True],
    "dilation": [0, -1, 1.5, "a", (1, 2, 3), None],
    "downscale_factor": [0, -1, 1.5, "a", None, True],
    "divisor_override": [0, -1, 1.5, "a", True],
    "dy": ["a", None, True, [1.0]],
    "eps": [-1, NAN, INF, "a", None],
    "from_logits": ["a", None, 2],
    "gamma": [-1.0, NAN, INF, "a", None, True],
    "groups": [0, 3, 1.5, "a", None, True],
    "k": [-1, NAN, INF, "a", None, True],
    "ignore_index": ["a", 1.5, None, True],
    "input_grad": ["a", None, 2],
    "kernel_size": [0, -1, 1.5, "a", (1, 2, 3), None, (), 99],
    "label_smoothing": [2.0, -1, NAN, "a", None, True],
    "lambd": [-1, NAN, INF, "a", None, True],
    "log_target": ["a", None, 2],
    "max": [NAN, "a", True],
    "max_val": [NAN, -2.0, "a", None, True],
    "min": [NAN, "a", True],
    "mode": ["typo", "bicubicc", None, 3],
    "min_val": [NAN, 2.0, "a", None, True],
    "negative_slope": [NAN, INF, "a", None, True],
    "num_embeddings": [0, -1, 1.5, "a", None, True],
    "norm_type": [0, 0.5, NAN, INF, "a", None, True],
    "normalized_shape": [0, 5, "a", None, (), (9,), 1.5],
    "num_groups": [0, 3, "a", None, 1.5],
    "output_padding": [-1, 5, "a", (0, 0, 0), None],
    "output_size": [0, -1, 1.5, "a", (1, 2, 3), ()],
    "padding_idx": [5, -6, 1.5, "a", True],
    "p": [-1, 2, NAN, "a", None, True],
    "padding": [-1, 1.5, "typo", (1, 2, 3), ((1, 2, 3), 1), None, (), 99],
    "reduction": ["typo", None, 3],
    "return_indices": ["a", None, 2],
    "scale_factor": [0, -1, 1.5, "a", (1, 2, 3), None, ()],
    "size": [0, -1, 1.5, "a", None, True],
    "smooth": [-1.0, NAN, INF, "a", None, True],
    "stride": [0, -1, 1.5, "a", (1, 2, 3), ()],
    "threshold": [NAN, INF, "a", None, True],
    "value": ["a", None, True],
    "upscale_factor": [0, -1, 1.5, "a", None, True],
    "x_shape": [(2, 4), (2, 4, 60, 50), (2, 4, 6.5, 5), (2, 4, -6, 5), "a", None, 5],
    "xp": ["a", 3],
}
# A padding of 99 is large but valid, except for pools and for transposed convolutions of a few cells.
RIGHT = [(re.compile(f"^({names})$"), re.compile(f"^({changes})$")) for names, changes in (
    (rf"erfc?|threshold|{'|'.join(FROM_INPUT)}|{'|'.join(FROM_OUTPUT)}", r"x: (?!integers|booleans|list|None).*"),
    ("hard_sigmoid(_backward)?", r"beta=-1\.0"),
    ("glu", r"x: (axis less|float64|.* along 0|empty along 1)"),
    ("huber(_backward)?", "delta=inf"),
        ("smooth_l1(_backward)?", "beta=inf"),
        ("prelu", r"x: (axis more|.* along 0)|weight: size 1 along 0"),
    ("prelu_backward", r"weight: size 1 along 0"),
    (r"binary_cross_entropy_with_logits(_backward)?", r"(pos_)?weight: (0-d|axis less|size 1 along 0)"),
    ("focal(_backward)?", "alpha=None"),
    ("dense", "x: .* along 0"),
    ("attention(_backward)?", r"keep: size 1 .*"),
    ("attention", r"v: .* along 3"),
    ("embedding", r"index: (?!floats|list|None).*|weight: (float64|(one more|size 1) along 0|.* along 1)"),
    ("embedding_backward", r"dy: (float64|.* along 1)"),
    ("dropout(_backward)?", "keep: size 1 .*|(x|dy): float64"),
    ("conv|conv_transpose", r"x: (.* along 0|one more along [23])|weight: (one more|size 1) along [23]"),
    ("conv", "padding=99"),
        ("conv_transpose", r"x: size 1 along [23]"),
    ("batch_norm|instance_norm|group_norm", r"x: (axis more|.* along [02])"),
    ("(layer|rms)_norm", r"x: (axis less|.* along 0)"),
    ("rms_norm(_backward)?", "eps=None"),
    ("local_response_norm", r"x: (?!integers|booleans|list|None|0-d).*"),
    ("local_response_norm(_backward)?", r"beta=-1\.0"),
    (".*_pool", r"x: (float64|.* along [01]|one more along [23])"),
    ("adaptive_.*_pool", r"x: size 1 along [23]"),
    ("(avg|max|lp)_pool", r"x: axis less"),
    ("(lp|max)_pool_backward", r"x: one more along 2"),
    ("(adaptive_max|adaptive_avg|avg)_pool_backward", "dy: float64"),
    ("adaptive_.*_pool_backward", r"x_shape=\(2, 4, 60, 50\)"),
    ("pad_constant|upsample_nearest", r"x: (?!integers|booleans|list|None|0-d).*|padding=99"),
    ("pad_replicate", r"x: (?!integers|booleans|list|None|0-d|empty along [23]).*|padding=99"),
    ("pad_circular", r"x: (?!integers|booleans|list|None|0-d|empty along [23]).*"),
    ("pad_reflect", r"x: (?!integers|booleans|list|None|0-d|(empty|size 1) along [23]|axis more).*"),
    ("pad_.*_backward", "dy: float64"),
    ("upsample", r"x: (?!integers|booleans|list|None|0-d|empty along [23]).*"),
    ("upsample_backward", "dy: float64"),
    ("upsample(_backward)?", r"scale_factor=1\.5|size=None"),
    ("pixel_shuffle", r"x: (float64|.* along [023]|empty along 1)"),
    ("pixel_shuffle_backward", r"dy: (float64|.* along [01]|empty along [23])"),
    ("pixel_unshuffle", r"x: (float64|.* along [0123])"),
    ("pixel_unshuffle_backward", r"dy: (float64|.* along [0123])"),
    ("upsample_nearest_backward", r"dy: (float64|axis less|.* along [01]|empty along [23])"),
)]  # fmt: skip
# Softmax, softmin and hardmax are over the last of two axes, which must exist and not be empty.
NOT_RIGHT = re.compile(r"((log_)?softmax|softmin|hardmax) \| x: (0-d|empty along 1)")


def is_right(name, change):
    return not NOT_RIGHT.match(f"{name} | {change}") and any(n.match(name) and c.match(change) for n, c in RIGHT)


def variants(host):
    """Variants of an array, each with the name of what differs."""
    yield "0-d", np.ones((), host.dtype)
    yield "axis more", host[..., np.newaxis]
    yield "axis less", np.asarray(host[0])
    for axis in range(host.ndim):
        before = (slice(None),) * axis
        yield f"one more along {axis}", np.concatenate([host, host[(*before, slice(1))]], axis=axis)
        yield f"size 1 along {axis}", host[(*before, slice(1))]
        yield f"empty along {axis}", host[(*before, slice(0))]
    if host.dtype.kind == "f":
        yield "integers", np.ones(host.shape, np.int64)
        yield "booleans", np.ones(host.shape, bool)
        yield "float64", host.astype(np.float64)
    else:
        yield "floats", np.ones(host.shape, np.float32)
    yield "list", host.tolist()


def changes(name):
    """All calls of a function with one argument changed."""
    call, parameters = CALLS[name], inspect.signature(getattr(F, name)).parameters
    for key, value in call.items():
        if isinstance(value, np.ndarray):
            for what, other in variants(value):
                yield f"{key}: {what}", call | {key: other}
            if parameters[key].default is inspect.Parameter.empty:
                yield f"{key}: None", call | {key: None}
    for key in parameters:
        if not isinstance(call.get(key), np.ndarray):
            for value in WRONG.get(key, ()):
                yield f"{key}={value!r}", call | {key: value}


def outcome(name, call, put, get):
    """The results of a call, as host arrays."""
    placed = {key: put(value) if isinstance(value, np.ndarray) else value for key, value in call.items()}
    y = getattr(F, name)(**placed)
    return [None if each is None else get(each) for each in (y if isinstance(y, tuple) else (y,))]


def is_own(error):
    """Whether an error was raised by a statement of the package, as one of the two that it documents."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    here = PACKAGE in Path(frame.filename).parents and frame.line.startswith("raise ")
    return type(error) in (TypeError, ValueError) and here


def host(array):
    return array


def test_every_function_has_a_call():
    assert CALLS.keys() == set(F.__all__)


def test_every_option_has_wrong_values():
    options = {key for name in F.__all__ for key in inspect.signature(getattr(F, name)).parameters}
    arrays = {key for call in CALLS.values() for key, value in call.items() if isinstance(value, np.ndarray)}
    assert options - arrays <= WRONG.keys()


# One variant of each library: the others run the same code on it.
@pytest.mark.parametrize("at", ["numpy", "strict", "torch", "cupy", "torch-cuda"], indirect=True)
@pytest.mark.parametrize("name", F.__all__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_one_wrong_argument_is_the_library_s_own_error_and_a_right_one_is_right(at, name):
    outcome(name, CALLS[name], at.put, at.get)
    for change, call in changes(name):
        try:
            found = outcome(name, call, at.put, at.get)
        except Exception as error:
            assert not is_right(name, change), (change, error)
            assert is_own(error), (change, error)
            assert str(error)[0].isalnum() and len(str(error)) < 400, str(error)
            continue
        assert is_right(name, change), (change, [None if each is None else each.shape for each in found])
        for a, b in zip(found, outcome(name, call, host, host), strict=True):
            assert (a is None and b is None) or (a.shape == b.shape and a.dtype == b.dtype), change
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=change)


@pytest.mark.parametrize(
    "name", [n for n in F.__all__ if n.removesuffix("_backward") in {*FROM_INPUT, *LOSSES, *SUMS, "relu"}]
)
@pytest.mark.parametrize("shape", [(), (0, 4), (3, 0), (1, 1, 2)], ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_arrays_of_any_one_shape_are_accepted(at, name, shape):
    arrays = {key: array(*shape) for key, value in CALLS[name].items() if isinstance(value, np.ndarray)}
    options = {} if name.removesuffix("_backward") not in LOSSES else {"reduction": "none"}
    if options and "dy" in CALLS[name]:
        arrays["dy"] = np.ones(shape, np.float32)
    if name.removesuffix("_backward") in SUMS and "dy" in CALLS[name]:
        arrays["dy"] = np.ones((), np.float32)
    (found,) = outcome(name, arrays | options, at.put, at.get)
    assert found.shape == (() if name in SUMS else shape)


@pytest.mark.parametrize("at", ["strict", "strict-device1", "torch", "cupy", "torch-cuda"], indirect=True)
@pytest.mark.parametrize("name", ["dense", "max_pool_backward", "cross_entropy"])
def test_arrays_of_two_libraries_are_refused(at, name):
    call = {key: at.put(value) if isinstance(value, np.ndarray) else value for key, value in CALLS[name].items()}
    first = next(key for key, value in CALLS[name].items() if isinstance(value, np.ndarray))
    with pytest.raises(TypeError, match=r"arrays must be of one library, got .*numpy") as caught:
        getattr(F, name)(**{**call, first: CALLS[name][first]})
    assert is_own(caught.value)


@pytest.mark.parametrize("value", [-2.0, 0.5])
def test_prelu_of_a_0_d_input_is_0_d(at, value):
    x, weight = at.put(np.array(value, np.float32)), at.put(np.array([0.25], np.float32))
    y = F.prelu(x, weight)
    dx, dweight = F.prelu_backward(at.put(np.array(3.0, np.float32)), x, weight)
    assert (y.shape, dx.shape, dweight.shape) == ((), (), (1,))
    assert at.get(y) == (value if value > 0 else value / 4)
    assert at.get(dx) == (3.0 if value > 0 else 0.75)
    assert at.get(dweight)[0] == (0.0 if value > 0 else 3 * value)
    with pytest.raises(ValueError, match=r"got \(2,\) for an input of shape \(\)"):
        F.prelu(x, at.put(np.zeros(2, np.float32)))


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_a_kernel_without_cells_is_refused(at, name, axis):
    shape = tuple(0 if i == axis else n for i, n in enumerate((4, 4, 3, 2)))
    with pytest.raises(ValueError, match="must have a kernel cell along each spatial axis"):
        getattr(F, name)(at.put(PLANE), at.put(np.zeros(shape, np.float32)))
