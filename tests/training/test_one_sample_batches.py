"""A batch of one sample, which a batch norm can't be trained on, is refused before the epoch begins."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.snapshot import streams

X = np.random.default_rng(0).standard_normal((21, 4)).astype(np.float32)
Y = np.arange(21) % 3


def net(numerics="fast", norm=True):
    middle = [nn.BatchNorm1d(8)] if norm else []
    backend = nn.get_backend("numpy", numerics=numerics)
    return nn.Sequential(nn.Dense(4, 8), *middle, nn.Dropout(0.5), nn.Dense(8, 3), backend=backend, seed=0)


def images():
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dense(4, 3), seed=0)


def state(model):
    return {name: np.array(array) for name, array in model.state_dict().items()}, [
        s.position for _, s in streams(model)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 20},
            r"21 samples in batches of 20 leave a last batch of 1 sample; .*drop_last=True.*--drop-last",
        ),
        ({"batch_size": 4}, "21 samples in batches of 4 leave a last batch of 1 sample"),
        ({"batch_size": 1}, r"batches of 1 sample; use a batch_size \(--batch\) of at least 2"),
        ({"batch_size": 7, "shards": 4}, "21 samples in batches of 7, each in 4 parts, give parts of 1 sample"),
        ({"batch_size": 4, "accumulate": 4}, "21 samples in batches of 16, each in 4 parts, give parts of 1 sample"),
    ],
)
def test_it_is_refused_before_the_first_step_and_says_what_to_do(options, message):
    model = net()
    before, places = state(model)
    with pytest.raises(ValueError, match=message) as error:
        nn.fit(model, (X, Y), epochs=1, progress=False, **options)
    assert "the statistics of a channel need more than 1 value" in str(error.value)
    after, later = state(model)
    assert all(np.array_equal(before[name], array) for name, array in after.items()) and places == later
    assert all(parameter.grad is None for _, parameter in model.named_parameters()) and model.training


def test_the_advice_for_one_sample_in_all_is_not_to_leave_it_out():
    with pytest.raises(ValueError, match=r"^there is 1 sample in all; give at least 2; this model can't"):
        nn.fit(net(), (X[:1], Y[:1]), epochs=1, progress=False)


def test_with_drop_last_the_last_batch_is_left_out():
    model = net()
    loader = nn.DataLoader(X, Y, 20, drop_last=True)
    history = nn.fit(model, loader, validation=loader, epochs=2, progress=False)
    assert len(history.rows) == 2


@pytest.mark.parametrize(
    ("model", "x", "options"),
    [
        (lambda: net(norm=False), X, {"batch_size": 20}),
        (images, X.reshape(21, 1, 2, 2), {"batch_size": 20}),
        (lambda: net("exact"), X, {"batch_size": 7, "shards": 4}),
        (lambda: net(), X, {"batch_size": 19}),
        (lambda: net().eval(), X, {"batch_size": 7}),
    ],
    ids=["no norm", "values enough", "exact shards", "two left", "none left"],
)  # fmt: skip
def test_what_can_be_computed_is_not_refused(model, x, options):
    assert len(nn.fit(model(), (x, Y), epochs=1, progress=False, **options).rows) == 1


def test_a_run_that_ended_is_not_refused(tmp_path):
    """It has no epoch left."""
    model = net(norm=False)
    options = {"batch_size": 20, "epochs": 1, "checkpoints": tmp_path, "progress": False}
    nn.fit(model, (X, Y), **options)
    assert len(nn.fit(model, (X, Y), resume=True, **options).rows) == 1


def test_another_problem_of_the_model_is_not_hidden():
    with pytest.raises(ValueError, match="input") as error:
        nn.fit(net(), (X[:, :3], Y), batch_size=20, progress=False)
    assert "last batch" not in str(error.value)


def test_accumulation_that_would_drop_all_is_refused():
    with pytest.raises(ValueError, match="drop_last=True leaves no batch of 30: there are 21 samples"):
        nn.fit(net(), nn.DataLoader(X, Y, 10, drop_last=True), accumulate=3, progress=False)
