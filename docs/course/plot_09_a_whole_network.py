r"""
9. A whole network by hand, and what it learns
==============================================

The functions of the pages before, in a row, are a convolutional net; their backwards in the opposite order are its
gradient; and a dozen lines train it. Then the same net is trained by :func:`xpnn.fit`, with the same numbers, and taken
apart: what are its filters, and what do its planes show of a digit?
"""

import drawing
import numpy as np
from drawing_nets import array, curves
from sklearn.datasets import load_digits

import xpnn as nn
from xpnn.functional import (
    conv,
    conv_backward,
    cross_entropy,
    cross_entropy_backward,
    dense,
    dense_backward,
    max_pool,
    max_pool_backward,
    relu,
    relu_backward,
)

backend = nn.get_backend()
host, xp = backend.to_numpy, backend.xp

# %%
# The digits of scikit-learn are 1,797 images of :math:`8 \times 8` pixels. Four fifths are for training.

digits = load_digits()
images = (digits.images[:, None] / 16).astype("float32")
labels = digits.target.astype("int64")
is_test = np.arange(len(images)) % 5 == 0
train, test = (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])

# %%
# The net
# -------
# Eight filters of :math:`3 \times 3`, a ReLU, a pool, and ten weighted sums of the :math:`8 \cdot 4 \cdot 4 = 128`
# numbers that are left:
#
# .. math::
#
#    a = x * W_1 + b_1, \quad h = \max(a, 0), \quad q = \operatorname{pool}(h), \quad z = W_2 \, q + b_2 .
#
# By the chain rule, from the loss to the weights,
#
# .. math::
#
#    dz &= \operatorname{softmax}(z) - t, \\
#    dW_2 &= dz \, q^T, \quad dq = W_2^T \, dz, \\
#    dh &= \operatorname{pool}'(dq), \quad da = dh \odot [h > 0], \\
#    dW_1 &= \text{the correlation of } x \text{ with } da .
#
# Weights begin as :class:`xpnn.Sequential` draws them, so that both trainings start from the same numbers.


def new_model():
    """The net as layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(128, 10),
        backend=backend,
        seed=0,
    )


# %%
# By hand
# -------
# One step: four lines forward, five lines backward, and the rule
#
# .. math::
#
#    w \leftarrow w - \eta \, \frac{\partial L}{\partial w} ,
#
# which is the direction in which the loss falls fastest, times a learning rate :math:`\eta`.


def step(weights, x, target, lr):
    """Train on one batch; return the new weights, the loss before, and its gradients."""
    w1, b1, w2, b2 = weights
    h = relu(conv(x, w1, b1, padding="same"))
    q = max_pool(h, 2)
    rows = xp.reshape(q, (-1, 128))
    z = dense(rows, w2, b2)
    dz = cross_entropy_backward(1.0, z, target)
    drows, dw2, db2 = dense_backward(dz, rows, w2)
    dh = max_pool_backward(xp.reshape(drows, q.shape), h, 2)
    _, dw1, db1 = conv_backward(relu_backward(dh, h), x, w1, padding="same")
    gradients = dw1, db1, dw2, db2
    weights = [w - lr * dw for w, dw in zip(weights, gradients, strict=True)]
    return weights, cross_entropy(z, target), gradients


# %%
# Twelve lines. Before they are trusted, a dozen of the derivatives are compared with differences: a weight is moved by
# :math:`\pm h`, and the loss must change by :math:`2 h` times its derivative. That is done in float64, so that
# :math:`h` can be small enough to pass no kink of a ReLU and no tie of a pool. One kink must be avoided by hand: biases
# begin at 0, and where the image is black :math:`a = b_1`, so a ReLU stands exactly at its kink, where the two sides of
# a difference have different slopes. For the check :math:`b_1` is 0.1.


def double(numbers):
    """Numbers in float64."""
    return backend.asarray(np.asarray(numbers, "float64"), "float64")


start = [parameter.value for _, parameter in new_model().named_parameters()]
precise = [double(host(weight)) for weight in start]
precise[1] = precise[1] + 0.1
x, target = double(train[0][:64]), backend.asarray(train[1][:64])
_, _, gradients = step(precise, x, target, lr=0.0)

rng, h = np.random.default_rng(0), 1e-6
worst = 0.0
for k, gradient in enumerate(gradients):
    for _ in range(3):
        place = tuple(int(rng.integers(size)) for size in gradient.shape)
        sides = []
        for sign in (1, -1):
            moved = host(precise[k]).copy()
            moved[place] += sign * h
            weights = [*precise[:k], double(moved), *precise[k + 1 :]]
            sides.append(float(step(weights, x, target, lr=0.0)[1]))
        worst = max(worst, abs((sides[0] - sides[1]) / (2 * h) - float(gradient[place])))
print(f"largest difference of 12 derivatives: {worst:.1e}")
assert worst < 1e-7

# %%
# Now eight times through the data, in batches of 64 that are drawn anew each time. :class:`xpnn.DataLoader` draws them
# from a seed.

EPOCHS, LR = 8, 0.3


def loader():
    """The batches of training."""
    return nn.DataLoader(*train, 64, shuffle=True, seed=0)


weights, by_hand, batches = start, [], loader()
for _ in range(EPOCHS):
    for x, target in batches.batches(backend):
        weights, loss, _ = step(weights, x, target, LR)
        by_hand.append(float(loss))
print(f"loss of the first step {by_hand[0]:.3f}, of the last {by_hand[-1]:.3f}")
assert by_hand[0] > 2 and np.mean(by_hand[-20:]) < 0.2

# %%
# By fit
# ------
# :func:`xpnn.fit` does the same loop, and more that one wants of it: validation, schedules, checkpoints, several
# devices. :class:`xpnn.SGD` is the rule above. Same start, same batches, same rule: the weights agree up to rounding.

model = new_model()
history = nn.fit(model, loader(), validation=test, optimizer=nn.SGD(model, lr=LR), epochs=EPOCHS, progress=False)
pairs = zip(weights, model.named_parameters(), strict=True)
apart = max(float(xp.max(xp.abs(ours - theirs.value))) for ours, (_, theirs) in pairs)
print(f"largest difference of the weights: {apart:.1e}")
assert apart < 2e-3

accuracy = nn.evaluate(model, test)["accuracy"]
print(f"{accuracy:.1%} of {len(test[0])} images that it has not seen")
assert accuracy > 0.93

# sphinx_gallery_start_ignore
each = len(by_hand) / EPOCHS
axes = drawing.panels(
    "The loss of training by hand, step by step, falls from above 2 to about 0.1 with jitter. The points of fit, one "
    "for each epoch, lie on it, and the loss of images that were held out falls with them",
    size=(6.4, 3.4),
)
curves(axes[0, 0], np.arange(len(by_hand)) / each, {"by hand, each step": by_hand}, xlabel="epoch", ylabel="loss")
middle = np.arange(EPOCHS) + 0.5
axes[0, 0].plot(middle, history["train_loss"], "o", color=drawing.BLUE, label="fit, mean of each epoch", zorder=3)
axes[0, 0].plot(middle + 0.5, history["validation_loss"], "s--", color=drawing.GREEN, label="fit, held-out images")
axes[0, 0].legend()
# sphinx_gallery_end_ignore

# %%
# What the filters became
# -----------------------
# They began as noise. After training several have a positive and a negative side: they answer to edges of a certain
# direction, as the kernels do that people made by hand. Nobody told them to.

before, after = host(start[0])[:, 0], host(weights[0])[:, 0]
change = np.abs(after - before).max(axis=(1, 2))
print("largest change of a weight, for each filter:", *(f"{each:.2f}" for each in change))
assert (change > 0.02).all()

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Eight filters of three by three weights before training, above, and after it, below; red is positive, blue is "
    "negative. After training, several are red on one side and blue on the opposite side",
    2,
    8,
    size=(6.4, 2.1),
)
for k in range(8):
    drawing.signed(axes[0, k], before[k], f"{k}", largest=np.abs(after).max())
    drawing.signed(axes[1, k], after[k], largest=np.abs(after).max())
axes[0, 0].set_ylabel("before")
axes[1, 0].set_ylabel("after")
# sphinx_gallery_end_ignore

# %%
# What the planes show
# --------------------
# :func:`xpnn.layer_outputs` runs the net once and returns what each layer made. Each plane of the convolution is the
# image seen by one filter, the ReLU keeps what agrees with the filter, and the pool keeps the strongest answer of each
# :math:`2 \times 2` cells.

seven = array(test[0][test[1] == 7][:1])
outputs = nn.layer_outputs(model, seven)
shapes = [tuple(y.shape) for _, _, y in outputs]
print(shapes)
assert (1, 8, 8, 8) in shapes and (1, 8, 4, 4) in shapes and shapes[-1] == (1, 10)

planes, rectified, pooled = (y for _, _, y in outputs[:3])
assert float(xp.min(rectified)) == 0 and float(xp.max(pooled)) == float(xp.max(rectified))

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "A seven of eight by eight pixels. Below it, in three rows, the planes of all eight filters after the convolution, "
    "after ReLU and after the pool: some show its horizontal bar, others its slanted stroke",
    4,
    8,
    size=(6.4, 3.9),
)
for panel in axes[0]:
    panel.axis("off")
drawing.image(axes[0, 0], seven[0, 0])
axes[0, 0].axis("on")
axes[0, 0].set_ylabel("image")
largest = float(xp.max(xp.abs(planes)))
for name, row, layer in zip(("conv", "ReLU", "pool"), axes[1:], (planes, rectified, pooled), strict=True):
    row[0].set_ylabel(name)
    for k, panel in enumerate(row):
        drawing.signed(panel, layer[0, k], largest=largest)
# sphinx_gallery_end_ignore

# %%
# What it gets wrong
# ------------------
# The few mistakes are the best picture of what a net knows.

predicted = nn.predict(model, test[0]).argmax(axis=1)
wrong = np.flatnonzero(predicted != test[1])
print(f"{len(wrong)} mistakes:", *(f"{test[1][i]} as {predicted[i]}" for i in wrong[:8]))
assert np.isclose(1 - len(wrong) / len(test[0]), accuracy)

# sphinx_gallery_start_ignore
count = min(len(wrong), 6)
axes = drawing.panels(
    "Some held-out digits that the net takes for others. Above each, the digit that it is and the one that the net "
    "sees; most are hard to read for people too",
    1,
    count,
    size=(6.4, 1.5),
)
for panel, i in zip(axes[0], wrong, strict=False):
    drawing.image(panel, test[0][i, 0], f"{test[1][i]}, not {predicted[i]}")
# sphinx_gallery_end_ignore

# %%
# To train on images of your own, see "Train your own data" in the guide. Next, exercises: :doc:`plot_10_exercises`.
