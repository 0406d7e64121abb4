"""Nets with several inputs: loaders, `PerInput`, training and prediction."""

import numpy as np
import pytest

import xpnn as nn
from xpnn import augment
from xpnn.training.nan_check import NonFiniteError

N = 43
rng = np.random.default_rng(0)
A = rng.standard_normal((N, 1, 6, 6)).astype(np.float32)
B = rng.standard_normal((N, 5)).astype(np.float32)
Y = (A.mean((1, 2, 3)) + B[:, 0] > 0).astype(np.int64)


def net(backend="numpy", **options):
    image = nn.Sequential(nn.Conv2d(1, 3, 3, padding="same"), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(nn.PerInput(image, nn.Identity()), nn.Dense(3 * 36 + 5, 2), backend=backend, seed=0, **options)


def test_a_batch_has_a_tuple_of_inputs(at):
    loader = nn.DataLoader((A, B), Y, 16, shuffle=False, backend=at.backend)
    parts = [loader.batches(at.backend), nn.DataLoader((A, B), Y, 16, shuffle=False, prefetch=2).batches(at.backend)]
    for batches in parts:
        found = list(batches)
        assert [type(x) for x, _ in found] == [tuple] * 3
        for i, whole in enumerate((A, B)):
            assert np.array_equal(np.concatenate([at.get(x[i]) for x, _ in found]), whole)
        assert np.array_equal(np.concatenate([at.get(y) for _, y in found]), Y)


def test_samples_of_all_inputs_stay_together_when_shuffled():
    marks = np.arange(N)
    for options in ({}, {"sampler": nn.WeightedRandomSampler(np.ones(N), 100)}, {"prefetch": 2}, {"drop_last": True}):
        for (x1, x2), y in nn.DataLoader((marks[:, None], 2 * marks[:, None]), marks, 8, **options):
            assert np.array_equal(x1[:, 0], y) and np.array_equal(x2[:, 0], 2 * y)


def test_scale_and_transform_have_an_entry_for_each_input():
    shift = lambda x, generator: x + generator.uniform((1,), dtype="float32", backend="numpy")  # noqa: E731
    loader = nn.DataLoader((A, A), Y, N, shuffle=False, scale=(2.0, None), transform=(shift, shift))
    ((x1, x2), _) = next(iter(loader))
    assert np.ptp(x1 - 2 * A) < 1e-6 and np.ptp(x2 - A) < 1e-6
    assert abs((x1 - 2 * A).mean() - (x2 - A).mean()) > 1e-3
    again = nn.DataLoader((A, A), Y, N, shuffle=False, scale=(2.0, None), transform=(shift, shift))
    assert np.array_equal(next(iter(again))[0][1], x2)
    assert nn.DataLoader((A, B), Y, transform=(augment.Flip(), None)).in_order()._transforms() == (None, None)
    for wrong in (augment.Flip(), (augment.Flip(),)):
        with pytest.raises(ValueError, match="transform must be a tuple with one entry, or None, for each of 2 inputs"):
            nn.DataLoader((A, B), Y, transform=wrong)


def test_joint_changes_all_inputs_and_the_mask_by_the_same_draws():
    masks = rng.integers(0, 4, (N, 6, 6))
    moves = (augment.Compose(augment.Flip(), augment.PadAndCrop(2)),) * 2
    loader = nn.DataLoader((masks[:, None].astype("f4"), A), masks, N, shuffle=False, transform=moves, joint=True)
    ((x1, x2), y) = next(iter(loader))
    assert np.array_equal(x1[:, 0], y) and not np.array_equal(y, masks)
    one = nn.DataLoader(A, Y, N, shuffle=False, transform=moves[0])
    assert np.array_equal(next(iter(one))[0], x2)
    with pytest.raises(TypeError, match="say with joint=True"):
        nn.DataLoader((A, B), masks, transform=(augment.Flip(), None))
    apart = nn.DataLoader((A, B), masks, N, shuffle=False, transform=(augment.Flip(1.0), None), joint=False)
    ((x1, _), y) = next(iter(apart))
    assert np.array_equal(x1, A[..., ::-1]) and np.array_equal(y, masks)


def test_a_tuple_of_samples_is_not_several_inputs():
    x = tuple(np.full((2, 3), i, np.float32) for i in range(5))
    assert nn.DataLoader(x, np.arange(5)).arrays[0].shape == (5, 2, 3)
    assert nn.DataLoader((1.0, 2.0), np.arange(2)).arrays[0].shape == (2,)
    with pytest.raises(ValueError, match="a tuple of 2 inputs with 43, 42 samples; each must have as many as y, 43"):
        nn.DataLoader((A, B[1:]), Y)


class ByHand(nn.layers.Container):
    """The same net, written out."""

    def __init__(self, **placement):
        image = nn.Sequential(nn.Conv2d(1, 3, 3, padding="same"), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
        super().__init__({"0": nn.Sequential({"0": image}), "1": nn.Dense(3 * 36 + 5, 2)}, **placement)

    def forward(self, x):
        image, numbers = x
        features = self.children["0"](image)
        xp = self.backend.xp
        with self.backend.context():
            joined = xp.concat([features, numbers], axis=1)
        self.save_for_backward(int(features.shape[1]))
        return self.children["1"](joined)

    def backward(self, dy, *, input_grad=True):
        dx = self.children["1"].backward(dy)
        (width,) = self.saved
        return self.children["0"].backward(self.backend.xp.asarray(dx[:, :width], copy=True), input_grad=input_grad)


@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"accumulate": 2}, {"on_nan": "stop"}], ids=str)
def test_fit_trains_a_net_with_two_inputs(at, options):
    model = net(at.backend)
    history = nn.fit(
        model, ((A, B), Y), validation=((A, B), Y), epochs=6, batch_size=10, progress=False,
        optimizer=nn.Adam(model, 0.01), **options,
    )  # fmt: skip
    assert history["train_loss"][-1] < 0.6 * history["train_loss"][0]
    assert history["validation_accuracy"][-1] > 0.85
    found = nn.predict(model, (A, B), batch_size=7)
    assert found.shape == (N, 2)
    np.testing.assert_allclose(found, nn.predict(model, nn.DataLoader((A, B), Y, 5)), rtol=2e-4, atol=1e-5)
    assert nn.evaluate(model, ((A, B), Y))["accuracy"] == pytest.approx((found.argmax(1) == Y).mean())


def test_a_container_of_the_user_is_trained_as_the_library_s():
    found = []
    for model in (net(), ByHand(seed=0)):
        history = nn.fit(model, ((A, B), Y), epochs=3, batch_size=10, progress=False, compile=False)
        found.append(history["train_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_gradients_of_all_inputs(at):
    for join in ("concat", "add"):
        model = nn.PerInput(nn.Dense(4, 3), nn.Dense(2, 3), join=join, backend=at.wide(), seed=0)
        b = model.backend
        x = [rng.standard_normal((5, 4)), rng.standard_normal((5, 2))]
        w = rng.standard_normal((5, 6 if join == "concat" else 3))
        y = model(tuple(map(b.asarray, x)))
        grads = model.backward(b.asarray(w))
        assert tuple(y.shape) == w.shape and len(grads) == 2
        for i in range(2):
            slope = np.zeros_like(x[i])
            for place in np.ndindex(*x[i].shape):
                values = []
                for sign in (1e-6, -1e-6):
                    moved = [each.copy() for each in x]
                    moved[i][place] += sign
                    values.append((at.get(model(tuple(map(b.asarray, moved)))) * w).sum())
                slope[place] = (values[0] - values[1]) / 2e-6
            np.testing.assert_allclose(at.get(grads[i]), slope, atol=1e-6)
        assert model(tuple(map(b.asarray, x))) is not None and model.backward(b.asarray(w), input_grad=False) is None


def test_a_layer_in_both_branches_has_the_gradients_of_two_layers(at):
    x, w = rng.standard_normal((2, 5, 4)).astype(np.float32), rng.standard_normal((5, 6)).astype(np.float32)
    one = nn.Dense(4, 3, backend=at.backend, seed=0)
    twins = [nn.Dense(4, 3, backend=at.backend, seed=0) for _ in range(2)]
    for layer in twins:
        layer.load_state_dict(one.state_dict())
    siamese, apart = nn.PerInput(one, one), nn.PerInput(*twins)
    for input_grad in (True, False):
        grads = []
        for model in (siamese, apart):
            model.zero_grad()
            model(tuple(map(at.backend.asarray, x)))
            grads.append(model.backward(at.backend.asarray(w), input_grad=input_grad))
        for dx, expected in zip(*grads, strict=True) if input_grad else ():
            assert np.array_equal(at.get(dx), at.get(expected))
        for name, parameter in one.parameters.items():
            expected = sum(at.get(layer.parameters[name].grad) for layer in twins)
            np.testing.assert_allclose(at.get(parameter.grad), expected, rtol=1e-5, atol=1e-6)


def test_compiled_steps_of_several_inputs_have_the_same_bits():
    found = []
    for choice in (True, False):
        model = net()
        nn.fit(model, ((A, B), Y), epochs=8, batch_size=10, progress=False, compile=choice)
        found.append(b"".join(np.asarray(value).tobytes() for value in model.state_dict().values()))
    assert found[0] == found[1]


def test_in_exact_numerics_parts_have_the_bits_of_the_whole(exact):
    found = []
    for where, shards in ((exact, 1), (exact, 3), (nn.get_backend("numpy", numerics="exact"), 2)):
        model = net(where)
        nn.fit(model, ((A, B), Y), epochs=1, batch_size=20, progress=False, shards=shards)
        found.append(b"".join(model.backend.to_numpy(value).tobytes() for value in model.state_dict().values()))
    assert found[0] == found[1] == found[2]


def test_a_nan_names_the_input():
    bad = B.copy()
    bad[3] = np.nan
    with pytest.raises(NonFiniteError, match="input 2 of 2 of sample"):
        nn.fit(net(), ((A, bad), Y), epochs=1, progress=False, on_nan="stop")


@pytest.mark.parametrize(
    "x, kind, message",
    [
        (A, TypeError, "input must be a tuple of 2 arrays, got one ndarray"),
        ((A,), ValueError, "one for each branch, got 1"),
        ((A, B[1:]), ValueError, "same number of samples, got 43, 42"),
        ((A, [1.0]), TypeError, "the input 2 must be an array of numpy"),
    ],
)
def test_wrong_inputs_are_refused(x, kind, message):
    with pytest.raises(kind, match=message):
        net()(x)


def test_a_net_with_one_input_refuses_a_tuple():
    with pytest.raises(TypeError, match="the input must be an array of numpy, got tuple"):
        nn.predict(nn.Sequential(nn.Dense(5, 2)), (B, B))
    with pytest.raises(ValueError, match="has several inputs"):
        nn.PerInput(nn.Identity()).output_shape((1, 2))


@pytest.mark.parametrize("joint", [None, True, False])
def test_joint_says_whether_masks_move(joint):
    masks = rng.integers(0, 4, (N, 6, 6))
    loader = nn.DataLoader(A, masks, N, shuffle=False, transform=augment.Flip(1.0), joint=joint)
    x, y = next(iter(loader))
    assert np.array_equal(x, A[..., ::-1])
    assert np.array_equal(y, masks if joint is False else masks[..., ::-1])
    ordered = loader.in_order()
    assert np.array_equal(next(iter(ordered))[1], masks) and not ordered.changes_targets
    with pytest.raises(ValueError, match="joint=True needs targets of the height and width"):
        nn.DataLoader(A, Y, joint=True)
