"""Evaluation and prediction use all samples in the data's order, and report a batch that does not fit."""

import numpy as np
import pytest

import xpnn as nn
from xpnn import augment
from xpnn.training.out_of_memory import OutOfMemory

X = np.random.default_rng(0).standard_normal((23, 2, 6, 6)).astype(np.float32)
Y = np.arange(23) % 3


def net(backend="numpy"):
    return nn.Sequential(nn.Flatten(), nn.Dense(72, 3), backend=backend, seed=1)


def noise(x, generator):
    return x + generator.normal(x.shape, dtype="float32", backend="numpy")


class Lazy:
    """Images that are read batch by batch."""

    def __init__(self, x):
        self.x, self.asked, self.shape, self.dtype = x, [], x.shape, x.dtype

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.x[index]


LOADERS = {
    "shuffled": lambda: nn.DataLoader(X, Y, 5),
    "drops its last batch": lambda: nn.DataLoader(X, Y, 5, drop_last=True),
    "made ahead": lambda: nn.DataLoader(X, Y, 5, prefetch=2),
    "read from a file": lambda: nn.DataLoader(Lazy(X), Y, 5),
    "augmented": lambda: nn.DataLoader(X, Y, 5, transform=augment.Compose(augment.Flip(1.0), augment.PadAndCrop(2))),
    "augmented and normalised": lambda: nn.DataLoader(
        2.0 * X + 1.0, Y, 5, transform=augment.Compose(augment.Flip(1.0), augment.Normalise(1.0, 2.0))
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_s_samples_come_in_the_order_of_the_data(at, name):
    model, loader = net(at.backend), LOADERS[name]()
    np.testing.assert_allclose(nn.predict(model, loader), nn.predict(model, X), rtol=2e-5, atol=2e-6)
    assert nn.evaluate(model, loader)["loss"] == pytest.approx(nn.evaluate(model, (X, Y))["loss"], rel=1e-5)


def test_the_passes_of_a_loader_are_left_as_they_were():
    """Evaluation during training must not change the order of its samples."""
    loader, other = nn.DataLoader(X, Y, 5, seed=3), nn.DataLoader(X, Y, 5, seed=3)
    list(loader), list(other)
    before = loader.state_dict()
    nn.predict(net(), loader)
    nn.evaluate(net(), loader)
    assert loader.state_dict() == before
    assert [y.tolist() for _, y in loader] == [y.tolist() for _, y in other]


def test_a_function_that_does_not_say_what_belongs_to_evaluation_is_applied_as_it_is():
    model = net()
    doubled = nn.DataLoader(X, Y, 5, transform=lambda x, generator: 2.0 * x)
    assert np.array_equal(nn.predict(model, doubled), nn.predict(model, 2.0 * X, batch_size=5))
    mixed = nn.DataLoader(X, Y, 5, transform=augment.Compose(augment.Flip(1.0), lambda x, generator: 2.0 * x))
    assert np.array_equal(nn.predict(model, mixed), nn.predict(model, 2.0 * X, batch_size=5))
    drawn = nn.DataLoader(X, Y, 5, transform=noise)
    assert np.array_equal(nn.predict(model, drawn), nn.predict(model, drawn))


def test_a_loader_in_order_is_a_loader_of_its_own():
    loader = nn.DataLoader(X, Y, 5, seed=3, drop_last=True, transform=augment.Flip())
    ordered = loader.in_order(7)
    assert [len(y) for _, y in ordered] == [7, 7, 7, 2]
    assert np.concatenate([y for _, y in ordered]).tolist() == Y.tolist()
    assert (loader.shuffle, loader.drop_last, loader.batch_size, loader.epoch) == (True, True, 5, 0)
    assert isinstance(loader.transform, augment.Flip) and ordered.transform is None


class Seen(nn.Identity):
    """Records the sizes of batches."""

    def __init__(self):
        super().__init__()
        self._sizes = []

    def _forward(self, x):
        self._sizes.append((self.training, int(x.shape[0])))
        self.save_for_backward()
        return x

    def evaluated(self):
        return [n for training, n in self._sizes if not training]


def seen_net():
    seen = Seen()
    return seen, nn.Sequential(nn.Flatten(), seen, nn.Dense(72, 3), seed=0)


def test_batches_are_those_of_the_loader_or_256_by_default():
    seen, model = seen_net()
    many = np.zeros((300, 2, 6, 6), np.float32)
    labels = np.arange(300) % 3
    nn.predict(model, many)
    nn.evaluate(model, (many, labels))
    assert seen.evaluated() == [256, 44] * 2
    seen._sizes.clear()
    nn.predict(model, nn.DataLoader(many, labels, 100))
    nn.evaluate(model, nn.DataLoader(many, labels, 100))
    assert seen.evaluated() == [100] * 6
    seen._sizes.clear()
    nn.predict(model, nn.DataLoader(many, labels, 100), batch_size=150)
    nn.evaluate(model, nn.DataLoader(many, labels, 100), batch_size=150)
    assert seen.evaluated() == [150] * 4


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"batch_size": 10}, {10, 3}),
        ({"batch_size": 10, "accumulate": 2}, {10, 3}),
        ({"batch_size": 10, "shards": 2}, {5, 3}),
        ({"batch_size": 10, "shards": [3, 1]}, {8, 7}),
        ({"loader": 7}, {7, 2}),
    ],
)
def test_fit_evaluates_in_batches_of_training_s_size(options, wanted):
    seen, model = seen_net()
    options = dict(options)
    data = nn.DataLoader(X, Y, options.pop("loader")) if "loader" in options else (X, Y)
    nn.fit(model, data, validation=(X, Y), epochs=1, progress=False, **options)
    assert set(seen.evaluated()) == wanted
    seen._sizes.clear()
    nn.fit(model, data, validation=nn.DataLoader(X, Y, 4), epochs=1, progress=False, **options)
    assert set(seen.evaluated()) == {4, 3}


def test_prediction_of_data_read_batch_by_batch_reads_batches():
    lazy = Lazy(X)
    assert np.array_equal(nn.predict(net(), lazy, batch_size=10), nn.predict(net(), X, batch_size=10))
    assert len(lazy.asked) == 3


def test_prediction_of_none_and_of_one_sample(at):
    model = net(at.backend)
    assert nn.predict(model, X[:0]).shape == (0, 3)
    assert nn.predict(model, Lazy(X[:0])).shape == (0, 3)
    assert nn.predict(model, X[:1]).shape == (1, 3)


class Narrow(nn.Identity):
    """Raises `MemoryError` for more than a number of samples in evaluation."""

    def __init__(self, most):
        super().__init__()
        self._most = most

    def _forward(self, x):
        if not self.training and x.shape[0] > self._most:
            raise MemoryError("planted")
        self.save_for_backward()
        return x


def narrow_net(most):
    return nn.Sequential(nn.Flatten(), Narrow(most), nn.Dense(72, 3), seed=0)


@pytest.mark.parametrize("at_work", ["evaluate", "predict", "predict of a loader"])
def test_out_of_memory_in_evaluation_names_the_batch_that_fits(at_work, monkeypatch):
    # In a process with many tests a collection needs a large part of a second.
    monkeypatch.setattr("gc.collect", lambda: 0)
    work = {
        "evaluate": lambda model: nn.evaluate(model, (X, Y)),
        "predict": lambda model: nn.predict(model, X),
        "predict of a loader": lambda model: nn.predict(model, nn.DataLoader(X, Y, 23)),
    }[at_work]
    with pytest.raises(
        OutOfMemory, match=r"batch of 23 does not fit .* in evaluation; a batch of 5 does: batch_size=5"
    ):
        work(narrow_net(9))
    with pytest.raises(OutOfMemory, match="nor does one sample"):
        work(narrow_net(0))
    model = narrow_net(9)
    with pytest.raises(OutOfMemory):
        work(model)
    assert model.training


def test_an_epoch_is_saved_before_it_is_evaluated(tmp_path):
    """A run whose evaluation fails, and which is resumed, ends with the bits of one in which it did not."""

    def run(folder, most, **options):
        model = narrow_net(most)
        history = nn.fit(
            model, nn.DataLoader(X, Y, 5, seed=2), optimizer=nn.SGD(model, lr=0.1), epochs=2, progress=False,
            validation=(X, Y), checkpoints=tmp_path / folder, **options,
        )  # fmt: skip
        return model, [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]

    with pytest.raises(OutOfMemory, match="a batch of 2 does"):
        run("broken", 3)
    assert nn.Checkpoints(tmp_path / "broken").steps() == [5]
    whole, again = run("whole", 99), run("broken", 99, resume=True)
    assert whole[1] == again[1]
    assert all(np.array_equal(a, again[0].state_dict()[name]) for name, a in whole[0].state_dict().items())


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: nn.predict(net(), X, batch_size=0), ValueError, "batch_size must be an integer >= 1, got 0"),
        (lambda: nn.evaluate(net(), (X, Y), batch_size=2.5), ValueError, "must be an integer >= 1, got 2.5"),
        (lambda: nn.predict(net, X), TypeError, "model must be a Layer, got"),
        (lambda: nn.evaluate(nn.Dense, (X, Y)), TypeError, "must be a Layer, got the class Dense; make an object"),
        (lambda: nn.evaluate(net(), (X, Y), loss=nn.MSE), TypeError, "loss must be a Loss, got the class"),
        (lambda: nn.evaluate(net(), (X, Y), loss="mse"), TypeError, "loss must be a Loss, got 'mse'"),
        (lambda: nn.evaluate(net(), X), ValueError, r"data must be a pair \(x, y\) or a DataLoader, got an array"),
        (lambda: nn.evaluate(net(), (X, Y, Y)), ValueError, "data must be a pair .* got 3 arrays"),
        (lambda: nn.evaluate(net(), ((x, y) for x, y in [(X, Y)])), ValueError, "make a loader of arrays"),
        (lambda: nn.predict(net(), (X, Y)), TypeError, "got a pair; give its first array only"),
        (lambda: nn.predict(net(), (x for x in X)), TypeError, r"make an array of it: np.stack\(list\(x\)\)"),
        (lambda: nn.predict(net(), "digits"), TypeError, "x must be numbers, got str"),
        (lambda: nn.predict(net(), 3.0), ValueError, "got a single number"),
        (lambda: nn.predict(net(), [X[0], X[0, :1]]), TypeError, "all samples one shape"),
        (lambda: nn.predict(net(), None), TypeError, "x must be numbers, got None"),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
