"""Samplers decide which samples a pass has, with the same bits after an interruption."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.checkpoints import Checkpoints

N = 60
X = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32)
Y = np.array([0] * 50 + [1] * 10)


def drawn(loader):
    return np.concatenate([np.asarray(y) for _, y in loader])


@pytest.mark.parametrize("weights", [[1, 2, 3, 4], [0.0, 1.0, 0.0, 1e-3], [1e300, 1e300, 1.0, 0.0]])
def test_samples_are_drawn_in_proportion_to_their_weights(weights):
    sampler = nn.WeightedRandomSampler(weights, 20000, seed=3)
    found = np.bincount(sampler.positions(0), minlength=4) / 20000
    wanted = np.array(weights) / np.sum(weights)
    assert np.abs(found - wanted).max() < 0.015 and not found[np.array(weights) == 0].any()


def test_without_replacement_no_sample_is_drawn_twice_and_heavy_ones_come_first():
    weights = np.array([1.0] * 50 + [50.0] * 5 + [0.0])
    sampler = nn.WeightedRandomSampler(weights, 55, replacement=False, seed=1)
    passes = np.array([sampler.positions(k) for k in range(200)])
    assert (np.sort(passes, axis=1) == np.arange(55)).all()
    assert (passes[:, 0] >= 50).mean() == pytest.approx(250 / 300, abs=0.08)
    with pytest.raises(ValueError, match="num_samples must be at most 55 without replacement"):
        nn.WeightedRandomSampler(weights, 56, replacement=False)


def test_samples_without_weight_are_never_drawn_whatever_rounding_gives(monkeypatch):
    sampler = nn.WeightedRandomSampler([0.0, 0.1, 0.2, 0.0], 4)
    monkeypatch.setattr(type(sampler._generator), "uniform", lambda *a, **k: np.array([0.0, 0.3, 1.0, 1.0]))
    assert sampler.positions(0).tolist() == [1, 1, 2, 2]


def test_positions_have_the_same_bits_everywhere():
    """Golden values: they may depend on nothing but seed and pass."""
    sampler = nn.WeightedRandomSampler([1, 2, 3, 4, 5], 8, seed=5)
    assert sampler.positions(0).tolist() == [1, 2, 3, 1, 4, 4, 3, 3]
    assert nn.WeightedRandomSampler([1, 2, 3, 4, 5], 4, False, seed=5).positions(2).tolist() == [4, 1, 3, 2]
    assert sampler.positions(0).tolist() != sampler.positions(1).tolist()
    other = nn.WeightedRandomSampler([1, 2, 3, 4, 5], 8, seed=6)
    assert sampler.positions(0).tolist() != other.positions(0).tolist()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_loader_uses_the_samples_of_its_sampler(at, prefetch):
    sampler = nn.WeightedRandomSampler.balanced(Y, 120, seed=2)
    loader = nn.DataLoader(X, Y, 32, sampler=sampler, prefetch=prefetch, backend=at.backend)
    assert len(loader) == 4 and loader.samples == 120
    found = [np.concatenate([at.get(y) for _, y in loader]) for _ in range(2)]
    assert (
        found[0].tolist() == Y[sampler.positions(0)].tolist() and found[1].tolist() == Y[sampler.positions(1)].tolist()
    )
    assert abs(found[0].mean() - 0.5) < 0.15
    assert len(nn.DataLoader(X, Y, 32, sampler=sampler, drop_last=True)) == 3
    assert np.array_equal(drawn(nn.DataLoader(X, Y, 32, sampler=sampler).in_order()), Y)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_run_that_is_resumed_goes_on_with_the_same_samples(tmp_path, shards):
    class Stop(Exception):
        pass

    def run(folder, stop=None, resume=False, seed=0):
        model = nn.Sequential(nn.Dense(4, 2), seed=0)
        checkpoints = Checkpoints(tmp_path / folder, every=1)
        if stop:
            write = checkpoints.write

            def writing(step, *rest):
                write(step, *rest)
                if step == stop:
                    raise Stop

            checkpoints.write = writing
        sampler = nn.WeightedRandomSampler.balanced(Y, 48, seed=seed)
        loader = nn.DataLoader(X, Y, 8, sampler=sampler)
        nn.fit(model, loader, epochs=3, progress=False, checkpoints=checkpoints, resume=resume, shards=shards)
        return b"".join(np.asarray(value).tobytes() for value in model.state_dict().values())

    with pytest.raises(Stop):
        run("a", stop=9)
    with pytest.raises(nn.CheckpointError, match="this loader has sampler 'WeightedRandomSampler"):
        run("a", resume=True, seed=1)
    assert run("a", resume=True) == run("whole")


def test_the_state_of_a_loader_of_an_earlier_version_has_no_sampler():
    loader = nn.DataLoader(X, Y, 8)
    state = {name: value for name, value in loader.state_dict().items() if name not in ("sampler", "joint")}
    loader.load_state_dict(state)
    with pytest.raises(ValueError, match="the loader's state has no sampler"):
        nn.DataLoader(X, Y, 8, sampler=nn.WeightedRandomSampler(np.ones(N), N)).load_state_dict(state)


class Fixed(nn.Sampler):
    """The same samples in each pass."""

    def __init__(self, found, length=None):
        self.found, self.length = found, length

    def __len__(self):
        return len(self.found) if self.length is None else self.length

    def positions(self, epoch):
        return self.found

    def __repr__(self):
        return f"Fixed({self.found})"


def test_a_sampler_of_the_user():
    assert drawn(nn.DataLoader(X, Y, 2, sampler=Fixed([59, 0, 59]))).tolist() == [1, 0, 1]
    for sampler, message in (
        (Fixed([60]), "returns positions from 60 to 60; those of the samples are 0 to 59"),
        (Fixed([-1]), "returns positions from -1"),
        (Fixed([0.5]), "must return 1 positions, integers"),
        (Fixed([1], 2), "must return 2 positions"),
    ):
        with pytest.raises(ValueError, match=message):
            list(nn.DataLoader(X, Y, 2, sampler=sampler))


@pytest.mark.parametrize(
    "make, kind, message",
    [
        (lambda: nn.WeightedRandomSampler([1, -1], 2), ValueError, "finite numbers >= 0, not all 0"),
        (lambda: nn.WeightedRandomSampler([0, 0], 2), ValueError, "not all 0"),
        (lambda: nn.WeightedRandomSampler([1, np.nan], 2), ValueError, "finite"),
        (lambda: nn.WeightedRandomSampler([1e308] * 9, 2), ValueError, "their sum is infinite"),
        (lambda: nn.WeightedRandomSampler([], 2), ValueError, "weights must be numbers"),
        (lambda: nn.WeightedRandomSampler([[1.0]], 2), ValueError, "weights must be numbers"),
        (lambda: nn.WeightedRandomSampler([1.0], 0), ValueError, "num_samples must be an integer >= 1"),
        (lambda: nn.WeightedRandomSampler.balanced(X), ValueError, "y must be classes"),
        (lambda: nn.DataLoader(X, Y, sampler=nn.WeightedRandomSampler([1.0], 3)), ValueError, "has 1 weights, and"),
        (lambda: nn.DataLoader(X, Y, sampler=[1, 2]), TypeError, "sampler must be a Sampler"),
        (lambda: nn.DataLoader(X, Y, 8, sampler=Fixed([1]), drop_last=True), ValueError, "leaves no batch"),
    ],
)
def test_wrong_samplers_are_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
