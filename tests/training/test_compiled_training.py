"""Compiled steps in `fit`: the bits of plain steps, and plain steps where a step can't be recorded."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import CaptureError
from xpnn.backends.cpu import recorder
from xpnn.backends.recording import compiled_step
from xpnn.training import compiled_training


@pytest.fixture(params=["numpy", "gpu"])
def b(request):
    return nn.get_backend("numpy") if request.param == "numpy" else request.getfixturevalue("gpu")


@pytest.fixture
def replays(monkeypatch):
    """Counts replays."""
    found, usual = [], compiled_step.CompiledStep._replay

    def count(self, recording):
        found.append(self)
        return usual(self, recording)

    monkeypatch.setattr(compiled_step.CompiledStep, "_replay", count)
    return found


def data(samples=70, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    return (rng.normal(size=(samples, 1, 6, 6)) + y[:, None, None, None]).astype("float32"), y


def net(b):
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Dense(64, 3))
    return nn.Sequential(*layers, backend=b, seed=1)


def run(b, compile, make_optimizer=nn.Adam, schedule=None, **options):
    model = options.pop("model", None) or net(b)
    optimizer = make_optimizer(model)
    history = nn.fit(
        model,
        options.pop("data", None) or data(),
        optimizer=optimizer,
        schedule=None if schedule is None else schedule(optimizer),
        compile=compile,
        **{"progress": False, "epochs": 4, "batch_size": 16, **options},
    )
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]
    return rows, {name: b.to_numpy(array).tobytes() for name, array in model.state_dict().items()}


WAYS = {
    "adam": {},
    "momentum": {"make_optimizer": lambda model: nn.SGD(model, lr=0.1, momentum=0.9)},
    "schedule": {"schedule": lambda optimizer: nn.CosineLR(optimizer, 20)},
    "clipped": {"clip_norm": 0.5, "clip_value": 0.1},
    "checked": {"on_nan": "stop", "clip_norm": 0.5},
    "skipping": {"on_nan": "skip", "validation": data(20, 1)},
}


@pytest.mark.parametrize("way", WAYS)
def test_compiled_runs_have_the_bits_of_plain_ones(b, way, replays):
    assert run(b, True, **WAYS[way]) == run(b, False, **WAYS[way])
    # On a GPU each learning rate needs a recording of its own.
    assert bool(replays) == (way != "schedule" or b.is_host)


def test_exact_runs_are_compiled_too(replays):
    b = nn.get_backend("numpy", numerics="exact")
    assert run(b, True) == run(b, False) and replays


def test_a_compiled_run_resumes_to_the_same_bits(b, tmp_path, replays):
    whole = run(b, False)
    for compile in (True, False, True):
        folder = tmp_path / str(compile)
        run(b, compile, epochs=2, checkpoints=folder)
        assert run(b, not compile, checkpoints=folder, resume=True) == whole
        nn.Checkpoints(folder).clear()
    assert replays


def test_the_best_weights_of_a_compiled_run_are_kept(b):
    stopping = nn.EarlyStopping(2, restore_best=True)
    options = {"validation": data(30, 5), "early_stopping": stopping, "epochs": 8}
    assert run(b, True, **options) == run(b, False, **options)


def test_a_batch_that_is_skipped_leaves_a_compiled_run_as_it_was(b, replays):
    x, y = data()
    x[40] = np.inf
    options = {"data": (x, y), "on_nan": "skip"}
    assert run(b, True, **options) == run(b, False, **options) and replays


def test_a_run_that_diverges_stops_at_the_same_step(b):
    messages = []
    for compile in (True, False):
        with pytest.raises(nn.NonFiniteError) as caught:
            run(b, compile, lambda model: nn.SGD(model, lr=1e18), on_nan="stop", epochs=10)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("on_nan", [None, "stop"])
def test_targets_out_of_range_are_named_in_a_compiled_run(on_nan):
    b, (x, y) = nn.get_backend("numpy"), data(160)
    y[130] = 7
    loader = nn.DataLoader(x, y, batch_size=16, shuffle=False)
    with pytest.raises(ValueError, match="7"):
        run(b, True, data=loader, on_nan=on_nan)


# Automatic


def test_long_runs_are_compiled_by_themselves_and_short_ones_are_not(b, replays):
    run(b, "auto")
    assert not replays
    run(b, "auto", epochs=30)
    # The last batch of an epoch is not full, and is not compiled.
    assert len(replays) >= 30 * 4 - 4 and {step.recorded for step in replays} == {1}


def test_large_nets_are_not_compiled_on_a_cpu(replays, monkeypatch):
    monkeypatch.setattr(compiled_training, "MOST_BYTES", 100)
    run(nn.get_backend("numpy"), "auto", epochs=30)
    assert not replays


class Counting(nn.ReLU):
    """A layer of a user's, which does more than compute."""

    calls = 0

    def _forward(self, x):
        Counting.calls += 1
        return super()._forward(x)


def test_steps_with_code_of_a_user_are_not_compiled_by_themselves(b, replays):
    def model():
        return nn.Sequential(nn.Flatten(), nn.Dense(36, 8), Counting(), nn.Dense(8, 3), backend=b, seed=1)

    Counting.calls = 0
    run(b, "auto", model=model(), epochs=30)
    assert not replays and Counting.calls >= 30 * 5
    Counting.calls = 0
    run(b, True, model=model(), epochs=30)
    assert replays and Counting.calls < 100


@pytest.mark.parametrize("options", [{"shards": 2}, {"accumulate": 2}])
def test_steps_in_parts_are_not_compiled(b, options, replays):
    run(b, "auto", epochs=60, **options)
    assert not replays
    with pytest.raises(ValueError, match="compile=True needs whole batches"):
        run(b, True, **options)


def refuse(self, work, given, numbers):
    raise CaptureError("this can't be repeated")


def test_training_goes_on_with_plain_steps_after_one_line(replays, monkeypatch, capsys):
    b = nn.get_backend("numpy")
    wanted = run(b, False, epochs=30)
    monkeypatch.setattr(recorder.NumpyRecorder, "record", refuse)
    assert run(b, "auto", epochs=30, progress=True) == wanted and not replays
    notes = [line.strip() for line in capsys.readouterr().err.splitlines() if "uncompiled" in line]
    assert notes == ["training steps run uncompiled: this can't be repeated"]
    with pytest.raises(CaptureError, match="this can't be repeated"):
        run(b, True)


class Drifting(nn.SGD):
    """A rule that changes one of its numbers in each step."""

    def _step(self, gradient, state, xp):
        self.momentum += 1e-6
        return gradient * self.lr


def test_a_step_that_was_taken_before_it_is_refused_is_not_taken_again(monkeypatch, capsys):
    b = nn.get_backend("numpy")
    monkeypatch.setattr(compiled_training, "_runs_no_code_of_the_user", lambda run: True)
    assert run(b, "auto", Drifting, epochs=30, progress=True) == run(b, False, Drifting, epochs=30)
    assert "SGD.momentum" in capsys.readouterr().err.replace("Drifting", "SGD")


def test_batches_of_many_shapes_end_compiling(monkeypatch, capsys, replays):
    b = nn.get_backend("numpy")
    monkeypatch.setattr(compiled_training, "PATIENCE", 3)

    def change(optimizer):
        return lambda history: setattr(optimizer, "weight_decay", 1e-4 * len(history.rows))

    found = []
    for compile in ("auto", False):
        model = net(b)
        optimizer = nn.Adam(model)
        nn.fit(
            model,
            data(16),
            optimizer=optimizer,
            compile=compile,
            epochs=110,
            batch_size=16,
            after_epoch=change(optimizer),
        )
        found.append({name: array.tobytes() for name, array in model.state_dict().items()})
    assert found[0] == found[1] and not replays
    assert "settings or shapes change at every step" in capsys.readouterr().err


def test_compile_true_is_refused_where_nothing_can_be_recorded():
    with pytest.raises(ValueError, match="backend 'strict' can't record steps"):
        run(nn.get_backend("strict"), True)


def test_compile_is_checked():
    with pytest.raises(ValueError, match="compile must be True, False or 'auto', got 'yes'"):
        run(nn.get_backend("numpy"), "yes")
