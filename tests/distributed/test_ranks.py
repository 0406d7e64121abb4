"""Groups of processes that MPI starts: what they exchange, and that training has the result of one process."""

import numpy as np
import pytest
import ranks
from rank_programs import train


@pytest.mark.parametrize("count", [2, 3])
def test_exchanges(count):
    found = ranks.run(count, "exchanges")
    own = np.arange(6.0).reshape(2, 3)
    for each in found:
        assert each["sum"] == (count * own + sum(range(count))).tolist()
        assert each["integers"] == [count * 2**40 + sum(range(count))] * 3
        assert each["max"] == repr([-1.5, float(count - 1)])
        assert each["max with NaN"] == "[nan, nan, -inf]"
        assert each["broadcast"] == (own + count - 1).tolist()
        assert each["gather"] == [{"rank": rank} for rank in range(count)]
        assert each["of root"] == ["root", 0]
        assert each["agree"] == [True, False]
        assert each["empty"] == [0, 3] and each["unchanged"]


def test_exchanges_on_every_backend(at):
    assert ranks.run(2, "exchanges", at.backend.spec) == ranks.run(2, "exchanges")


@pytest.fixture(scope="module")
def one_process():
    return train(None, "exact", epochs=3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_exact_training_has_the_bits_of_one_process(count, one_process):
    for found in ranks.run(count, "train", "exact", {}, 3):
        assert (found["weights"], found["rows"]) == (one_process["weights"], one_process["rows"])
        assert found["messages"] > 0 or count == 1


def test_exact_training_has_the_bits_of_threads(one_process):
    assert train(None, "exact", {"shards": [2, 1]}, 3) | {"rows": None} == one_process | {"rows": None}


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"on_nan": "stop", "batch_size": 7}], ids=str)
def test_exact_training_with_small_parts(options):
    alone = train(None, "exact", options, 1)
    for found in ranks.run(3, "train", "exact", options, 1):
        assert (found["weights"], found["rows"]) == (alone["weights"], alone["rows"])


def test_a_run_of_three_ranks_goes_on_with_one(tmp_path, one_process):
    folder = str(tmp_path / "run")
    ranks.run(3, "train", "exact", {}, 2, folder)
    assert train(None, "exact", {}, 3, folder, True)["weights"] == one_process["weights"]


def test_a_run_of_one_process_goes_on_with_two_ranks(tmp_path, one_process):
    folder = str(tmp_path / "run")
    train(None, "exact", {}, 1, folder)
    for found in ranks.run(2, "train", "exact", {}, 3, folder, True):
        assert (found["weights"], found["rows"]) == (one_process["weights"], one_process["rows"])


def same_up_to_rounding(found, alone):
    assert found["norm"] == pytest.approx(alone["norm"], rel=1e-12)
    for row, own in zip(found["rows"], alone["rows"], strict=True):
        assert row == pytest.approx(own, rel=1e-9)


@pytest.mark.parametrize(
    "options", [{"norms": False}, {"synchronised": True}, {"norms": False, "batch_size": 2}], ids=str
)
def test_fast_training_is_that_of_one_process(options):
    options |= {"dtype": "float64"}
    alone = train(None, "fast", {**options, "synchronised": False}, optimizer="sgd")
    every = ranks.run(3, "train", "fast", options, 2, None, False, "numpy", "sgd")
    for found in every:
        same_up_to_rounding(found, alone)
    assert len({found["weights"] for found in every}) == 1


def test_ranks_end_with_the_same_weights_and_statistics():
    every = ranks.run(2, "train", "fast", {"accumulate": 2})
    assert every[0]["weights"] == every[1]["weights"] and every[0]["rows"] == every[1]["rows"]


def test_parameters_that_some_ranks_do_not_use():
    for found in ranks.run(2, "sparse_gradients", "once"):
        assert found == [[[10.0] * 3, None, [2.0 + 2 * step] * 3] for step in range(3)]


def test_a_parameter_with_two_gradients():
    for found in ranks.run(2, "sparse_gradients", "twice"):
        assert found == [[[10.0] * 3, None, [202.0 + 2 * step] * 3] for step in range(3)]


def test_messages_of_a_step_do_not_grow_with_the_batch():
    small, large = (ranks.run(2, "train", "fast", {"batch_size": n}, 1)[0] for n in (22, 43))
    assert small["messages"] - large["messages"] <= 3


def test_ranks_begin_with_the_weights_of_rank_0():
    first, second = ranks.run(2, "other_weights")
    assert first == second
