"""`assert_match` passes arrays that are equal up to rounding; otherwise it reports what differs, where and how much."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match, ulp_distance
from xpnn.testing.tolerances import EPS, TABLE, tolerance

LEVELS = ["exact", "elementwise", "reduction", "network"]


def differs(actual, desired, match, **options):
    with pytest.raises(AssertionError, match=match) as caught:
        assert_match(actual, desired, **options)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_equal_arrays_match_at_every_level(at, dtype):
    host = np.array([[0, 1, 2], [3, 0, 5]]).astype(dtype)
    for level in LEVELS:
        assert_match(at.put(host), host, level=level, backend=at.backend, dtype=dtype)
        assert_match(at.put(host), at.put(host), level=level)


def test_numbers_without_a_dtype_are_compared_unchanged(at):
    assert_match(at.put([1.0, 2.0]), [1.0, 2.0], level="exact")
    assert_match(at.put(np.float32(3.0)), 3.0, level="exact")


def test_empty_arrays_match_if_their_shapes_do(at):
    empty = at.put(np.zeros((0, 3), np.float32))
    assert_match(empty, np.zeros((0, 3), np.float32), level="exact")
    differs(empty, np.zeros((3, 0), np.float32), r"shape \(0, 3\), expected \(3, 0\)")


def test_another_backend_is_named_in_the_message(at):
    other = "strict:device2" if at.backend.spec == "numpy" else "numpy"
    x = at.put([1.0])
    differs(x, [1.0], f"y is on {at.backend.spec}, expected {other}", backend=other, name="y")
    assert_match(x, [1.0], backend=at.backend.spec)


def test_the_backend_argument_does_not_check_the_dtype(at):
    assert_match(at.put([1.0]), [1.0], backend=at.wide())


def test_another_dtype_is_reported_before_values(at):
    x = at.put(np.float32([1.0]))
    differs(x, np.array([2.0]), "dtype float32, expected float64")
    differs(x, [1.0], "dtype float32, expected float64", dtype="float64")
    differs(at.put(np.array([1])), np.array([1.0]), "dtype int64, expected float64")
    assert_match(x, np.array([1.0]), dtype="float32")


def test_another_shape_is_never_broadcast(at):
    for shape in [(1,), (3,), (1, 3), (3, 1), ()]:
        differs(at.put(np.ones((1, 1, 3))), np.ones(shape), "shape")


@pytest.mark.parametrize(
    ("actual", "desired"),
    [
        ([1.0, np.nan, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, np.nan, 3.0]),
        ([1.0, np.inf, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, np.inf, 3.0]),
        ([1.0, -np.inf, 3.0], [1.0, np.inf, 3.0]),
        ([1.0, np.inf, 3.0], [1.0, np.nan, 3.0]),
        ([np.nan, 2.0, np.nan], [np.nan, np.nan, np.nan]),
    ],
)
@pytest.mark.parametrize("level", ["exact", "network"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_and_infinity_must_be_at_the_same_indices(at, actual, desired, level, dtype):
    actual, desired = (np.array(values, dtype) for values in (actual, desired))
    message = differs(at.put(actual), desired, r"at \(1,\)", level=level, terms=10**6)
    assert f"got {actual[1]}" in message and f"expected {desired[1]}" in message


def test_nan_and_infinity_at_the_same_indices_match(at):
    host = np.float32([np.nan, np.inf, -np.inf, 1.0])
    assert_match(at.put(host), host, level="exact")
    near = np.nextafter(host, np.float32(2.0), where=np.isfinite(host), out=host.copy())
    assert_match(at.put(host), near)
    differs(at.put(host), near, r"at \(3,\)", level="exact")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_ulp_is_too_much_at_level_exact(at, dtype):
    desired = np.ones((2, 3), dtype)
    actual = desired.copy()
    actual[1, 2] = np.nextafter(actual[1, 2], 2)
    message = differs(at.put(actual), desired, r"at \(1, 2\)", level="exact", name="dx")
    assert message.startswith("dx: ") and "1 ULP" in message
    assert str(actual[1, 2]) in message and f"relative {2 * EPS[dtype]:.3g}" in message
    assert_match(at.put(actual), desired, level="elementwise")


def test_the_sign_of_zero_is_not_compared(at):
    assert_match(at.put(np.float32([-0.0])), np.float32([0.0]), level="exact")


@pytest.mark.parametrize("level", ["elementwise", "reduction", "network"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("terms", [1, 100])
@pytest.mark.parametrize("scale", [1.0, 256.0, 2.0**-20])
def test_the_tolerance_is_relative_to_the_largest_value(level, dtype, terms, scale):
    allowed = TABLE[level]["forward"].c * terms**0.5 * EPS[dtype]
    desired = np.array([1.0, 0.25, 0.0], dtype) * scale
    for index in range(3):
        inside, outside = desired.copy(), desired.copy()
        inside[index] -= 0.99 * allowed * scale
        outside[index] -= 1.01 * allowed * scale + 2 * EPS[dtype] * desired[index]
        assert_match(inside, desired, level=level, terms=terms)
        message = differs(outside, desired, rf"at \({index},\)", level=level, terms=terms)
        assert f"sums of {terms}" in message and level in message and "allowed" in message


def test_the_worst_entry_is_named_not_the_first():
    desired = np.ones(5)
    differs(desired + np.array([0, 1e-3, 0, -1e-2, 1e-4]), desired, r"at \(3,\) got 0.99, expected 1.0")


def test_zeros_are_compared_on_the_scale_of_one():
    zeros = np.zeros(3, np.float32)
    assert_match(zeros + np.float32(1e-7), zeros)
    differs(zeros + np.float32(1e-5), zeros, "largest value 0")
    differs(zeros + np.float32(1e-40), zeros, "ULP", level="exact")


def test_integers_and_booleans_match_exactly_or_not(at):
    message = differs(at.put(np.array([[1, 2], [3, 5]])), np.array([[1, 2], [3, 4]]), r"at \(1, 1\) got 5, expected 4")
    assert "ULP" not in message
    differs(at.put(np.array([True, True])), np.array([True, False]), r"at \(1,\)", level="network")


def test_float64_references_are_compared_in_float64():
    third = 1.0 / 3.0
    assert_match(np.float32([third]), [third])
    differs(np.float32([third]), [third], r"at \(0,\)", level="exact")


def test_an_unknown_level_raises_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'exact', 'elementwise', 'reduction', 'network', .*, got 'loose'"):
        assert_match(np.ones(2), np.ones(2), level="loose")
    assert tolerance("exact", "float32", 10**6) == 0.0


def test_objects_that_are_no_arrays_are_refused():
    with pytest.raises(TypeError, match="the argument must be an array of a backend, got list"):
        assert_match([1.0], [1.0])


def test_it_is_public():
    assert nn.testing.assert_match is assert_match


@pytest.mark.parametrize(("dtype", "tiny"), [("float32", 2.0**-149), ("float64", 2.0**-1074)])
def test_ulp_distance_counts_floating_point_numbers(dtype, tiny):
    eps, top = np.finfo(dtype).eps, np.finfo(dtype).max
    known = [
        (1.0, 1.0, 0),
        (1.0, 1.0 + eps, 1),
        (1.0, 1.0 - eps, 2),
        (1.0, 2.0, round(1 / eps)),
        (-1.0, -1.0 - eps, 1),
        (0.0, -0.0, 0),
        (0.0, tiny, 1),
        (-tiny, tiny, 2),
        (-0.0, tiny, 1),
        (top, np.inf, 1),
        (-top, -np.inf, 1),
        (np.inf, np.inf, 0),
        (np.nan, np.nan, 0),
        (np.nan, 1.0, np.iinfo(np.int64).max),
        (np.inf, np.nan, np.iinfo(np.int64).max),
    ]
    a, b, distance = (list(column) for column in zip(*known, strict=True))
    a, b = np.array(a, dtype), np.array(b, dtype)
    assert ulp_distance(a, b).tolist() == distance
    assert ulp_distance(b, a).tolist() == distance
    assert ulp_distance(np.copysign(np.nan, -1).astype(dtype)[None], a[-3:-2]).tolist() == [0]


def test_ulp_distance_across_all_of_float64_does_not_overflow():
    top = np.finfo("float64").max
    assert ulp_distance(np.array([-top]), np.array([top])).tolist() == [np.iinfo(np.int64).max]
    top = np.finfo("float32").max
    assert ulp_distance(np.float32([-top]), np.float32([top])).tolist() == [2 * 0x7F7FFFFF]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
def test_ulp_distance_keeps_the_shape(shape):
    distance = ulp_distance(np.ones(shape), np.ones(shape))
    assert distance.shape == shape and distance.dtype == np.int64


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_ulp_distance_in_any_memory_layout(dtype):
    a, b = np.ones((4, 3), dtype), np.ones((4, 3), dtype) * (1 + np.finfo(dtype).eps)
    assert (ulp_distance(a[::-2, 1:], b[::-2, 1:]) == 1).all()
    assert (ulp_distance(a.T, b.T) == 1).all()
    assert (ulp_distance(a.astype(f">{dtype}"), b.astype(f">{dtype}")) == 1).all(), "big-endian"


@pytest.mark.parametrize(("one", "other"), [("float32", "float64"), ("int64", "int64"), ("float16", "float16")])
def test_ulp_distance_requires_one_floating_dtype(one, other):
    with pytest.raises(TypeError, match=f"got {one} and {other}"):
        ulp_distance(np.ones(2, one), np.ones(2, other))
