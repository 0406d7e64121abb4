"""Model, optimizer, schedule, loss and data that do not fit together are refused before the first update."""

import copy
import hashlib

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.options import FitOptions
from xpnn.training.run import Run
from xpnn.training.trainer import Trainer

ROWS = np.random.default_rng(0).uniform(-1.0, 1.0, (12, 4)).astype(np.float32)
CLASSES = np.arange(12) % 3
NUMBERS = ROWS[:, :1] * 3.0


def net(outputs=3, seed=0):
    return nn.Sequential(nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, outputs), seed=seed)


def weights(model):
    return {name: model.backend.to_numpy(array).tobytes() for name, array in model.state_dict().items()}


def fit(model, data=(ROWS, CLASSES), **options):
    return nn.fit(model, data, epochs=1, progress=False, **options)


def refused(words, model, data=(ROWS, CLASSES), **options):
    """Check that `fit` raises this message and leaves the model and its gradients unchanged."""
    before = weights(model)
    with pytest.raises(ValueError, match=words):
        fit(model, data, **options)
    assert weights(model) == before
    assert all(parameter.grad is None for _, parameter in model.named_parameters())


def test_an_optimizer_of_another_model_is_refused():
    refused(
        r"none of the optimizer's parameters are the model's: 0\.weight \(5, 4\), .* 1 more",
        net(),
        optimizer=nn.Adam(net()),
    )


def test_an_optimizer_of_two_models_is_refused_for_one_of_them():
    model, other = net(), nn.Dense(4, 2)
    both = {**dict(model.named_parameters()), "other": other.parameters["weight"]}
    refused(
        r"not all of the optimizer's parameters are the model's: other \(2, 4\) belong",
        model,
        optimizer=nn.SGD(both, lr=0.1),
    )


def test_an_optimizer_of_some_layers_trains_these():
    model = net()
    before = weights(model)
    fit(model, optimizer=nn.SGD(model[2], lr=0.1))
    assert [name for name, value in weights(model).items() if value != before[name]] == ["2.weight", "2.bias"]


def test_parameters_replaced_after_the_optimizer_was_made_are_refused():
    model = net()
    optimizer = nn.SGD(model, lr=0.1)
    model[0].parameters["weight"] = nn.Parameter(ROWS[:5, :])
    refused(r"not all .*: 0\.weight \(5, 4\) .* replaced in this one after", model, optimizer=optimizer)
    fit(model, optimizer=nn.SGD(model, lr=0.1))


def test_parameters_replaced_between_epochs_are_refused():
    model = net()

    def replace(history):
        model[0].parameters["weight"] = nn.Parameter(ROWS[:5, :])

    with pytest.raises(ValueError, match=r"0\.weight .* replaced"):
        nn.fit(model, (ROWS, CLASSES), epochs=2, progress=False, after_epoch=replace)


def test_a_model_that_was_moved_keeps_its_optimizer():
    model = net()
    optimizer = nn.SGD(model, lr=0.1)
    fit(model.to("strict"), optimizer=optimizer)


def test_a_copy_of_a_model_is_another_model():
    model = net()
    refused("none of the optimizer's", copy.deepcopy(model), optimizer=nn.SGD(model, lr=0.1))


@pytest.mark.parametrize(
    "schedule",
    [lambda o: nn.StepLR(o, 3), lambda o: nn.CosineLR(o, total_steps=9), nn.ReduceLROnPlateau],
    ids=["step", "cosine", "plateau"],
)
def test_a_schedule_of_another_optimizer_is_refused(schedule):
    model = net()
    optimizer = nn.SGD(model, lr=0.1)
    refused("the rate of another optimizer", model, optimizer=optimizer, schedule=schedule(nn.SGD(model, lr=0.1)))
    refused("the rate of another optimizer", model, schedule=schedule(optimizer))
    fit(model, optimizer=optimizer, schedule=schedule(optimizer))


def test_a_run_refuses_the_same():
    model, loader = net(), nn.DataLoader(ROWS, CLASSES)
    with pytest.raises(ValueError, match="none of the optimizer's"):
        Run(FitOptions(model, loader, optimizer=nn.SGD(net(), lr=0.1)))
    with pytest.raises(ValueError, match="CrossEntropy needs classes"):
        Run(FitOptions(model, nn.DataLoader(ROWS, NUMBERS), loss=nn.CrossEntropy(), optimizer=nn.SGD(model, lr=0.1)))
    trainer = Trainer(Run(FitOptions(model, loader, optimizer=nn.SGD(model, lr=0.1), epochs=1, progress=False)))
    model[0].parameters["weight"] = nn.Parameter(ROWS[:5, :])
    with pytest.raises(ValueError, match="replaced in this one"):
        trainer.train()


def test_a_model_without_parameters_has_nothing_to_train():
    with pytest.raises(ValueError, match=r"Adam: there is nothing to train, Sequential\(ReLU\(\)\) has no parameters"):
        fit(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("y", [NUMBERS, NUMBERS[:, 0]], ids=["(N, 1)", "(N,)"])
@pytest.mark.parametrize("loss", [None, nn.CrossEntropy()], ids=["usual", "given"])
def test_numbers_are_refused_by_cross_entropy(y, loss):
    words = r"float32 of shape .*, but CrossEntropy.* needs classes.*for numbers pass loss=nn\.MSE\(\)"
    refused(words, net(1), (ROWS, y), loss=loss)
    refused(words, net(3), validation=(ROWS, y), loss=loss)
    with pytest.raises(ValueError, match=words):
        nn.evaluate(net(1), (ROWS, y), loss=loss)


def test_numbers_are_trained_on_by_the_loss_that_the_message_names():
    assert fit(net(1), (ROWS, NUMBERS), loss=nn.MSE()).rows[0]["train_loss"] > 0.0


@pytest.mark.parametrize("y", [ROWS[:, :3], np.abs(ROWS[:, :3]), np.full((12, 3), np.nan, np.float32)])
def test_the_default_loss_accepts_probabilities_and_no_other_numbers(y):
    refused("no probabilities.*for numbers pass loss", net(3), (ROWS, y))
    with pytest.raises(ValueError, match="no probabilities"):
        nn.evaluate(net(3), (ROWS, y))


def test_probabilities_are_trained_on():
    fit(net(3), (ROWS, np.eye(3, dtype=np.float32)[CLASSES]))


@pytest.mark.parametrize("loss", [None, nn.CrossEntropy(), nn.NLL()])
def test_a_single_class_is_refused(loss):
    refused("the model predicts one class.*BinaryCrossEntropyWithLogits", net(1), (ROWS, CLASSES * 0), loss=loss)
    with pytest.raises(ValueError, match="the model predicts one class"):
        nn.evaluate(net(1), (ROWS, CLASSES * 0), loss=loss)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (-1, 2), (-5, 7)])
def test_classes_that_the_model_does_not_have_are_refused_before_the_first_update(low, high):
    """Otherwise a class in the last batch would be noticed after all others were trained on, on a GPU as a NaN."""
    y = CLASSES.copy()
    y[-1], y[-2] = high, low
    model = net(3)
    loader = nn.DataLoader(ROWS, y, batch_size=4, shuffle=False)
    refused(f"targets run from {low} to {high}, but the model predicts 3 classes, 0 to 2", model, loader)


def test_targets_that_are_ignored_are_no_classes():
    y = CLASSES.copy()
    y[3] = 77
    fit(net(3), (ROWS, y), loss=nn.CrossEntropy(ignore_index=77))


@pytest.mark.parametrize("loss", [nn.BinaryCrossEntropy(), nn.BinaryCrossEntropyWithLogits()], ids=str)
@pytest.mark.parametrize("y", [np.float32([-1.0, 1.0]), np.float32([0.0, 2.0])], ids=str)
def test_yes_and_no_are_from_0_to_1(loss, y):
    y = np.tile(y, 6)[:, None]
    refused(f"from {y.min():g} to {y.max():g}, but Binary.* needs 0 for no, 1 for yes", net(1), (ROWS, y), loss=loss)


def test_a_loss_of_probabilities_refuses_other_predictions():
    yes = (ROWS[:, :1] > 0.0).astype(np.float32)
    scaled = ROWS * 100.0
    with np.errstate(invalid="ignore"):
        refused("end the model with a Sigmoid", net(1), (scaled, yes), loss=nn.BinaryCrossEntropy())
    fit(nn.Sequential(net(1), nn.Sigmoid()), (scaled, yes), loss=nn.BinaryCrossEntropy())


def test_a_loss_of_logarithms_of_probabilities_refuses_other_predictions():
    refused(r"at most 0: end the model with a LogSoftmax, or pass loss=nn\.CrossEntropy\(\)", net(), loss=nn.NLL())
    fit(nn.Sequential(net(), nn.LogSoftmax()), loss=nn.NLL())


def test_a_refusal_leaves_statistics_and_random_streams_as_they_were():
    model = nn.Sequential(nn.Dense(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    place = model[2].stream.position
    refused("targets run from 0 to 3", model, (ROWS, np.arange(12) % 4), batch_size=12, loss=OnAnyDevice())
    assert model[2].stream.position == place


class OnAnyDevice(nn.CrossEntropy):
    """As on a GPU, where the loss does not read its targets."""

    def _are_in_range(self, classes, xp, target):
        return True


def test_a_refused_run_changes_no_folder(tmp_path):
    refused("none of the optimizer's", net(), optimizer=nn.Adam(net()), checkpoints=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_of_some_layers_goes_on_from_its_checkpoint(tmp_path):
    def run(epochs):
        model = net()
        nn.fit(
            model,
            (ROWS, CLASSES),
            optimizer=nn.SGD(model[2], lr=0.1, momentum=0.5),
            epochs=epochs,
            progress=False,
            checkpoints=tmp_path / str(epochs > 2),
            resume=True,
        )
        return hashlib.sha256(b"".join(weights(model).values())).hexdigest()

    whole = run(3)
    (tmp_path / "True").rename(tmp_path / "done")
    run(2)
    (tmp_path / "False").rename(tmp_path / "True")
    assert run(3) == whole
