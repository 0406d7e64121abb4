"""A moving average of weights: its formula, PyTorch's values, swapping in and out, and runs that resume."""

import numpy as np
import pytest

import xpnn as nn

X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
Y = np.arange(16) % 2


def net(b="numpy", **placement):
    return nn.Sequential(nn.Dense(3, 4), nn.BatchNorm1d(4), nn.Dense(4, 2), backend=b, seed=1, **placement)


def steps(model, ema, count=4, lr=0.5):
    b, loss = model.backend, nn.CrossEntropy(backend=model.backend)
    optimizer = nn.SGD(model, lr=lr)
    seen = []
    for _ in range(count):
        optimizer.zero_grad()
        loss(model(b.asarray(X)), b.asarray(Y))
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        ema.update()
        seen.append({name: b.to_numpy(array).copy() for name, array in model.state_dict().items()})
    return seen


def averages_of(ema, b):
    return {name: b.to_numpy(array).copy() for name, array in ema.state_dict()["averages"].items()}


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_averages_are_those_of_the_formula(at, numerics):
    model = net(at.computing(numerics))
    ema = nn.EMA(model, decay=0.75, use_buffers=True)
    seen = steps(model, ema)
    found = averages_of(ema, model.backend)
    assert set(found) == {name for name, array in seen[0].items() if array.dtype.kind == "f"}
    for name, array in found.items():
        wanted = seen[0][name].astype(np.float64)
        for each in seen[1:]:
            wanted = 0.75 * wanted + 0.25 * each[name]
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-6)


def test_averages_are_pytorchs(torch):
    model = nn.Dense(3, 2, dtype="float64", seed=1)
    ema = nn.EMA(model, decay=0.9)
    ours = torch.nn.Linear(3, 2, dtype=torch.float64)
    theirs = torch.optim.swa_utils.AveragedModel(ours, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for i in range(6):
        for name, parameter in model.named_parameters():
            value = np.random.default_rng(i).normal(size=parameter.shape)
            parameter.value = value
            getattr(ours, name).data.copy_(torch.from_numpy(value))
        ema.update()
        theirs.update_parameters(ours)
    for name, array in ema.state_dict()["averages"].items():
        np.testing.assert_allclose(array, getattr(theirs.module, name).detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_the_averages_are_applied_within_a_block_only(at, use_buffers):
    model = net(at.backend)
    ema = nn.EMA(model, decay=0.5, use_buffers=use_buffers)
    steps(model, ema)
    before = dict(model.state_dict())
    averages = averages_of(ema, model.backend)
    with pytest.raises(KeyError), ema.applied() as applied:
        assert applied is model
        for name, array in model.state_dict().items():
            wanted = averages.get(name, at.get(before[name]))
            np.testing.assert_array_equal(at.get(array), wanted)
        assert ("1.running_mean" in averages) == use_buffers
        with pytest.raises(RuntimeError, match="applied to the model now"):
            ema.update()
        raise KeyError
    assert all(array is before[name] for name, array in model.state_dict().items())
    ema.update()


def test_evaluation_uses_the_averages_and_training_goes_on_as_before():
    found = []
    for applies in (False, True):
        model = net()
        ema = nn.EMA(model, decay=0.9)
        steps(model, ema, 3)
        if applies:
            own = nn.predict(model, X)
            with ema.applied():
                averaged = nn.predict(model, X)
            assert (averaged != own).any() and (nn.predict(model, X) == own).all()
        found.append(steps(model, ema, 3)[-1])
    assert all((found[0][name] == found[1][name]).all() for name in found[0])


def test_a_state_goes_on_and_one_of_another_model_is_refused():
    model, other = net(), net("strict")
    ema, resumed = nn.EMA(model, decay=0.9), nn.EMA(other, decay=0.1)
    steps(model, ema, 3)
    resumed.load_state_dict(ema.state_dict())
    assert resumed.decay == 0.9
    other.load_state_dict({name: other.backend.asarray(array) for name, array in model.state_dict().items()})
    for each in (ema, resumed):
        each.update()
    ours, theirs = averages_of(ema, model.backend), averages_of(resumed, other.backend)
    assert all((ours[name] == theirs[name]).all() for name in ours)
    with pytest.raises(ValueError, match="not those of this model"):
        nn.EMA(nn.Dense(3, 4)).load_state_dict(ema.state_dict())
    for state in ({}, None, {"decay": 0.5, "averages": 3}, {"decay": 0.5, "averages": {"weight": 3}}, {"averages": {}}):
        with pytest.raises(ValueError, match="must be what state_dict"):
            ema.load_state_dict(state)


def test_averages_move_with_the_model():
    model = net()
    ema = nn.EMA(model, decay=0.5)
    steps(model, ema, 2)
    model.to("strict")
    with ema.applied():
        assert all(model.backend.owns(array) for array in model.state_dict().values())
    steps(model, ema, 1)
    assert all(model.backend.owns(array) for array in ema.state_dict()["averages"].values())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.EMA(net(), decay=1.0), ValueError, "decay must be a number >= 0 and < 1"),
        (lambda: nn.EMA("net"), TypeError, "model must be a Layer"),
        (lambda: nn.EMA(net()).applied().__enter__(), ValueError, "no averages yet"),
        (lambda: nn.fit(net(), (X, Y), ema=nn.EMA(net())), ValueError, "ema must be of the model that is trained"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_average_may_be_a_part_of_a_compiled_step(at):
    found = []
    for compiled in (False, True):
        model = nn.Sequential(nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 2), backend=at.backend, seed=1)
        b, loss = model.backend, nn.CrossEntropy(backend=model.backend)
        ema, optimizer = nn.EMA(model, decay=0.5), nn.SGD(model, lr=0.5)

        def step(x, y, model=model, ema=ema, optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            value = loss(model(x), y)
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            ema.update()
            return value

        run = b.compile(step, model, optimizer, ema) if compiled else step
        for _ in range(7):
            run(b.asarray(X), b.asarray(Y))
        found.append({name: array.tobytes() for name, array in averages_of(ema, b).items()})
    assert found[0] == found[1]


def fit(folder, epochs, resume=False, decay=0.9, **more):
    model = net()
    ema = nn.EMA(model, decay=decay)
    options = {"batch_size": 4, "progress": False, "checkpoints": folder, "resume": resume, "validation": (X, Y)}
    history = nn.fit(model, (X, Y), ema=ema, optimizer=nn.SGD(model, lr=0.5), epochs=epochs, **options, **more)
    with ema.applied():
        measured = nn.evaluate(model, (X, Y))["loss"]
    return history["validation_loss"], measured, {k: v.tobytes() for k, v in averages_of(ema, model.backend).items()}


def test_a_run_measures_the_averages_and_resumes_with_them(tmp_path):
    whole = fit(tmp_path / "whole", 4)
    assert whole[0][-1] == pytest.approx(whole[1], rel=1e-6)
    fit(tmp_path / "parts", 2)
    with pytest.raises(nn.CheckpointError, match="moving average"):
        fit(tmp_path / "parts", 4, resume=True, decay=0.5)
    assert fit(tmp_path / "parts", 4, resume=True) == whole


def test_the_best_epochs_averages_are_restored(tmp_path):
    stopping = nn.EarlyStopping(9, "validation_accuracy", restore_best=True)
    losses, measured, _ = fit(tmp_path / "run", 6, early_stopping=stopping)
    rows = nn.Checkpoints(tmp_path / "run").newest().facts["history"]
    best = max(range(len(rows)), key=lambda i: (rows[i]["validation_accuracy"], -i))
    assert measured == pytest.approx(losses[best], rel=1e-5)
