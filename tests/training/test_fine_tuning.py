"""`fit` of nets of which a part is frozen: parameters without gradients, layers in evaluation."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing.compare import same_bits

F32 = np.float32
QUIET = {"progress": False, "batch_size": 8}


def net(b="numpy", **placement):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.2)),
        nn.Conv2d(3, 3, 1),
        nn.BatchNorm2d(3),
        nn.Flatten(),
        nn.Dense(12, 3),
        backend=b,
        seed=1,
        **placement,
    )


def data(n=24):
    rng = np.random.default_rng(5)
    return rng.standard_normal((n, 1, 4, 4)).astype(F32), rng.integers(0, 3, n)


def state(model):
    return {name: np.array(model.backend.to_numpy(array)) for name, array in model.state_dict().items()}


def modes(model):
    return [layer.training for _, layer in model.named_layers()]


def frozen_backbone(model):
    """A frozen backbone, whose batch norm keeps its statistics."""
    model[0].freeze().eval()
    return model


@pytest.mark.parametrize("compile", [False, True])
def test_a_frozen_part_in_evaluation_stays_as_it_is(at, compile):
    model = frozen_backbone(net(at.backend))
    if compile and at.name not in ("numpy", "cupy"):
        pytest.skip("no compiled steps")
    before, was = state(model), modes(model)
    history = nn.fit(model, data(), epochs=3, validation=data(8), compile=compile, **QUIET)
    assert len(history.rows) == 3 and modes(model) == was
    for name, array in state(model).items():
        assert same_bits(array, before[name]) == name.startswith("0."), name


def test_evaluation_and_prediction_leave_modes_and_what_is_kept(rng):
    model = frozen_backbone(net())
    was = modes(model)
    x, y = data()
    nn.evaluate(model, (x, y))
    with nn.enable_grad():
        nn.predict(model, x)
        nn.evaluate(model, (x, y))
    assert modes(model) == was
    assert all(layer.saved is None for _, layer in model.named_layers())


def test_steps_are_those_of_a_loop_with_these_modes():
    model, by_hand = frozen_backbone(net()), frozen_backbone(net())
    nn.fit(model, data(), epochs=2, optimizer=nn.SGD(model, lr=0.1), validation=data(8), **QUIET)
    loader = nn.DataLoader(*data(), 8, shuffle=True, seed=0)
    optimizer, loss = nn.SGD(by_hand, lr=0.1), nn.CrossEntropy()
    for _ in range(2):
        for x, y in loader.batches(by_hand.backend):
            optimizer.zero_grad()
            loss(by_hand(x), y)
            by_hand.backward(loss.backward(), input_grad=False)
            optimizer.step()
    assert all(same_bits(array, state(by_hand)[name]) for name, array in state(model).items())


def test_a_model_in_evaluation_as_a_whole_is_trained_as_a_whole():
    model = net().eval()
    before = state(model)
    nn.fit(model, data(), epochs=1, **QUIET)
    assert not any(modes(model))
    assert not same_bits(state(model)["0.1.running_mean"], before["0.1.running_mean"])


@pytest.mark.parametrize("mode", [nn.no_grad, nn.enable_grad])
def test_fit_trains_within_any_mode_of_its_caller(mode):
    models = net(), net()
    nn.fit(models[0], data(), epochs=1, **QUIET)
    with mode():
        nn.fit(models[1], data(), epochs=1, validation=data(8), **QUIET)
    assert all(same_bits(array, state(models[1])[name]) for name, array in state(models[0]).items())


def test_a_batch_of_one_sample_is_fine_if_norms_are_in_evaluation():
    model = net()
    with pytest.raises(ValueError, match="can't be trained on 1 sample"):
        nn.fit(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dense(16, 3)), data(9), epochs=1, **QUIET)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dense(16, 3))
    model[1].eval()
    nn.fit(model, data(9), epochs=1, **QUIET)


def test_a_callback_may_freeze_and_thaw_between_epochs():
    model, seen = net(), []

    def after_epoch(history):
        seen.append(state(model))
        if len(seen) == 1:
            frozen_backbone(model)
        if len(seen) == 2:
            model[0].unfreeze().train()

    nn.fit(model, data(), epochs=3, validation=data(8), after_epoch=after_epoch, **QUIET)
    for name in seen[0]:
        assert same_bits(seen[1][name], seen[0][name]) == name.startswith("0.")
        assert not same_bits(seen[2][name], seen[1][name])


@pytest.mark.parametrize("shards", [1, [3, 1]])
def test_parts_on_threads_follow_flags_and_modes(shards):
    def train(shards):
        model = net(numerics="exact")

        def after_epoch(history):
            if len(history.rows) == 1:
                frozen_backbone(model)

        nn.fit(model, data(), epochs=2, shards=shards, after_epoch=after_epoch, **QUIET)
        return state(model)

    wanted = train(1)
    assert all(same_bits(array, wanted[name]) for name, array in train(shards).items())


def test_nothing_to_train_is_refused():
    model = net().freeze()
    with pytest.raises(ValueError, match="all of the optimizer's parameters are frozen"):
        nn.fit(model, data(), epochs=1, **QUIET)


def run(folder, epochs, start=frozen_backbone, change=lambda model, epoch: None):
    model = start(net())
    options = {"checkpoints": folder, "resume": True, "validation": data(8)}
    nn.fit(model, data(), epochs=epochs, after_epoch=lambda h: change(model, len(h.rows)), **options, **QUIET)
    return model


def test_a_resumed_run_has_the_flags_and_modes_of_the_saved_one(tmp_path):
    def change(model, epoch):
        if epoch == 2:
            model[0].unfreeze()
            model[2].eval()
        if epoch == 3:
            model[0].train()

    whole = run(tmp_path / "whole", 6, change=change)
    for epochs in (1, 3, 6):
        resumed = run(tmp_path / "parts", epochs, change=change)
    assert all(same_bits(array, state(resumed)[name]) for name, array in state(whole).items())
    assert all(parameter.requires_grad for _, parameter in resumed.named_parameters())
    assert modes(resumed) == modes(whole)


def test_a_run_that_is_killed_goes_on_with_the_rates_that_were_set_between_epochs(tmp_path):
    """The next checkpoint would be that of the next epoch, which a kill prevents."""

    def rates(folder, epochs):
        model = net()
        optimizer = nn.SGD([{"params": model[4], "lr": 0.2}, {"params": model[:3]}], lr=0.1)

        def lower(history):
            optimizer.param_groups[0]["lr"] *= 0.5

        nn.fit(
            model,
            data(),
            epochs=epochs,
            optimizer=optimizer,
            checkpoints=folder,
            resume=True,
            after_epoch=lower,
            **QUIET,
        )
        return model, optimizer.param_groups[0]["lr"]

    whole, rate = rates(tmp_path / "whole", 3)
    for epochs in (1, 2, 3):
        resumed, its_rate = rates(tmp_path / "parts", epochs)
    assert its_rate == rate == 0.2 * 0.5**3
    assert all(same_bits(array, state(resumed)[name]) for name, array in state(whole).items())


def test_a_weight_that_is_thawed_after_a_resume_gets_the_layout_that_it_would_have_had(tmp_path):
    def thaw(model, epoch):
        if epoch == 2:
            model[0].unfreeze()

    whole = run(tmp_path / "whole", 3, change=thaw)
    for epochs in (1, 3):
        resumed = run(tmp_path / "parts", epochs, change=thaw)
    layouts = [[parameter.value.strides for _, parameter in model.named_parameters()] for model in (whole, resumed)]
    assert layouts[0] == layouts[1]


def test_a_run_with_other_flags_or_modes_does_not_resume(tmp_path):
    run(tmp_path, 1)
    with pytest.raises(nn.CheckpointError, match=r"its frozen parameters was \('0.0.weight', '0.0.bias', '0.1.w"):
        run(tmp_path, 2, start=lambda model: model)
    with pytest.raises(nn.CheckpointError, match=r"its layers in evaluation was \('0', '0.0', '0.1', '0.2'"):
        run(tmp_path, 2, start=lambda model: model[0].freeze() and model)


def test_gradients_of_a_frozen_layer_are_not_clipped_nor_searched_for_nan():
    model = frozen_backbone(net())
    nn.fit(model, data(), epochs=1, clip_norm=0.1, clip_value=0.01, on_nan="stop", **QUIET)
    x, y = data()
    x[3, 0, 0, 0] = np.nan
    with pytest.raises(nn.NonFiniteError, match="the input of sample"):
        nn.fit(model, (x, y), epochs=1, on_nan="stop", **QUIET)
    assert [p.grad for _, p in model[0].named_parameters()] == [None] * 4
