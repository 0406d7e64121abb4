"""Augmentations, compared with loops over images that draw the same numbers."""

import numpy as np
import pytest

import xpnn as nn
from xpnn import augment
from xpnn.training.augment.transform import evaluation
from xpnn.training.datasets import load_dataset

SHAPE = (9, 3, 6, 5)


@pytest.fixture
def x():
    return np.random.default_rng(0).random(SHAPE, dtype=np.float32)


def draws(seed=3):
    return nn.random.Generator(seed)


def integers(below, seed=3):
    """What `augment` draws, one by one: the upper digits of 32-bit words."""
    words = draws(seed).bits((2, SHAPE[0]), "numpy").tolist()
    return [[int(word / 2**32 * n) for word in row] for row, n in zip(words, below, strict=True)]


def test_flip_mirrors_the_images_whose_number_is_below_p(x):
    numbers = draws().uniform((len(x),), dtype="float32", backend="numpy")
    found = augment.Flip(0.4)(x, draws())
    for image, got, number in zip(x, found, numbers, strict=True):
        wanted = [[row[::-1] for row in plane] for plane in image.tolist()] if number < 0.4 else image.tolist()
        assert got.tolist() == wanted
    assert 0 < (numbers < 0.4).sum() < len(x)


def test_flip_is_certain_at_one_and_never_at_zero(x):
    assert np.array_equal(augment.Flip(1.0)(x, draws()), x[..., ::-1])
    assert np.array_equal(augment.Flip(0.0)(x, draws()), x)


@pytest.mark.parametrize("padding", [0, 1, 4, 9])
def test_pad_and_crop_moves_images_over_zeros(x, padding):
    rows, columns = integers([2 * padding + 1] * 2)
    found = augment.PadAndCrop(padding)(x, draws())
    wanted = np.zeros_like(x)
    n, channels, height, width = x.shape
    for i, c, h, w in np.ndindex(n, channels, height, width):
        source = h + rows[i] - padding, w + columns[i] - padding
        if 0 <= source[0] < height and 0 <= source[1] < width:
            wanted[i, c, h, w] = x[i, c, source[0], source[1]]
    assert found.dtype == np.float32 and np.array_equal(found, wanted)


def test_pad_and_crop_shifts_in_every_direction():
    x = np.ones((500, 1, 1, 1), np.float32)
    kept = float(np.mean(augment.PadAndCrop(1)(x, draws())))
    assert kept == pytest.approx(1 / 9, abs=0.05)


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_cutout_clears_a_square_cut_off_at_the_edges(x, size):
    rows, columns = integers([SHAPE[2], SHAPE[3]])
    found = augment.Cutout(size)(x, draws())
    wanted = x.copy()
    for i, (row, column) in enumerate(zip(rows, columns, strict=True)):
        for h in range(row - size // 2, row - size // 2 + size):
            for w in range(column - size // 2, column - size // 2 + size):
                if 0 <= h < SHAPE[2] and 0 <= w < SHAPE[3]:
                    wanted[i, :, h, w] = 0.0
    assert found.dtype == np.float32 and np.array_equal(found, wanted)


def test_normalise_is_by_channel(x):
    found = augment.Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 0.5])(x, draws())
    for c, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 0.5)]):
        assert np.array_equal(found[:, c], (x[:, c] - np.float32(mean)) / np.float32(std))
    assert found.dtype == np.float32
    assert np.array_equal(augment.Normalise(0.5, 2.0)(x, draws()), (x - np.float32(0.5)) / np.float32(2.0))


def dataset(tmp_path, x):
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(len(x)) % 3, x_test=x[:3], y_test=np.arange(3))
    return load_dataset(tmp_path / "a.npz")


def test_normalise_of_a_dataset_has_mean_0_and_deviation_1(tmp_path, monkeypatch):
    # Far from 0, where a sum of squares about 0 in float32 would lose all.
    x = np.random.default_rng(0).normal([[[5000.0]], [[0.0]], [[-70.0]]], [[[1.0]], [[3.0]], [[0.1]]], (40, 3, 6, 5))
    data = dataset(tmp_path, x)
    monkeypatch.setattr("xpnn.training.images.CHUNK", 3000)
    found = augment.Normalise.of(data)
    scaled = x.astype(np.float32).astype(np.float64) * data.scale
    np.testing.assert_allclose(found.mean, scaled.mean((0, 2, 3)), rtol=1e-11)
    np.testing.assert_allclose(found.std, scaled.std((0, 2, 3)), rtol=1e-8)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.25])
def test_constant_channel_is_divided_by_one(tmp_path, value):
    x = np.random.default_rng(0).random((12, 2, 6, 5))
    x[:, 1] = value
    assert augment.Normalise.of(dataset(tmp_path, x)).std[1] == 1.0


def test_composed_transforms_continue_one_random_stream(x):
    generator = draws()
    wanted = augment.Flip()(augment.PadAndCrop(2)(x, generator), generator)
    assert np.array_equal(augment.Compose(augment.PadAndCrop(2), augment.Flip())(x, draws()), wanted)


def test_evaluation_keeps_what_is_deterministic():
    normalise = augment.Normalise(0.5, 0.25)
    whole = augment.Compose(augment.Flip(), augment.Compose(augment.Cutout(2), normalise), augment.PadAndCrop(1))
    assert repr(whole.evaluation()) == "Compose(Compose(Normalise([0.5], [0.25])))"
    assert normalise.evaluation() is normalise
    assert evaluation(None) is evaluation(augment.Compose(augment.Flip())) is None
    with pytest.raises(TypeError, match="does not say what of it belongs to evaluation"):
        augment.Compose(lambda x, generator: x).evaluation()


TRANSFORMS = [augment.Flip(), augment.PadAndCrop(2), augment.Cutout(3), augment.Normalise([0.5] * 3, [0.25] * 3)]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_transforms_do_not_write_to_their_input(x, transform):
    before = x.copy()
    x.flags.writeable = False
    found = transform(x, draws())
    assert np.array_equal(x, before) and found is not x
    assert transform(x[:0], draws()).shape == (0, *SHAPE[1:])
    assert eval(repr(transform), vars(augment)).__dict__ == transform.__dict__


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_an_input_that_is_no_batch_of_images_is_refused(transform):
    with pytest.raises(ValueError, match=r"a batch must have shape \(N, C, H, W\), got \(4, 5\)"):
        transform(np.zeros((4, 5), np.float32), draws())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.Flip(1.5), "p must be a number from 0 to 1, got 1.5"),
        (lambda: augment.Flip(float("nan")), "p must be a number from 0 to 1, got nan"),
        (lambda: augment.PadAndCrop(-1), "an integer >= 0, got -1"),
        (lambda: augment.PadAndCrop(1.5), "an integer"),
        (lambda: augment.Cutout(0), "an integer >= 1, got 0"),
        (lambda: augment.Normalise([0.0, 1.0], [1.0]), "std must be as many numbers as mean, 2, got 1"),
        (lambda: augment.Normalise(0.0, 0.0), "std must be a number > 0, got 0.0"),
        (lambda: augment.Normalise(float("inf"), 1.0), "finite"),
        (lambda: augment.Normalise([], []), "one for each channel"),
        (lambda: augment.Normalise([0.0] * 2, [1.0] * 2)(np.zeros(SHAPE, "f4"), draws()), "2 channels, got 3"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_compose_accepts_only_transforms():
    with pytest.raises(TypeError, match="each transform must be callable, got 3"):
        augment.Compose(3)


def images_and_masks(n=40, size=(6, 5)):
    """Each mask is a channel of its image, so the two must stay equal."""
    x = np.random.default_rng(3).integers(1, 200, (n, 2, *size)).astype(np.float32)
    return x, x[:, 0].astype(np.int64)


MOVING = {
    "flip": augment.Flip(0.5),
    "crop": augment.PadAndCrop(2),
    "both": augment.Compose(augment.PadAndCrop(2), augment.Compose(augment.Flip(0.5))),
}


@pytest.mark.parametrize("channels", [False, True], ids=["(N, H, W)", "(N, K, H, W)"])
@pytest.mark.parametrize("name", MOVING)
def test_a_mask_is_moved_with_its_image(name, channels):
    x, masks = images_and_masks()
    target = np.stack([masks, masks + 1000], axis=1) if channels else masks
    for given, moved in nn.DataLoader(x, target, 8, seed=2, transform=MOVING[name], backend="numpy"):
        wanted = given[:, 0].astype(np.int64)
        assert moved.dtype == np.int64
        assert np.array_equal(moved[:, 0] if channels else moved, wanted)
        if channels:
            inside = moved[:, 1] != 0
            assert np.array_equal((moved[:, 1] - 1000)[inside], wanted[inside])


@pytest.mark.parametrize("name", MOVING)
def test_images_are_the_same_with_and_without_masks(name):
    x, masks = images_and_masks()
    with_masks = nn.DataLoader(x, masks, 8, seed=2, transform=MOVING[name], backend="numpy")
    alone = nn.DataLoader(x, np.arange(len(x)), 8, seed=2, transform=MOVING[name], backend="numpy")
    moved = [np.asarray(a).tobytes() for a, _ in with_masks]
    assert moved == [np.asarray(a).tobytes() for a, _ in alone]
    assert moved != [np.asarray(a).tobytes() for a, _ in nn.DataLoader(x, masks, 8, seed=2, backend="numpy")]


def test_the_free_edge_of_a_mask_may_be_the_ignored_class():
    x, masks = images_and_masks()
    crop = augment.PadAndCrop(2, target_fill=-100)
    assert repr(crop) == "PadAndCrop(2, target_fill=-100)"
    for given, moved in nn.DataLoader(x, masks, 8, transform=crop, backend="numpy"):
        assert np.array_equal(moved == -100, given[:, 0] == 0)
    with pytest.raises(ValueError, match="a target of uint8 can't hold target_fill"):
        list(nn.DataLoader(x, masks.astype(np.uint8), 8, transform=crop))


@pytest.mark.parametrize("transform", [augment.Normalise(1.0, 2.0), augment.Cutout(3)])
def test_transforms_of_values_do_not_change_masks(transform):
    x, masks = images_and_masks()
    loader = nn.DataLoader(x, masks, 8, shuffle=False, transform=transform, backend="numpy")
    changed = list(loader)
    assert np.array_equal(np.concatenate([moved for _, moved in changed]), masks)
    assert not np.array_equal(np.concatenate([given for given, _ in changed]), x)


def test_masks_are_unchanged_in_evaluation():
    x, masks = images_and_masks()
    loader = nn.DataLoader(x, masks, 8, transform=augment.Compose(augment.Flip(1.0), augment.Normalise(0.0, 1.0)))
    found = list(loader.in_order())
    assert np.array_equal(np.concatenate([y for _, y in found]), masks)
    assert np.array_equal(np.concatenate([x for x, _ in found]), x)


def turned(x, generator):
    return np.ascontiguousarray(x[:, :, ::-1])


class Turned(augment.Transform):
    def apply(self, x, generator):
        return turned(x, generator)

    def __repr__(self):
        return "Turned()"


class UpsideDown(augment.Flip):
    """It defines the change of images again, but not that of masks."""

    apply = Turned.apply


class Brighter(augment.Transform):
    moves_pixels = False

    def apply(self, x, generator):
        return x + 1.0


class Shaken(Brighter):
    apply = Turned.apply


@pytest.mark.parametrize(
    "transform",
    [turned, Turned(), UpsideDown(1.0), Shaken(), augment.Compose(augment.Flip(), turned), augment.Compose(Turned())],
    ids=["function", "class", "changed flip", "changed brightness", "composed function", "composed class"],
)
def test_a_transform_that_does_not_declare_its_effect_on_masks_is_refused(transform):
    x, masks = images_and_masks()
    for target in (masks, x):
        with pytest.raises(TypeError, match=r"does not say what becomes of targets .* a method pair\(x, target, gen"):
            nn.DataLoader(x, target, 8, transform=transform)
    assert len(list(nn.DataLoader(x, np.arange(len(x)), 8, transform=transform))) == 5


def test_a_custom_transform_may_change_both_or_only_the_images():
    class Both(Turned):
        def pair(self, x, target, generator):
            return turned(x, generator), np.ascontiguousarray(target[:, ::-1])

    class NoTransform:
        def __call__(self, x, generator):
            return turned(x, generator)

        pair = Both.pair

    x, masks = images_and_masks()
    for transform in (Both(), NoTransform(), augment.Compose(NoTransform())):
        for given, moved in nn.DataLoader(x, masks, 8, transform=transform, backend="numpy"):
            assert np.array_equal(given[:, 0].astype(np.int64), moved)
    ((given, moved),) = nn.DataLoader(x, masks, 40, shuffle=False, transform=Brighter(), backend="numpy")
    assert np.array_equal(moved, masks) and np.array_equal(given, x + 1.0)


def test_targets_of_another_size_can_not_be_moved_but_functions_may_ignore_them():
    x, masks = images_and_masks(size=(6, 6))
    flip = augment.Flip()
    with pytest.raises(ValueError, match=r"moves images of 6 x 6 pixels and can't move targets of shape \(40, 3, 3\)"):
        nn.DataLoader(x, masks[:, ::2, ::2], transform=flip)
    nn.DataLoader(x, masks[:, ::2, ::2], transform=lambda x, generator: flip(x, generator))
    nn.DataLoader(x, masks[:, ::2, ::2], transform=augment.Normalise(0.0, 1.0))
    nn.DataLoader(x, masks[:, 0], transform=flip)


def test_a_pair_whose_lengths_differ_is_refused():
    class Short(Turned):
        def pair(self, x, target, generator):
            return x, target[1:]

    with pytest.raises(ValueError, match="must return an array of as many"):
        list(nn.DataLoader(*images_and_masks(), 8, transform=Short()))
