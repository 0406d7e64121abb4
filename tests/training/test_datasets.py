"""Datasets from files and scikit-learn: accepted data, the split, and the errors for other data."""

import hashlib

import numpy as np
import pytest

from xpnn import augment
from xpnn.training.datasets import DataError, load_dataset


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def images(n=20, *shape):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *(shape or (6, 5)))).astype(np.uint8), np.arange(n) % 4


def test_digits_are_the_1797_with_a_fifth_held_out():
    data = load_dataset("digits")
    assert data.image == (1, 8, 8)
    assert data.classes == 10
    assert len(data.y_train) + len(data.y_test) == 1797
    assert len(data.y_test) == pytest.approx(1797 / 5, abs=5)
    assert data.scale == 1 / 16


def test_held_out_part_has_its_share_of_every_class():
    data = load_dataset("digits")
    held_out, whole = np.bincount(data.y_test), np.bincount(data.whole()[1])
    assert np.abs(held_out - whole / 5).max() <= 0.5


def test_held_out_part_is_drawn_from_all_over_the_data(tmp_path):
    y = np.arange(200) % 2
    x = np.broadcast_to(np.arange(200.0)[:, None, None], (200, 4, 4))
    data = load_dataset(write(tmp_path / "a.npz", x=x, y=y))
    places = np.sort(data.x_test[:, 0, 0, 0])
    assert len(places) == 40
    assert places[0] < 40
    assert places[-1] > 160
    assert places[-1] - places[0] > 100


def test_split_is_the_same_each_time_and_has_every_sample():
    one, two = load_dataset("digits"), load_dataset("digits")
    assert np.array_equal(one.x_test, two.x_test)
    assert one.fingerprint == two.fingerprint
    rows = {image.tobytes() for image in one.x_train}
    assert sum(image.tobytes() in rows for image in one.x_test) == 0


def test_npz_without_channels_gets_one(tmp_path):
    x, y = images()
    data = load_dataset(write(tmp_path / "a.npz", x=x, y=y))
    assert data.image == (1, 6, 5)
    assert data.x_train.dtype == np.uint8
    assert data.scale == pytest.approx(1 / float(data.x_train.max()))
    assert len(data.y_test) == 4
    assert data.whole_is_test


def test_npz_with_its_own_held_out_part(tmp_path):
    x, y = images(12, 3, 6, 5)
    data = load_dataset(write(tmp_path / "a.npz", x=x, y=y, x_test=x[:3], y_test=y[:3]))
    assert data.image == (3, 6, 5)
    assert (len(data.y_train), len(data.y_test)) == (12, 3)
    assert not data.whole_is_test


def test_black_images_have_a_scale(tmp_path):
    _, y = images()
    assert load_dataset(write(tmp_path / "a.npz", x=np.zeros((20, 4, 4)), y=y)).scale == 1.0


X, Y = images()
BAD = {
    "no x": ({"y": Y}, "no array x; it holds y"),
    "no y": ({"x": X}, "no array y"),
    "lengths": ({"x": X, "y": Y[:5]}, "5 labels"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "at least 1"),
    "few": ({"x": X[:3], "y": Y[:3]}, "too few"),
    "vectors": ({"x": X[:, 0], "y": Y}, "images are"),
    "channels last": ({"x": np.zeros((20, 8, 8, 3)), "y": Y}, "transpose"),
    "float labels": ({"x": X, "y": Y * 1.0}, "labels are integers"),
    "matrix labels": ({"x": X, "y": np.eye(4, dtype=int)[Y]}, "labels are integers"),
    "negative label": ({"x": X, "y": Y - 1}, "label -1"),
    "huge label": ({"x": X, "y": Y * 1000}, "out of range"),
    "test label": ({"x": X, "y": Y, "x_test": X[:2], "y_test": Y[:2] + 9}, "out of range for 4 classes"),
    "test size": ({"x": X, "y": Y, "x_test": X[:2, :3], "y_test": Y[:2]}, "one size"),
    "half a test": ({"x": X, "y": Y, "x_test": X[:2]}, "only one of"),
    "nan": ({"x": np.full((20, 4, 4), np.nan), "y": Y}, "NaN"),
    "text": ({"x": np.full((20, 4, 4), "a"), "y": Y}, "images are integers or floats"),
    "objects": ({"x": np.array([None] * 20), "y": Y}, "not a readable"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_arrays_are_refused(tmp_path, case):
    arrays, message = BAD[case]
    with pytest.raises(DataError, match=message):
        load_dataset(write(tmp_path / "a.npz", **arrays))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no data file .*nowhere\.npz"):
        load_dataset(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "corrupt", "npy", "folder"])
def test_file_that_is_no_npz_is_refused(tmp_path, kind):
    path = write(tmp_path / "a.npz", x=X, y=Y)
    whole = path.read_bytes()
    if kind == "folder":
        path = tmp_path
    elif kind == "npy":
        path = tmp_path / "b.npy"
        np.save(path, X)
    else:
        middle = len(whole) // 3
        path.write_bytes(
            {
                "empty": b"",
                "text": b"x,y\n1,2\n",
                "truncated": whole[: len(whole) // 2],
                "corrupt": whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 40]) + whole[middle + 40 :],
            }[kind]
        )
    with pytest.raises(DataError):
        load_dataset(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds nothing; the data is digits, an .npz file, or a folder"),
        (["b.txt", "a.png", "sub/"], "holds a.png, b.txt, sub/; the data is"),
        ([f"{i}.csv" for i in range(7)], "4.csv and 2 more"),
    ],
)
def test_folder_without_known_files_is_refused_and_its_content_listed(tmp_path, names, message):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_the_error_for_an_archive_says_to_unpack_it(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="unpack it and name the folder"):
        load_dataset(tmp_path / "cifar-10-binary.tar.gz")


def test_arrays_are_not_resized(tmp_path):
    path = write(tmp_path / "a.npz", x=X, y=Y)
    assert load_dataset(path, image_size=(6, 5)).image == (1, 6, 5)
    with pytest.raises(DataError, match="are 6 x 5, not 5 x 6; only folders of images are resized"):
        load_dataset(path, image_size=(5, 6))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float16", "float32", "float64"])
def test_batches_and_fingerprint_are_those_of_images_in_float32(tmp_path, dtype):
    """Saved models store the fingerprint, which must not depend on the dtype of the images."""
    x = (np.random.default_rng(0).random((20, 3, 6, 5)) * 100 - (0 if dtype == "uint8" else 50)).astype(dtype)
    data = load_dataset(write(tmp_path / "a.npz", x=x, y=Y, x_test=x[:4], y_test=Y[:4]))
    digest = hashlib.sha256()
    for array in (x.astype("f4"), Y.astype("i8"), x[:4].astype("f4"), Y[:4].astype("i8")):
        digest.update(repr((array.shape, array.dtype.str)).encode() + array.tobytes())
    assert data.fingerprint == digest.hexdigest()
    assert data.scale == 1.0 / float(np.max(np.abs(x.astype("f4"))))
    got = np.concatenate([batch for batch, _ in data.loader(7, shuffle=False)])
    assert got.dtype == np.float32 and got.tobytes() == (x.astype("f4") * data.scale).tobytes()


def test_fingerprint_of_many_chunks_is_that_of_the_whole(tmp_path, monkeypatch):
    whole = load_dataset(write(tmp_path / "a.npz", x=X, y=Y)).fingerprint
    monkeypatch.setattr("xpnn.training.images.CHUNK", 100)
    assert load_dataset(tmp_path / "a.npz").fingerprint == whole


def test_values_beyond_float32_are_refused(tmp_path):
    with pytest.raises(DataError, match="beyond the range of float32"):
        load_dataset(write(tmp_path / "a.npz", x=X * 1e39, y=Y))


def test_held_out_batches_are_in_order_and_only_normalised():
    data = load_dataset("digits")
    transform = augment.Compose(augment.Flip(1.0), augment.Normalise(0.5, 0.25))
    loader = data.held_out(100, transform=transform)
    batches = [list(loader), list(loader)]
    for found in batches:
        assert np.concatenate([y for _, y in found]).tolist() == data.y_test.tolist()
        x = np.concatenate([x for x, _ in found])
        assert np.array_equal(x, (data.x_test * np.float32(1 / 16) - np.float32(0.5)) / np.float32(0.25))
    assert data.held_out(transform=augment.Flip()).transform is None
