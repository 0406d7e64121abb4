"""`fit(precision=)`: what it computes in, what it restores, steps that are left out, resuming and refusals."""

import math

import numpy as np
import pytest

import xpnn as nn

MIXED = ("float16", "bfloat16")


def has(at, precision):
    return precision not in MIXED or not at.backend.spec.startswith("strict")


def blobs(n=90, seed=0, scale=1.0):
    """Three separable clusters in the plane."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    centres = np.array([[0, 2], [2, -1], [-2, -1]])
    return (scale * (centres[y] + 0.3 * rng.standard_normal((n, 2)))).astype(np.float32), y


def net(backend="numpy", seed=1, dropout=False):
    drop = [nn.Dropout(0.25)] if dropout else []
    return nn.Sequential(
        nn.Dense(2, 8), nn.BatchNorm1d(8), nn.Tanh(), *drop, nn.Dense(8, 3), backend=backend, seed=seed
    )


def weights(model):
    return {name: model.backend.to_numpy(array).copy() for name, array in model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


class Watcher(nn.Layer):
    """Notes the precision that it computes in, and the mode."""

    def __init__(self, **placement):
        super().__init__(**placement)
        self.seen = set()

    def _forward(self, x):
        self.seen.add((self.backend.precision, self.training))
        return x

    def _backward(self, dy, input_grad):
        return dy


@pytest.mark.parametrize("precision", [None, "float32", "tf32", *MIXED])
def test_a_run_computes_in_it_and_leaves_the_model_as_it_was(at, precision):
    if not has(at, precision):
        pytest.skip("no such precision there")
    model, watcher = net(at.backend), Watcher()
    model = nn.Sequential(model, watcher, backend=at.backend)
    optimizer, parameters = nn.Adam(model, lr=0.05), dict(model.named_parameters())
    history = nn.fit(
        model, blobs(), validation=blobs(seed=1), optimizer=optimizer, epochs=8, progress=False, precision=precision
    )
    used = precision or "float32"
    assert watcher.seen == {(used, True), (used, False)}
    assert all(layer.backend is at.backend for _, layer in model.named_layers())
    assert dict(model.named_parameters()) == parameters
    for parameter in parameters.values():
        assert all(
            str(each.dtype).endswith("float32") for each in (parameter.value, parameter.states[optimizer]["mean"])
        )
    assert history["validation_accuracy"][-1] == 1.0
    assert nn.evaluate(model, blobs(seed=1))["accuracy"] == 1.0


def test_a_model_made_in_a_precision_trains_in_it(at):
    if not has(at, "float16"):
        pytest.skip("no such precision there")
    mixed = nn.get_backend(at.backend, precision="float16")
    found = []
    for model, precision in ((net(mixed), None), (net(at.backend), "float16")):
        nn.fit(model, blobs(), optimizer=nn.SGD(model, lr=0.1), epochs=2, progress=False, precision=precision)
        found.append(weights(model))
    assert_same(*found)


def test_it_has_the_bits_of_a_loop_of_your_own():
    x, y = blobs(32)
    one, other = net(), net(nn.get_backend("numpy", precision="float16"))
    loader = nn.DataLoader(x, y, 16, shuffle=True, seed=3)
    nn.fit(one, loader, optimizer=nn.SGD(one, lr=0.1), clip_norm=0.5, epochs=3, progress=False, precision="float16")
    optimizer, loss, scaler = nn.SGD(other, lr=0.1), nn.CrossEntropy(), nn.GradScaler()
    loader = nn.DataLoader(x, y, 16, shuffle=True, seed=3)
    for _ in range(3):
        for batch, target in loader:
            optimizer.zero_grad()
            loss(other(batch), target)
            other.backward(loss.backward(scaler.get_scale()))
            scaler.unscale_(optimizer)
            nn.clip_grad_norm(other, 0.5)
            scaler.step(optimizer)
            scaler.update()
    assert_same(weights(one), weights(other))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("on_nan", [None, "stop", "skip"])
def test_a_step_that_is_left_out_changes_nothing(on_nan, monkeypatch):
    """With a first scale beyond float16's range, gradients overflow until it is small enough."""
    monkeypatch.setattr("xpnn.training.run.GradScaler", lambda: nn.GradScaler(2.0**27))
    x, y = blobs(40)
    model = net(dropout=True)
    before, seen = weights(model), []

    class Noting(nn.SGD):
        def step(self):
            seen.append(1)
            super().step()

    optimizer = Noting(model, lr=0.1)
    schedule = nn.CosineLR(optimizer, 40)
    history = nn.fit(
        *(model, (x, y)),
        optimizer=optimizer,
        schedule=schedule,
        batch_size=40,
        epochs=3,
        on_nan=on_nan,
        progress=False,
        precision="float16",
    )
    assert not seen and schedule.taken == 0, "three halvings are too few"
    assert_same(weights(model), before)
    assert np.isfinite(history["train_loss"]).all()
    nn.fit(
        *(model, (x, y)),
        optimizer=optimizer,
        schedule=schedule,
        batch_size=40,
        epochs=30,
        on_nan=on_nan,
        progress=False,
        precision="float16",
    )
    assert 0 < len(seen) < 30 and schedule.taken == len(seen)
    after = weights(model)
    assert all(np.isfinite(each).all() for each in after.values())
    # Batch norm counts the steps that were taken.
    (name,) = (name for name in after if name.endswith("num_batches_tracked"))
    assert after[name] == len(seen)


def test_gradients_that_no_scale_makes_finite_stop_the_run():
    class Broken(nn.Layer):
        def _forward(self, x):
            self.save_for_backward()
            return x

        def _backward(self, dy, input_grad):
            return dy * math.nan

    model = nn.Sequential(nn.Dense(2, 3), Broken(), seed=0)
    with pytest.raises(nn.NonFiniteError, match="gradient"):
        nn.fit(model, blobs(30), epochs=99, batch_size=30, progress=False, precision="float16")


def test_a_loss_that_is_not_finite_is_reported_as_in_float32():
    x, y = blobs(30)
    x[3] = math.nan
    with pytest.raises(nn.NonFiniteError, match=r"sample \d+ of 30 is NaN"):
        nn.fit(net(), nn.DataLoader(x, y, 30), on_nan="stop", progress=False, precision="float16")


@pytest.mark.parametrize("parts", [{"accumulate": 4}, {"shards": 4}])
@pytest.mark.parametrize("precision", MIXED)
def test_parts_of_a_batch_add_up(parts, precision):
    x, y = blobs(64)
    found = []
    for options in ({"batch_size": 64}, {"batch_size": 16 if "accumulate" in parts else 64, **parts}):
        model = nn.Sequential(nn.Dense(2, 8), nn.Tanh(), nn.Dense(8, 3), seed=1)
        nn.fit(model, (x, y), optimizer=nn.SGD(model, lr=0.1), epochs=3, progress=False, precision=precision, **options)
        found.append(weights(model))
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], rtol=0, atol=2e-3, err_msg=name)


def test_a_resumed_run_has_the_bits_of_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr("xpnn.training.run.GradScaler", lambda: nn.GradScaler(2.0**27, growth_interval=7))
    data = blobs(48)

    def train(folder, epochs, resume=False, precision="float16"):
        model = net(dropout=True)
        nn.fit(
            *(model, data),
            optimizer=nn.Adam(model, lr=0.02),
            epochs=epochs,
            batch_size=16,
            checkpoints=folder,
            resume=resume,
            progress=False,
            precision=precision,
        )
        return model

    whole = train(tmp_path / "whole", 8)
    train(tmp_path / "parts", 3)
    state = nn.Checkpoints(tmp_path / "parts").newest().facts["loss_scale"]
    assert state["scale"] < 2.0**27
    assert_same(weights(train(tmp_path / "parts", 8, resume=True)), weights(whole))
    with pytest.raises(nn.CheckpointError, match="its precision was float16, this run's is bfloat16"):
        train(tmp_path / "parts", 9, resume=True, precision="bfloat16")
    train(tmp_path / "plain", 1, precision=None)
    train(tmp_path / "plain", 2, resume=True, precision="tf32")


@pytest.mark.parametrize("precision", ["tf32", *MIXED])
def test_refusals_come_before_the_first_step(precision):
    data = blobs()
    wide = nn.Sequential(nn.Dense(2, 3), dtype="float64", seed=0)
    before = weights(wide)
    if precision != "tf32":
        with pytest.raises(ValueError, match=f"dtype must be float32 with precision='{precision}'"):
            nn.fit(wide, data, progress=False, precision=precision)
        with pytest.raises(ValueError, match="is for the backends numpy, cupy and torch, got 'strict'"):
            nn.fit(nn.Sequential(nn.Dense(2, 3), backend="strict"), data, progress=False, precision=precision)
        with pytest.raises(ValueError, match=f"compile=True: steps with precision='{precision}' are not recorded"):
            nn.fit(net(), data, progress=False, precision=precision, compile=True)
    with pytest.raises(ValueError, match=f"numerics='exact'.*got '{precision}'"):
        nn.fit(nn.Sequential(nn.Dense(2, 3), numerics="exact"), data, progress=False, precision=precision)
    assert_same(weights(wide), before)
    with pytest.raises(ValueError, match="precision must be 'float32', 'tf32', 'float16' or 'bfloat16', got 'half'"):
        nn.fit(net(), data, progress=False, precision="half")


def test_an_error_in_a_run_leaves_the_precision_of_the_model():
    model = net()

    def stop(history):
        assert model.backend.precision == "float16"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nn.fit(model, blobs(), epochs=2, progress=False, precision="float16", after_epoch=stop)
    assert {layer.backend.precision for _, layer in model.named_layers()} == {"float32"}


def test_tf32_steps_are_still_compiled():
    model = net()
    nn.fit(model, blobs(), epochs=3, progress=False, precision="tf32", compile=True)


def test_float16_without_scaling_loses_small_gradients():
    """What the scale is for: gradients of 1e-9 are 0 in float16, and 6e-5 times the scale is not."""
    b = nn.get_backend("numpy", precision="float16")
    layer, scaler = nn.Dense(4, 4, backend=b), nn.GradScaler()
    x, dy = np.ones((2, 4), np.float32), np.full((2, 4), 1e-9, np.float32)
    layer(x)
    assert not np.any(layer.backward(dy))
    assert np.any(layer.backward(scaler.scale(dy)))
