"""Ranks without samples, and steps that differ from the first one."""

import numpy as np
import pytest
import rank_scripts

TRAIN = """
layers = [nn.Conv2d(2, 4, 3, padding="same"), NORM, nn.ReLU(), nn.Flatten(), nn.Dense(256, 5)]
model = nn.Sequential(*layers, backend="numpy", seed=3)
x, y = samples(COUNT)
data = nn.DataLoader(x, y, BATCH, shuffle=False)
optimizer = nn.SGD(model, lr=0.02, momentum=0.9)
nn.fit(model, data, optimizer=optimizer, epochs=2, clip_norm=0.5, progress=False, group=group, OPTIONS)
tell(weights(model))
"""


def train(ranks, folder, count, batch, norm="nn.Identity()", options=""):
    text = TRAIN.replace("COUNT", str(count)).replace("BATCH", str(batch)).replace("NORM", norm)
    return rank_scripts.run(ranks, folder, text.replace(", OPTIONS", f", {options}" if options else ""))


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_that_never_has_samples_gets_the_gradients_of_others(tmp_path, ranks):
    # The gradient of a convolution has another order in memory than its shape.
    (alone,), found = train(None, tmp_path, 5, 1), train(ranks, tmp_path, 5, 1)
    assert all(each == found[0] for each in found)
    np.testing.assert_allclose(found[0], alone, rtol=1e-4, atol=1e-5)


def test_running_statistics_of_a_rank_without_samples_are_those_of_all(tmp_path):
    (alone,) = train(None, tmp_path, 6, 2, "nn.BatchNorm2d(4)")
    found = train(3, tmp_path, 6, 2, "nn.BatchNorm2d(4, group=group)")
    assert all(each == found[0] for each in found)
    np.testing.assert_allclose(found[0], alone, rtol=1e-3, atol=1e-4)


def test_accumulated_gradients_of_a_small_first_step(tmp_path):
    text = """
    from xpnn.distributed.buckets import GradientBuckets
    p = nn.Parameter(np.zeros(3, np.float32))
    buckets = GradientBuckets(group, [p], once=False)
    for parts in (1, 2):
        p.zero_grad()
        with buckets.summed():
            for _ in range(parts):
                p.accumulate(np.ones(3, np.float32))
    tell(p.grad.tolist())
    """
    assert rank_scripts.run(2, tmp_path, text) == [[4.0] * 3] * 2


def test_accumulate_measures_a_batch_norm_only_in_its_steps(tmp_path):
    # Weights of classes are counted by a forward of one sample, which must leave statistics alone.
    options = "loss=nn.CrossEntropy(weight=[1, 2, 3, 4, 5]), accumulate=2"
    text = TRAIN.replace("COUNT", "16").replace("BATCH", "4").replace("NORM", "nn.BatchNorm2d(4)")
    text = text.replace("OPTIONS", options).replace("weights(model)", "int(layers[1].buffers['num_batches_tracked'])")
    assert rank_scripts.run(2, tmp_path, text) == [8, 8]
