"""Files in float16 and bfloat16 are read exactly and written rounded to nearest; other dtypes are refused."""

import json
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
import safetensors.numpy

import xpnn as nn
from xpnn.interop.safetensors import from_bytes, read, to_bytes


def stored(**arrays) -> bytes:
    """A file made by hand of ``name=(dtype, shape, bytes)``."""
    header, data = {}, b""
    for name, (dtype, shape, content) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def bfloat16(bits: int) -> float:
    """The number of sixteen bits: a sign, eight of the exponent, seven of the fraction."""
    sign, exponent, fraction = -1.0 if bits >> 15 else 1.0, (bits >> 7) & 0xFF, bits & 0x7F
    if exponent == 0xFF:
        return math.nan if fraction else sign * math.inf
    return sign * math.ldexp(fraction + 128 * (exponent > 0), max(exponent, 1) - 134)


def test_every_bfloat16_is_read_as_the_equal_float32():
    bits = range(1 << 16)
    found = from_bytes(stored(a=("BF16", [256, 256], struct.pack(f"<{1 << 16}H", *bits))), "a")[0]["a"]
    assert (found.dtype, found.shape) == (np.float32, (256, 256))
    assert np.array_equal(found.ravel(), np.array([bfloat16(each) for each in bits], np.float32), equal_nan=True)
    assert not np.signbit(found[0, 0]) and np.signbit(found[128, 0])


def test_every_float16_is_read_as_the_equal_float32():
    content = struct.pack(f"<{1 << 16}H", *range(1 << 16))
    found = from_bytes(stored(a=("F16", [1 << 16], content)), "a")[0]["a"]
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array([x for (x,) in struct.iter_unpack("<e", content)]), equal_nan=True)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_scalars_and_arrays_without_entries_are_read(dtype):
    one = struct.pack("<H", 0x3C00 if dtype == "F16" else 0x3F80)
    arrays, about = from_bytes(stored(scalar=(dtype, [], one), none=(dtype, [0, 3], b"")), "a")
    assert about == {}
    assert isinstance(arrays["scalar"], np.ndarray) and arrays["scalar"].shape == () and arrays["scalar"] == 1.0
    assert arrays["none"].shape == (0, 3) and arrays["none"].dtype == np.float32


def nearest(x: float) -> float:
    """The bfloat16 that is nearest to a number, by rational arithmetic; of two the one with an even last bit."""
    if not math.isfinite(x):
        return x
    near = [b for b in range(1 << 15) if math.isfinite(bfloat16(b))]
    lower, upper = 0, len(near)
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (middle, upper) if bfloat16(near[middle]) <= abs(x) else (lower, middle)
    two = near[lower : lower + 2]
    bits = min(two, key=lambda b: (abs(Fraction(bfloat16(b)) - abs(Fraction(x))), b & 1))
    return math.copysign(bfloat16(bits), x)


ULP = 2.0**-7
CASES = [0.0, -0.0, 1.0, 1 / 3, -1e-3, 3.3e38, -(2.0**-133), 2.0**-134, 2.0**-140, 1e-45, math.inf, -math.inf]
# Between two neighbours, and on either side of the middle by the last bit of float32 and of float64.
CASES += [1 + k * ULP / 2 + e for k in (1, 3, 5) for e in (0.0, 2.0**-23, -(2.0**-23), 2.0**-40, -(2.0**-40), 2.0**-52)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bfloat16_is_written_to_the_nearest_and_ties_to_even(dtype):
    with np.errstate(under="ignore"):
        x = np.array([*CASES, *(-c for c in CASES)], dtype)
    found = from_bytes(to_bytes({"a": x}, {}, "bfloat16"), "a")[0]["a"]
    wanted = np.array([nearest(float(each)) for each in x], np.float32)
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_nan_stays_nan_in_every_dtype(dtype):
    # The bits of the last are all in the half that bfloat16 drops, or all ones.
    x = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(from_bytes(to_bytes({"a": x}, {}, dtype), "a")[0]["a"]).all()


def test_the_bytes_are_those_of_pytorch(torch, tmp_path):
    loading = pytest.importorskip("safetensors.torch", reason="no PyTorch for safetensors")
    rng = np.random.default_rng(0)
    for dtype, wide in (("bfloat16", np.float32), ("float16", np.float32), ("bfloat16", np.float64)):
        x = (rng.standard_normal((40, 50)) * 10.0 ** rng.integers(-7, 4, (40, 50))).astype(wide)
        there = loading.load(to_bytes({"a": x, "n": np.array(3)}, {}, dtype))
        assert str(there["a"].dtype) == f"torch.{dtype}" and there["n"].dtype == torch.int64
        if wide is np.float32:
            assert torch.equal(there["a"], torch.from_numpy(x).to(there["a"].dtype))
        back = from_bytes(loading.save({"a": there["a"]}), "a")[0]["a"]
        assert np.array_equal(back, there["a"].float().numpy())


def test_a_model_is_written_and_read_in_each_dtype(at, tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), backend=at.backend, seed=1)
    before = {name: at.get(array).copy() for name, array in model.state_dict().items()}
    for dtype, code, worst in (("float16", "F16", 2.0**-11), ("bfloat16", "BF16", 2.0**-8), ("float32", "F32", 0.0)):
        path = tmp_path / dtype
        nn.save(model, path, {"epoch": 3}, dtype=dtype)
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert {header[name]["dtype"] for name in before} <= {code, "I64"}
        other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), backend=at.backend, seed=2)
        assert nn.load(other, path) == {"epoch": 3}
        for name, array in other.state_dict().items():
            found = at.get(array)
            assert found.dtype == before[name].dtype, name
            assert (np.abs(found - before[name]) <= worst * np.abs(before[name])).all(), name
    assert all(np.array_equal(at.get(array), before[name]) for name, array in model.state_dict().items())


def test_the_file_is_the_same_one_without_a_dtype_and_in_the_models(tmp_path):
    model = nn.Dense(3, 2, seed=0)
    nn.save(model, tmp_path / "a")
    nn.save(model, tmp_path / "b", dtype="float32")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("dtype", "value"), [("float16", 65520.0), ("bfloat16", 3.4e38), ("float32", 1e39)])
def test_numbers_beyond_a_dtype_are_refused_and_nothing_is_written(tmp_path, dtype, value):
    model = nn.Dense(2, 2, backend=nn.get_backend("numpy", "float64"))
    nn.save(model, tmp_path / "w")
    before = (tmp_path / "w").read_bytes()
    model.load_state_dict({"weight": np.array([[0.0, -value], [1.0, math.inf]]), "bias": np.zeros(2)})
    with pytest.raises(ValueError, match=rf"weight reaches .*, which {dtype} can't hold"):
        nn.save(model, tmp_path / "w", dtype=dtype)
    assert (tmp_path / "w").read_bytes() == before
    model.load_state_dict({"weight": np.array([[0.0, -1.0], [1.0, math.inf]]), "bias": np.zeros(2)})
    nn.save(model, tmp_path / "w", dtype=dtype)
    assert read(tmp_path / "w")[0]["weight"][1, 1] == math.inf


@pytest.mark.parametrize("dtype", ["half", "int8", "", np.int8, [], 16])
def test_another_dtype_is_refused(tmp_path, dtype):
    with pytest.raises(ValueError, match="dtype must be 'float32', 'float64', 'float16' or 'bfloat16', got"):
        nn.save(nn.Dense(2, 2), tmp_path / "w", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "C64", "FOO", "", None, ["F32"], 3])
def test_a_dtype_without_a_numpy_equivalent_is_named(tmp_path, dtype):
    (tmp_path / "w").write_bytes(stored(weight=(dtype, [2], b"\0\0")))
    with pytest.raises(ValueError, match=r"w: weight is .*, which is not read; convert it to one of F64, F32") as error:
        nn.load(nn.Dense(2, 1), tmp_path / "w")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool"])
def test_integers_and_booleans_are_not_loaded_as_weights(tmp_path, kind):
    safetensors.numpy.save_file({"weight": np.ones((2, 2), kind), "bias": np.ones(2, kind)}, tmp_path / "w")
    with pytest.raises(ValueError, match=f"weight holds {kind}, expected float"):
        nn.load(nn.Dense(2, 2), tmp_path / "w")


def claims(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


HUGE = 1 << 50
DAMAGE = {
    "a huge array": stored(weight=("F32", [HUGE], b"\0" * 8)),
    "a huge offset": claims(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,%d]}}' % HUGE, b"\0" * 4),
    "overlapping": claims(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"\0" * 4,
    ),
    "offsets that are none": claims(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,"x"]}}'),
    "no offsets": claims(b'{"a":{"dtype":"F32","shape":[1]}}'),
    "an array that is none": claims(b'{"a":3}'),
    "a list": claims(b"[1, 2]"),
    "deep": claims(b"[" * 100_000),
    "deep metadata": claims(json.dumps({"__metadata__": {"xpnn": "[" * 100_000}}).encode()),
    "a list in the metadata": claims(json.dumps({"__metadata__": {"xpnn": "[1]"}}).encode()),
    "a number in the metadata": claims(json.dumps({"__metadata__": {"xpnn": 3}}).encode()),
    "a header of no bytes": struct.pack("<Q", 0),
    "a header beyond the end": struct.pack("<Q", 1 << 40) + b"{}",
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_headers_raise_one_line_and_do_not_change_the_model(tmp_path, case):
    (tmp_path / "w").write_bytes(DAMAGE[case])
    model = nn.Dense(2, 2)
    before = model.parameters["weight"].value.copy()
    with pytest.raises(ValueError, match="w is not a complete safetensors file") as error:
        nn.load(model, tmp_path / "w")
    assert len(str(error.value).splitlines()) == 1
    assert np.array_equal(model.parameters["weight"].value, before)


@pytest.mark.parametrize("dtype", [np.float16, np.dtype("float16"), "float16"])
def test_a_dtype_may_be_a_name_or_an_object(tmp_path, dtype):
    nn.save(nn.Dense(2, 3, seed=0), tmp_path / "a", dtype=dtype)
    assert safetensors.numpy.load_file(tmp_path / "a")["weight"].dtype == np.float16
