"""The training loop: what it learns, what it reports, what it copies, and that backends agree on all of it."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match


def blobs(n=90, seed=0):
    """Three separable clusters in the plane."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    centres = np.array([[0, 2], [2, -1], [-2, -1]])
    return (centres[y] + 0.3 * rng.standard_normal((n, 2))).astype(np.float32), y


def small_net(backend="numpy", seed=1):
    return nn.Sequential(nn.Dense(2, 8), nn.Tanh(), nn.Dense(8, 3), backend=backend, seed=seed)


def test_fit_learns_to_classify(at):
    model = small_net(at.backend)
    optimizer = nn.Adam(model, lr=0.05)
    history = nn.fit(model, blobs(), validation=blobs(seed=1), optimizer=optimizer, epochs=8, progress=False)
    assert history["validation_accuracy"][-1] == 1.0
    assert history["train_loss"][-1] < 0.2 * history["train_loss"][0]


def test_fit_learns_to_regress_without_accuracy():
    x, _ = blobs()
    model = nn.Sequential(nn.Dense(2, 1), seed=0)
    target = (x @ np.array([[2.0], [-1.0]], np.float32)) + 0.5
    optimizer = nn.SGD(model, lr=0.05, momentum=0.9)
    history = nn.fit(model, (x, target), loss=nn.MSE(), optimizer=optimizer, epochs=30, batch_size=16, progress=False)
    assert list(history) == ["epoch", "train_loss", "seconds"]
    np.testing.assert_allclose(model[0].parameters["weight"].value, [[2.0, -1.0]], atol=1e-3)


def test_losses_in_the_history_are_means_over_samples():
    """With a partial last batch, a mean of batch means would weigh its samples more."""
    x, y = blobs(10)
    model = small_net()
    optimizer = nn.SGD(model, lr=1e-12)
    history = nn.fit(model, (x, y), validation=(x, y), optimizer=optimizer, epochs=1, batch_size=4, progress=False)
    whole = float(nn.CrossEntropy()(model(x), y))
    assert history["train_loss"][0] == pytest.approx(whole, rel=1e-6)
    assert history["validation_loss"][0] == pytest.approx(whole, rel=1e-6)


def test_a_step_copies_its_batch_in_and_nothing_out(at):
    model = small_net(at.backend)
    optimizer, x, y = nn.Adam(model), *blobs(64)
    loader = nn.DataLoader(x, y, 16, backend=at.backend)
    nn.fit(model, loader, optimizer=optimizer, epochs=1, progress=False)
    before = at.backend.transfers
    nn.fit(model, loader, optimizer=optimizer, epochs=1, progress=False)
    after = at.backend.transfers
    assert after["to_device"][0] - before["to_device"][0] == 2 * len(loader)
    # Loss and accuracy, together and once an epoch; without float64 the counts are read separately.
    assert after["to_host"][0] - before["to_host"][0] == (1 if at.wide_enough else 2)


def test_training_is_the_same_on_every_backend(at):
    trained = small_net(at.backend)
    nn.fit(trained, blobs(), epochs=2, seed=4, progress=False)
    reference = small_net("numpy")
    nn.fit(reference, blobs(), epochs=2, seed=4, progress=False)
    for name, parameter in trained.named_parameters():
        assert_match(parameter.value, reference.state_dict()[name], level="network", terms=64, name=name)


def test_same_seed_same_bits_on_one_backend(at):
    states = []
    for _ in range(2):
        model = small_net(at.backend)
        nn.fit(model, blobs(), epochs=2, seed=4, progress=False)
        states.append({name: at.get(array) for name, array in model.state_dict().items()})
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_modes_are_restored():
    model = small_net().eval()
    model[1].train()
    nn.fit(model, blobs(), epochs=1, progress=False)
    assert [layer.training for layer in model] == [False, True, False]
    nn.evaluate(model, blobs())
    assert [layer.training for layer in model] == [False, True, False]


def test_modes_are_restored_after_an_error():
    model = small_net()
    with pytest.raises(ValueError):
        nn.evaluate(model, (np.zeros((4, 5), np.float32), np.zeros(4, int)))
    assert model.training


def test_predict_gives_outputs_in_order(at):
    model = small_net(at.backend)
    x, _ = blobs(50)
    whole = nn.predict(model, x)
    assert whole.shape == (50, 3)
    assert_match(nn.predict(model, x, batch_size=7), whole, level="reduction", terms=8)
    assert nn.predict(model, x[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"loss": nn.CrossEntropy("sum")}, "reduction='mean'"),
        ({"data": 3}, "a pair"),
    ],
)
def test_bad_arguments_are_refused_before_training(arguments, message):
    model = small_net()
    before = {name: np.array(array) for name, array in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        nn.fit(model, arguments.pop("data", blobs()), progress=False, **arguments)
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


def test_progress_prints_a_line_for_each_epoch(capsys):
    nn.fit(small_net(), blobs(), validation=blobs(), epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert all(word in lines[0] for word in ("train loss", "validation accuracy"))


def test_history_is_written_in_full_precision(tmp_path):
    history = nn.fit(small_net(), blobs(), epochs=2, progress=False)
    history.to_csv(tmp_path / "h.csv")
    header, *rows = (tmp_path / "h.csv").read_text().splitlines()
    assert header.split(",") == list(history)
    assert [float(row.split(",")[1]) for row in rows] == history["train_loss"]
    with pytest.raises(KeyError, match="validation_loss"):
        history["validation_loss"]
