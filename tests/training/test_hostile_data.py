"""Files that claim too much data, and paths that are no files, raise an error of one line and need little memory."""

import gzip
import io
import os
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import NO_FILES, limits, no_file

from xpnn.training.datasets import DataError, checks, load_dataset

X = np.random.default_rng(0).integers(0, 256, (20, 6, 5)).astype(np.uint8)
Y = np.arange(20) % 4
HUGE = 1 << 44


def refused(path, message):
    """Load it within limits; the error is one line that names the file."""
    with limits(), pytest.raises((DataError, OSError), match=message) as error:
        load_dataset(path)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 600
    assert str(path) in str(error.value)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array))
    return file.getvalue()


def member(shape, dtype="|u1", data=b"", version=1, length=None) -> bytes:
    """An array's file made by hand, with the given header."""
    text = (
        shape if isinstance(shape, bytes) else repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    )
    code = "<H" if version == 1 else "<I"
    length_field = struct.pack(code, len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + length_field + text + data


def archive(path, compressed=True, **members):
    """An archive with these bytes under these names, and good members for all others."""
    members = {"x.npy": npy(X), "y.npy": npy(Y), **{name.replace("__", "."): each for name, each in members.items()}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            if content is not None:
                file.writestr(name, content)
    return path


MEMBERS = {
    "a huge shape": (member((HUGE, 8, 8), data=b"0" * 64), "should hold .* entries of uint8, .* bytes, and has 64"),
    "a shape beyond 64 bits": (member((1 << 70, 8, 8)), "should hold|damaged header"),
    "a negative shape": (member((-20, 6, 5), data=X.tobytes()), "damaged header"),
    "a shape too short": (member((19, 6, 5), data=X.tobytes()), "and has 600"),
    "a huge header": (member((20, 6, 5), version=2, length=(1 << 32) - 1, data=X.tobytes()), "a header of 4294967295"),
    "a long header": (member(b" " * 60000, data=X.tobytes()), "a header of 60000 bytes"),
    "a deep header": (member(b"(" * 900), "damaged header"),
    "a header of minus signs": (member(b"-" * 900 + b"1"), "damaged header"),
    "a header that is no literal": (member(b"__import__('os').abort()"), "damaged header"),
    "a header that is a list": (member(b"[1]"), "damaged header"),
    "a list of fields": (member((20,), [("a", "<f4")], b"\0" * 80), "holds records; images and labels are"),
    "a void": (member((20,), "|V8", b"\0" * 160), "images and labels are plain numbers"),
    "objects": (npy(np.zeros(3)).replace(b"<f8", b"|O8"), "pickled objects, which can run code"),
    "version 3": (member((20, 6, 5), version=3, data=X.tobytes()), "version 3 of NumPy's format"),
    "text": (b"hello, world, this is no array", "is no array: it begins with"),
    "nothing": (b"", "is no array: it begins with nothing"),
    "half a header": (member((20, 6, 5))[:20], "damaged header"),
}


@pytest.mark.parametrize("name", ["x", "y", "x_test", "class_names"])
@pytest.mark.parametrize("case", MEMBERS)
def test_members_whose_headers_claim_too_much_are_refused(tmp_path, case, name):
    content, message = MEMBERS[case]
    path = archive(tmp_path / "a.npz", **{f"{name}__npy": content})
    refused(path, f"a.npz is not a readable .npz file of numbers .*{message}")


def test_a_member_that_is_no_array_is_refused(tmp_path):
    refused(archive(tmp_path / "a.npz", x__npy=None, x=b"12345"), "x is no array; numpy.savez writes arrays")


def test_other_members_do_no_harm(tmp_path):
    data = load_dataset(archive(tmp_path / "a.npz", more=b"12345", notes__txt=b"hello", z__npy=member((HUGE,))))
    assert np.array_equal(np.sort(data.whole()[0], axis=None), np.sort(X, axis=None))


def test_headers_of_old_numpy_versions_are_read(tmp_path):
    head = b"{'descr': '|u1', 'fortran_order': True, 'shape': (20L, 6L, 5L), }   \n"
    path = archive(tmp_path / "a.npz", x__npy=member(head, data=np.asfortranarray(X).tobytes(order="A"), version=2))
    assert {x.tobytes() for x in load_dataset(path).whole()[0]} == {x.tobytes() for x in X}


def test_a_member_with_another_checksum_is_refused(tmp_path):
    path = archive(tmp_path / "a.npz", compressed=False)
    content = path.read_bytes()
    place = content.index(X.tobytes())
    path.write_bytes(content[:place] + b"\0\1" + content[place + 2 :])
    refused(path, "Bad CRC-32")


def bomb(path, head: bytes, megabytes: int):
    """An archive whose x is a header and megabytes of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("y.npy", npy(Y))
        with file.open("x.npy", "w") as target:
            target.write(head)
            for _ in range(megabytes):
                target.write(bytes(1 << 20))
    return path


def test_a_huge_member_of_zeros_is_refused_before_it_is_decompressed(tmp_path):
    path = bomb(tmp_path / "a.npz", member((300, 1024, 1024)), 300)
    refused(path, "grows from .* to 314572800 bytes when it is unpacked")


def test_black_images_are_no_attack(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((50, 400, 400), np.uint8), y=np.arange(50) % 2)
    assert load_dataset(tmp_path / "a.npz").image == (1, 400, 400)


def test_an_archive_may_not_claim_more_than_its_bytes_can_hold(tmp_path):
    path = archive(tmp_path / "a.npz", x__npy=member((1 << 30, 8, 8), data=X.tobytes()))
    size = 64 << 30
    # The same claim in the central directory, where the reader looks.
    content, head = bytearray(path.read_bytes()), len(member((1 << 30, 8, 8)))
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", (size + head) & 0xFFFFFFFF)
    path.write_bytes(content)
    refused(path, "a.npz is not a readable .npz file of numbers")


def test_a_size_larger_than_the_memory_is_refused():
    with pytest.raises(DataError, match="more than the memory"):
        checks.decompressed(io.BytesIO(), HUGE, HUGE, "x")


@pytest.mark.parametrize("flag", ["encrypted", "bzip2"])
def test_archives_that_numpy_does_not_write_are_refused(tmp_path, flag):
    path = archive(tmp_path / "a.npz")
    if flag == "bzip2":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
            file.writestr("x.npy", npy(X))
        refused(path, "compressed by another method")
        return
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(mark) + at] |= 1
    path.write_bytes(content)
    refused(path, "is encrypted")


def test_random_damage_of_an_archive_is_harmless_or_raises_one_line(tmp_path):
    whole = archive(tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(3)
    outcomes = set()
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            content[place] ^= 1 << int(rng.integers(0, 8))
        (tmp_path / "b.npz").write_bytes(content[: len(whole) if rng.random() < 0.8 else rng.integers(0, len(whole))])
        try:
            load_dataset(tmp_path / "b.npz")
            outcomes.add("read")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_path_that_is_no_file_is_refused(tmp_path, kind):
    path = no_file(kind, tmp_path / "a.npz")
    with limits(), pytest.raises((DataError, OSError)) as error:
        load_dataset(path)
    assert str(path) in str(error.value)
    if kind in ("a pipe", "a device"):
        assert f"no data file {path}: it is {kind}" in str(error.value)


def test_other_paths_are_refused_too(tmp_path):
    with limits():
        for path in ("/dev/zero", "/dev/null", "a\0b", "x" * 300):
            with pytest.raises((DataError, OSError)):
                load_dataset(path)
    for source in (None, 3, ["a"], b"digits"):
        with pytest.raises(TypeError, match="source must be 'digits' or the path"):
            load_dataset(source)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_to_read_raises_permission_error(tmp_path):
    path = archive(tmp_path / "a.npz")
    path.chmod(0)
    with pytest.raises(PermissionError):
        load_dataset(path)


def test_a_failed_read_is_reported(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.npz")

    def denied(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", denied)
    with pytest.raises(PermissionError, match="Permission denied"):
        load_dataset(path)


def idx(shape, data=b"", code=8) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def mnist(folder, images: bytes, ending: str):
    (folder / f"train-images-idx3-ubyte{ending}").write_bytes(gzip.compress(images) if ending else images)
    labels = idx((12,), bytes(np.arange(12) % 3))
    (folder / f"train-labels-idx1-ubyte{ending}").write_bytes(gzip.compress(labels) if ending else labels)
    return folder


MOST = (1 << 32) - 1
SIZES = {
    "huge": (idx((MOST, MOST, MOST), b"\0" * 240), "entries of 1 byte|more than .* can hold"),
    "huge numbers": (idx((MOST, 28, 28), b"\0" * 240, 0x0E), "entries of 8 byte|more than .* can hold"),
    "many dimensions": (idx((1,) * 255, b"\0"), "has 255 dimensions"),
    "many huge dimensions": (idx((MOST,) * 255, b"\0"), "has 255 dimensions"),
    "none": (idx((0, MOST, MOST)), "which is none"),
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("case", SIZES)
def test_idx_files_with_impossible_sizes_are_refused(tmp_path, case, ending):
    content, message = SIZES[case]
    refused(mnist(tmp_path, content, ending), message)


def test_a_compressed_idx_file_of_zeros_is_refused_before_it_is_decompressed(tmp_path):
    mnist(tmp_path, b"", ".gz")
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(idx((300, 1024, 1024)))
        for _ in range(300):
            file.write(bytes(1 << 20))
    refused(tmp_path, "grows from .* when it is unpacked")


def test_a_compressed_idx_file_is_not_decompressed_beyond_its_entries(tmp_path):
    mnist(tmp_path, b"", ".gz")
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(idx((12, 5, 4)))
        for _ in range(200):
            file.write(bytes(1 << 20))
    refused(tmp_path, "240 bytes, and has more")


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "a link to itself"])
def test_an_idx_path_that_is_no_file_is_missing(tmp_path, kind):
    mnist(tmp_path, idx((12, 5, 4), b"\0" * 240), "")
    (tmp_path / "train-images-idx3-ubyte").unlink()
    no_file(kind, tmp_path / "train-images-idx3-ubyte")
    refused(tmp_path, "has no train-images-idx3-ubyte")


def cifar(folder, records=3):
    for name in [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(b"".join(bytes([k % 10]) + bytes(3072) for k in range(records)))
    return folder


def test_cifar_files_that_are_too_large_are_refused(tmp_path):
    with (cifar(tmp_path) / "data_batch_2.bin").open("r+b") as file:
        file.truncate(3073 << 28)
    refused(tmp_path, "data_batch_2.bin has 268435456 images, CIFAR-10 has 60000 in all")


@pytest.mark.parametrize("content", [b"a " * 100_000, b"a\nb\n", b"a " * 10], ids=["long", "few", "twice"])
def test_wrong_names_of_cifar_are_refused(tmp_path, content):
    (cifar(tmp_path) / "batches.meta.txt").write_bytes(content)
    refused(tmp_path, r"batches\.meta\.txt (has 200000 bytes|names [12] classes)")


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "a link to itself"])
def test_a_cifar_path_that_is_no_file_is_missing(tmp_path, kind):
    (cifar(tmp_path) / "test_batch.bin").unlink()
    no_file(kind, tmp_path / "test_batch.bin")
    refused(tmp_path, "has no test_batch.bin")


def test_labels_beyond_the_integers_are_refused(tmp_path):
    for largest in (1 << 31, (1 << 63) + 5, (1 << 64) - 1):
        np.savez(tmp_path / "a.npz", x=X, y=np.array([*Y[1:], largest], np.uint64))
        with pytest.raises(DataError, match=f"label {largest}, out of range"):
            load_dataset(tmp_path / "a.npz")


def test_one_class_is_reported(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=X, y=np.zeros(20, int))
    load_dataset(tmp_path / "a.npz")
    assert "warning: a.npz has images of one class only (0)" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", x=X, y=np.ones(20, int), class_names=["ant", "bee"])
    load_dataset(tmp_path / "a.npz")
    assert "one class only (bee)" in capsys.readouterr().err
    for ending in ("", ".gz"):
        folder = tmp_path / f"idx{ending}"
        folder.mkdir()
        mnist(folder, idx((12, 5, 4), b"\0" * 240), ending)
        labels = idx((12,), bytes(12))
        (folder / f"train-labels-idx1-ubyte{ending}").write_bytes(gzip.compress(labels) if ending else labels)
        load_dataset(folder)
        assert "one class only (0)" in capsys.readouterr().err
    for name in cifar(tmp_path, 1).glob("*.bin"):
        assert name.read_bytes()[0] == 0
    (tmp_path / "a.npz").unlink()
    load_dataset(tmp_path)
    assert "one class only (0)" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_test=X[:5], y_test=Y[:5] * 0)
    load_dataset(tmp_path / "a.npz")
    assert capsys.readouterr().err == ""


def test_an_archive_may_have_three_parts(tmp_path):
    parts = {"x_valid": X[:3] // 2, "y_valid": Y[:3], "x_test": X[:2] // 3, "y_test": Y[:2]}
    for names in (parts, {name.replace("valid", "val"): each for name, each in parts.items()}):
        np.savez(tmp_path / "a.npz", x=X, y=Y, **names)
        data = load_dataset(tmp_path / "a.npz")
        assert np.array_equal(data.x_train[:, 0], X) and not data.whole_is_test
        for found, ending in ((data.validation(2), "valid"), (data.held_out(2), "test")):
            x = np.concatenate([x for x, _ in found])
            assert np.array_equal(x[:, 0], parts[f"x_{ending}"].astype(np.float32) * np.float32(data.scale))
            assert np.concatenate([y for _, y in found]).tolist() == parts[f"y_{ending}"].tolist()
        assert len(data.whole()[1]) == 25
        changed = {**parts, "y_valid": Y[1:4]}
        np.savez(tmp_path / "b.npz", x=X, y=Y, **changed)
        assert load_dataset(tmp_path / "b.npz").fingerprint != data.fingerprint
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_valid=X[:3], y_valid=Y[:3])
    data = load_dataset(tmp_path / "a.npz")
    assert data.x_valid is None and len(data.y_test) == 3
    assert [y.tolist() for _, y in data.validation()] == [y.tolist() for _, y in data.held_out()]
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_valid=X[:3], y_valid=Y[:3], x_val=X[:3], y_val=Y[:3])
    with pytest.raises(DataError, match="both x_valid and x_val"):
        load_dataset(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_valid=X[:3, :2], y_valid=Y[:3], x_test=X[:2], y_test=Y[:2])
    with pytest.raises(DataError, match="those of x_valid 1 x 2 x 5; they must be of one size"):
        load_dataset(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_valid=X[:3], y_valid=Y[:3] + 9, x_test=X[:2], y_test=Y[:2])
    with pytest.raises(DataError, match="validation labels run to 11, out of range for 4"):
        load_dataset(tmp_path / "a.npz")


NAMED = ["ant", "bee", "cat", "dög"]


@pytest.mark.parametrize("names", [np.array(NAMED), np.array([name.encode() for name in NAMED])])
def test_an_archive_may_name_its_classes(tmp_path, names):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    without = load_dataset(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=X, y=Y, class_names=names)
    data = load_dataset(tmp_path / "a.npz")
    assert (data.class_names, data.named) == (tuple(NAMED), True)
    assert (without.class_names, without.named) == (tuple("0123"), False)
    # The fingerprint is the same as without names.
    assert data.fingerprint == without.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "bee", "cat"], "labels run to 3, out of range for 3 classes"),
        (["ant", "bee", "cat", "ant"], "names a class twice"),
        (["ant", "bee", "cat", ""], "empty or unprintable"),
        (["ant", "bee", "cat", "\x1b[31m"], "empty or unprintable"),
        ([1, 2, 3, 4], "class_names of .* is int64"),
        ([["ant", "bee", "cat", "dog"]], r"of shape \(1, 4\)"),
        (np.array([b"ant", b"bee", b"cat", b"\xff"]), "no text in UTF-8"),
        (np.array(["ant", None, 1, 2], object), "pickled objects"),
    ],
)
def test_wrong_class_names_are_refused(tmp_path, names, message):
    np.savez(tmp_path / "a.npz", x=X, y=Y, class_names=names)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "a.npz")


def test_data_for_evaluation_may_be_small_and_leave_classes_out(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=X[:2], y=np.array([7, 7]))
    with pytest.raises(DataError, match="too few"):
        load_dataset(tmp_path / "a.npz")
    data = load_dataset(tmp_path / "a.npz", classes=10)
    assert data.class_names == tuple("0123456789") and data.whole_is_test
    assert data.whole()[1].tolist() == [7, 7] and len(data.y_test) == 0
    assert capsys.readouterr().err == ""
    with pytest.raises(DataError, match="out of range for 7 classes"):
        load_dataset(tmp_path / "a.npz", classes=7)
    with pytest.raises(ValueError, match="classes must be an integer >= 1, got 0"):
        load_dataset(tmp_path / "a.npz", classes=0)


def test_refused_files_are_closed(tmp_path):
    path = archive(tmp_path / "a.npz", x__npy=member((HUGE,)))
    count = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    for _ in range(5):
        with pytest.raises(DataError):
            load_dataset(path)
    if count:
        assert len(list(Path("/proc/self/fd").iterdir())) == count
