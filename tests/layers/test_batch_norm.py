"""Running statistics of batch and instance norm: training, evaluation, state, moves."""

import copy
import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.normalisation.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from xpnn.layers.normalisation.instance_norm import InstanceNorm1d, InstanceNorm2d
from xpnn.testing import assert_match

F32 = np.float32
STATE = ["running_mean", "running_var", "num_batches_tracked"]


def batches(rng, shape, count=4):
    return [(rng.standard_normal(shape) * 3 + 2).astype(F32) for _ in range(count)]


def run(layer, put, hosts):
    """Train on all, then evaluate on the first: outputs and input gradients."""
    found = []
    for host in hosts:
        y = layer(put(host))
        found += [y, layer.backward(put(host * host))]
    return [*found, layer.eval()(put(hosts[0]))]


def run_torch(torch, layer, hosts):
    found = []
    for host in hosts:
        x = torch.tensor(host, requires_grad=True)
        y = layer(x)
        y.backward(torch.tensor(host * host))
        found += [y.detach(), x.grad]
    return [*found, layer.eval()(torch.tensor(hosts[0])).detach()]


@pytest.mark.parametrize(
    ("kind", "options", "shape"),
    [
        ("BatchNorm1d", {}, (4, 3)),
        ("BatchNorm1d", {"momentum": None}, (2, 3, 2)),
        ("BatchNorm2d", {"momentum": 0.7, "eps": 0.1}, (2, 3, 2, 3)),
        ("BatchNorm2d", {"momentum": 0.0}, (2, 3, 2, 1)),
        ("BatchNorm2d", {"momentum": 1.0}, (1, 3, 2, 2)),
        ("BatchNorm3d", {"affine": False}, (2, 3, 1, 2, 2)),
        ("BatchNorm2d", {"track_running_stats": False}, (2, 3, 2, 2)),
        ("InstanceNorm1d", {"track_running_stats": True}, (3, 3, 4)),
        ("InstanceNorm2d", {"track_running_stats": True, "affine": True, "momentum": 0.5}, (2, 3, 2, 2)),
        ("InstanceNorm3d", {}, (2, 3, 1, 2, 2)),
    ],
    ids=str,
)
def test_a_training_run_leaves_the_statistics_and_gradients_of_pytorch(at, torch, rng, kind, options, shape):
    ours = getattr(nn, kind)(3, **options, backend=at.backend)
    theirs = getattr(torch.nn, kind)(3, **options)
    hosts = batches(rng, shape)
    form = {"level": "network", "terms": 16, "backend": at.backend}
    for a, d in zip(run(ours, at.put, hosts), run_torch(torch, theirs, hosts), strict=True):
        assert_match(a, d, **form)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert_match(ours.state_dict()[name], tensor, name=name, **form)
    for name, parameter in theirs.named_parameters():
        assert_match(ours.parameters[name].grad, parameter.grad, name=f"gradient of {name}", **form)


def test_running_statistics_worked_by_hand(at):
    layer = BatchNorm1d(1, momentum=0.5, backend=at.backend)
    layer(at.put([[1.0], [3.0], [5.0]]))
    mean, var, batches = (at.get(layer.buffers[name]) for name in STATE)
    # The batch has mean 3 and unbiased variance 4; the layer starts from 0 and 1.
    assert (mean.tolist(), var.tolist(), batches.tolist()) == ([1.5], [2.5], 1)
    assert batches.shape == ()
    assert batches.dtype == np.int64
    assert_match(layer.eval()(at.put([[3.5]])), np.asarray([[2 / np.sqrt(2.5 + 1e-5)]]), dtype="float32")


def test_momentum_none_averages_over_all_batches(at, rng):
    layer, hosts = BatchNorm1d(2, momentum=None, dtype="float64", backend=at.wide()), batches(rng, (5, 2), 3)
    for host in hosts:
        layer(at.put(host, "float64"))
    wide = [host.astype(np.float64) for host in hosts]
    form = {"level": "reduction", "terms": 15}
    assert_match(layer.buffers["running_mean"], np.mean([h.mean(0) for h in wide], 0), **form)
    assert_match(layer.buffers["running_var"], np.mean([h.var(0, ddof=1) for h in wide], 0), **form)


def test_updates_replace_the_arrays_and_evaluation_changes_none(at, rng):
    layer = BatchNorm2d(3, backend=at.backend)
    x = at.put(batches(rng, (2, 3, 2, 2))[0])
    first = dict(layer.buffers)
    layer(x)
    second = dict(layer.buffers)
    assert at.get(first["running_mean"]).tolist() == [0, 0, 0]
    assert at.get(first["running_var"]).tolist() == [1, 1, 1]
    assert int(at.get(first["num_batches_tracked"])) == 0
    layer.eval()(x)
    for name in STATE:
        assert first[name] is not second[name]
        assert layer.buffers[name] is second[name]


def test_evaluation_does_not_depend_on_the_batch(at, rng):
    layer = BatchNorm1d(3, backend=at.backend)
    both = rng.standard_normal((2, 3)).astype(F32)
    layer(at.put(both))
    layer.eval()
    assert_match(layer(at.put(both[:1])), layer(at.put(both))[:1, :], level="exact", backend=at.backend)
    assert layer(at.put(np.zeros((0, 3), F32))).shape == (0, 3)


def test_a_step_copies_nothing_to_the_host(at, rng):
    layer = BatchNorm2d(3, momentum=None, backend=at.backend)
    x = at.put(batches(rng, (2, 3, 2, 2))[0])
    layer(x)
    before = at.backend.transfers
    layer.backward(layer(x))
    assert at.backend.transfers == before


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (BatchNorm1d(3), (1, 3)),
        (BatchNorm1d(3), (1, 3, 1)),
        (BatchNorm2d(3), (1, 3, 1, 1)),
        (BatchNorm3d(3, affine=False, track_running_stats=False), (1, 3, 1, 1, 1)),
        (BatchNorm1d(3, track_running_stats=False).eval(), (1, 3)),
        (InstanceNorm1d(3), (4, 3, 1)),
        (InstanceNorm2d(3, track_running_stats=True), (4, 3, 1, 1)),
        (InstanceNorm1d(3).eval(), (4, 3, 1)),
    ],
    ids=str,
)
def test_statistics_of_one_value_are_an_error(layer, shape):
    message = f"{layer!r}: the statistics of a channel need more than 1 value, the input has 1 for each (shape {shape})"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(np.zeros(shape, F32))
    if layer.buffers:
        assert int(layer.buffers["num_batches_tracked"]) == 0
        assert layer.eval()(np.zeros(shape, F32)).shape == shape


def test_an_empty_batch_is_counted_as_in_pytorch(at, torch):
    ours, theirs = BatchNorm1d(2, backend=at.backend), torch.nn.BatchNorm1d(2)
    ours(at.put(np.zeros((0, 2), F32)))
    theirs(torch.zeros(0, 2))
    for name, tensor in theirs.state_dict().items():
        assert_match(ours.state_dict()[name], tensor, level="exact", name=name)


def test_a_nan_stays_in_its_channel(at):
    layer = BatchNorm1d(2, backend=at.backend)
    y = at.get(layer(at.put([[np.nan, 1.0], [2.0, 3.0]])))
    assert np.isnan(y).tolist() == [[True, False], [True, False]]
    assert np.isnan(at.get(layer.buffers["running_var"])).tolist() == [True, False]


@pytest.mark.parametrize(
    "layer", [BatchNorm1d(3), BatchNorm1d(3, affine=False), InstanceNorm1d(3, affine=True)], ids=str
)
def test_another_dtype_than_the_layers_is_an_error(layer):
    with pytest.raises(TypeError, match=r"the input is float64, the (parameters|running statistics) are float32"):
        layer(np.zeros((2, 3, 2)))


def test_without_state_both_dtypes_are_accepted():
    for dtype in (np.float32, np.float64):
        assert InstanceNorm1d(3)(np.ones((2, 3, 2), dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (BatchNorm1d(3), (2, 4), "(N, 3) or (N, 3, *)"),
        (BatchNorm1d(3), (2, 3, 2, 2), "(N, 3) or (N, 3, *)"),
        (BatchNorm2d(3), (2, 3, 2), "(N, 3, *, *)"),
        (BatchNorm2d(3), (2, 1, 2, 2), "(N, 3, *, *)"),
        (BatchNorm3d(3), (2, 3), "(N, 3, *, *, *)"),
        (InstanceNorm1d(3), (3, 4), "(N, 3, *)"),
        (InstanceNorm2d(3), (2, 4, 2, 2), "(N, 3, *, *)"),
    ],
    ids=str,
)
def test_input_of_another_shape_is_an_error_that_names_the_layer(layer, shape, wanted):
    with pytest.raises(ValueError, match=re.escape(f"{layer!r}: input must have shape {wanted}, got {shape}")):
        layer(np.zeros(shape, F32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNorm1d(0), "num_features must be an integer >= 1, got 0"),
        (lambda: BatchNorm1d(3, eps=-1e-5), "eps must be a number >= 0, got -1e-05"),
        (lambda: BatchNorm1d(3, eps=float("nan")), "eps must be a number >= 0, got nan"),
        (lambda: BatchNorm1d(3, momentum=1.5), "momentum must be a number from 0 to 1, got 1.5"),
        (lambda: BatchNorm1d(3, momentum="0.1"), "momentum must be a number from 0 to 1, got '0.1'"),
        (lambda: InstanceNorm1d(3, momentum=None), "instance norm counts no batches"),
    ],
)
def test_arguments_out_of_range_are_an_error_at_once(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_has_its_own_statistics(rng, duplicate):
    layer, hosts = BatchNorm1d(3), batches(rng, (4, 3), 2)
    layer(hosts[0])
    other = duplicate(layer)
    kept = {name: array.copy() for name, array in layer.state_dict().items()}
    other(hosts[1])
    assert int(other.buffers["num_batches_tracked"]) == 2
    for name, array in layer.state_dict().items():
        assert_match(array, kept[name], level="exact")


def test_statistics_move_with_the_model_and_have_its_dtype(at, rng):
    hosts = batches(rng, (4, 3), 2)
    stays = nn.Sequential(BatchNorm1d(3), backend="numpy")
    moves = nn.Sequential(BatchNorm1d(3), backend="numpy")
    for host, x in zip(hosts, (at.put(hosts[0]), at.put(hosts[1])), strict=True):
        stays(host)
        moves(host if host is hosts[0] else x)
        moves.to(at.backend)
    for name, array in stays.state_dict().items():
        assert_match(moves.state_dict()[name], array, level="reduction", terms=8, backend=at.backend)
    moves.to(at.wide())
    assert moves.eval()(at.put(hosts[0], "float64")).shape == (4, 3)
    assert [str(moves.state_dict()[f"0.{name}"].dtype).rpartition(".")[2] for name in STATE] == [
        "float64",
        "float64",
        "int64",
    ]


def test_a_model_with_batch_norm_is_saved_and_loaded(at, rng, tmp_path):
    model = nn.Sequential(nn.Dense(3, 4), BatchNorm1d(4), backend=at.backend, seed=1)
    x = at.put(batches(rng, (5, 3))[0])
    model(x)
    nn.save(model, tmp_path / "model.safetensors")
    other = nn.Sequential(nn.Dense(3, 4), BatchNorm1d(4), backend=at.backend, seed=2)
    nn.load(other, tmp_path / "model.safetensors")
    assert_match(other.eval()(x), model.eval()(x), level="exact", backend=at.backend)
    assert int(at.get(other.state_dict()["1.num_batches_tracked"])) == 1


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_are_stored_in_float32_and_computed_in_float64(monkeypatch, rng, momentum):
    """As in exact numerics: `up` and `down` convert buffers too."""
    kind = type(nn.get_backend("numpy"))
    hosts = batches(rng, (4, 3), 2)
    desired = BatchNorm1d(3, momentum=momentum, dtype="float64")
    run(desired, lambda host: host.astype(np.float64), hosts)
    monkeypatch.setattr(kind, "accepts_directly", lambda self, array: False)
    monkeypatch.setattr(kind, "up", lambda self, array: array.astype(np.float64))
    monkeypatch.setattr(kind, "down", lambda self, array: array.astype(F32))
    layer = BatchNorm1d(3, momentum=momentum)
    assert all(array.dtype == F32 for array in run(layer, lambda host: host, hosts))
    for name in STATE[:2]:
        assert_match(layer.buffers[name], desired.buffers[name], dtype="float32")
    assert layer.buffers["num_batches_tracked"].dtype == np.int64
