"""A process that trains by itself is a group of one, which exchanges nothing."""

import argparse

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.train import processes
from xpnn.distributed.single import SingleProcess, alone
from xpnn.training.options import FitOptions


def trained(at, numerics, group, **options):
    x = np.random.default_rng(0).normal(size=(18, 4)).astype("float32")
    data = x, np.arange(18) % 3
    backend = at.computing(numerics)
    model = nn.Sequential(nn.Dense(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dense(6, 3), backend=backend, seed=1)
    options |= {"validation": data, "epochs": 2, "batch_size": 6, "on_nan": "stop", "progress": False}
    history = nn.fit(model, data, group=group, **options)
    measured = nn.evaluate(model, data, batch_size=7, group=group)
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]
    weights = [backend.to_numpy(array).tobytes() for array in model.state_dict().values()]
    return rows, measured, weights


@pytest.mark.parametrize(
    ("numerics", "options"),
    [("fast", {}), ("exact", {}), ("fast", {"accumulate": 2}), ("fast", {"shards": [2, 1]}), ("exact", {"shards": 2})],
)
def test_a_group_of_one_trains_as_a_process_without_a_group(at, numerics, options):
    group = nn.distributed.init()
    assert trained(at, numerics, group, **options) == trained(at, numerics, None, **options)
    assert group.traffic == (0, 0, 0.0)


def test_options_without_a_group_have_one_of_this_process():
    model, data = nn.Sequential(nn.Dense(2, 2), seed=0), (np.zeros((2, 2)), np.zeros(2, "int64"))
    group, given = FitOptions(model, data).processes, nn.distributed.init()
    assert (group.rank, group.size) == (0, 1) and FitOptions(model, data, group=given).processes is given


@pytest.mark.parametrize(
    ("option", "message"),
    [({"shards": 2}, "group and shards both split each batch"), ({"compile": True}, "compile=True: steps of a group")],
)
def test_what_needs_one_process_is_refused_with_several(option, message):
    class OneOfTwo(SingleProcess):
        size = 2

    model, data = nn.Sequential(nn.Dense(2, 2), seed=0), (np.zeros((2, 2)), np.zeros(2, "int64"))
    with pytest.raises(ValueError, match=message):
        nn.fit(model, data, group=nn.distributed.Group(OneOfTwo()), **option)


def test_values_of_a_group_of_one_are_returned_as_they_are():
    group, value = alone(), object()
    assert group.of_root(value) is value and group.gather(value)[0] is value and group.agree(True, False) == [1, 0]
    with pytest.raises(KeyError), group.reporting(), group.allowing(9.0):
        raise KeyError
    group.barrier()
    # Nobody has to hear of the error.
    assert not group.has_failed and group.traffic == (0, 0, 0.0)


def test_what_a_group_of_one_finds_names_no_rank():
    model = nn.Sequential(nn.Dense(2, 2), backend="numpy", seed=0)
    x = np.full((4, 2), np.nan, "float32")
    with pytest.raises(nn.NonFiniteError) as error:
        nn.fit(model, (x, np.zeros(4, "int64")), on_nan="stop", progress=False, group=nn.distributed.init())
    assert "rank" not in str(error.value)


@pytest.mark.parametrize("engine", ["none", "auto"])
def test_the_command_joins_a_group_of_one(engine):
    assert processes.joined(argparse.Namespace(distributed=engine)).size == 1
