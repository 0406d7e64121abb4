"""Data from outside: what is taken, how it is split, and what is said of the rest."""

import numpy as np
import pytest

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


def test_split_is_the_same_each_time_and_loses_nothing():
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
