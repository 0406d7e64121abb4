"""What ranks measure: in the order of the batches, each sample once, and with numbers of their own for each rank."""

import pytest
import rank_scripts

# In float64, in which a sum of losses in another order often has other bits.
EVALUATE = """
model = nn.Sequential(nn.Flatten(), nn.Dense(128, 5), backend="numpy", dtype="float64", seed=0)
tell([nn.evaluate(model, samples(23, seed), batch_size=2, group=group) for seed in range(12)])
"""


@pytest.mark.parametrize("ranks", [2, 3])
def test_batches_are_added_in_their_order(tmp_path, ranks):
    (alone,) = rank_scripts.run(None, tmp_path, EVALUATE)
    assert rank_scripts.run(ranks, tmp_path, EVALUATE) == [alone] * ranks


# Interrupted after three of five steps.
INTERRUPTED = """
import os, signal
x, y = samples(20)
model = nn.Sequential(nn.Flatten(), nn.Dense(128, 5), backend="numpy", dtype="float64", seed=0)
def stop(prediction, target, calls=[]):
    calls.append(0)
    if len(calls) == 3 and not RESUME:
        os.kill(os.getpid(), signal.SIGINT)
    return 0.0
options = dict(optimizer=nn.SGD(model, lr=0.05), epochs=1, batch_size=4, progress=False, group=group)
try:
    history = nn.fit(model, (x, y), metrics=[stop], checkpoints=FOLDER, resume=RESUME, **options)
except KeyboardInterrupt:
    tell("interrupted")
else:
    (row,) = history.rows
    tell([row["train_loss"], row["train_accuracy"]])
"""


@pytest.mark.parametrize("resumed", [2, 3])
def test_the_metrics_of_an_epoch_that_goes_on_count_each_sample_once(tmp_path, resumed):
    first = INTERRUPTED.replace("FOLDER", repr(str(tmp_path / "run"))).replace("RESUME", "False")
    assert rank_scripts.run(2, tmp_path, first) == ["interrupted"] * 2
    second = INTERRUPTED.replace("FOLDER", repr(str(tmp_path / "run"))).replace("RESUME", "True")
    (whole,) = rank_scripts.run(
        None, tmp_path, INTERRUPTED.replace("checkpoints=FOLDER, resume=RESUME, ", "").replace("RESUME", "True")
    )
    for found in rank_scripts.run(resumed, tmp_path, second):
        assert found == pytest.approx(whole, rel=1e-12)


def test_ranks_that_draw_by_themselves_draw_other_numbers(tmp_path):
    text = """
    drawn = []
    def note(prediction, target):
        drawn.append((np.asarray(prediction) == 0).ravel().tolist())
        return 0.0
    model = nn.Sequential(nn.Dense(40, 40, bias=False), nn.Dropout(0.5), backend="numpy", seed=0)
    model[0].parameters["weight"].value = np.eye(40, dtype="float32")
    x = np.ones((8, 40), "float32")
    optimizer = nn.SGD(model, lr=1e-30)
    options = dict(loss=nn.MSE(), optimizer=optimizer, epochs=2, batch_size=8, accumulate=2, progress=False)
    nn.fit(model, (x, x), metrics=[note], group=group, **options)
    tell(drawn)
    """
    every = [tuple(mask) for drawn in rank_scripts.run(2, tmp_path, text) for mask in drawn]
    assert len(every) > 2 and len(set(every)) == len(every)
