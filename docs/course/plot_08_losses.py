r"""
8. Losses, softmax, and why some of them learn slowly
=====================================================

A loss makes one number of a prediction :math:`p` and a target :math:`t`, and its derivative with respect to :math:`p`
is what goes back through the net. This page has seven losses with their gradients, the softmax, the reason why its
logarithm is computed as it is, and a net that hardly learns because its loss does not fit its last layer.
"""

import drawing
import numpy as np
from drawing_nets import array, central_difference, curves

import xpnn as nn
from xpnn import functional as f

backend = nn.get_backend()
host, xp = backend.to_numpy, backend.xp

# %%
# Losses of numbers
# -----------------
# With :math:`e = p - t`, over :math:`n` entries:
#
# ==============================  =================================================  =================================
# loss                            value                                              derivative by one :math:`p`
# ==============================  =================================================  =================================
# :func:`~xpnn.functional.mse`    :math:`\frac1n \sum e^2`                           :math:`2 e / n`
# :func:`~xpnn.functional.l2`     :math:`\sum e^2`                                   :math:`2 e`
# :func:`~xpnn.functional.mae`    :math:`\frac1n \sum |e|`                           :math:`\operatorname{sign}(e) / n`
# :func:`~xpnn.functional.l1`     :math:`\sum |e|`                                   :math:`\operatorname{sign}(e)`
# :func:`~xpnn.functional.msle`   :math:`\frac1n \sum (\log\frac{1 + p}{1 + t})^2`   :math:`\frac{2}{n (1 + p)}
#                                                                                    \log\frac{1 + p}{1 + t}`
# :func:`~xpnn.functional.mape`   :math:`\frac{100}{n} \sum |e| / |t|`               :math:`\frac{100}{n}
#                                                                                    \operatorname{sign}(e) / |t|`
# ==============================  =================================================  =================================
#
# What they differ in is how much a large error counts. The derivative of a square grows with the error, so one outlier
# outvotes many small errors. The derivative of an absolute value is the same for all errors, and 0 at none. The
# logarithms of MSLE compare ratios: 10 for 5 is as bad as 21 for 10, up to the 1 that is added for the sake of zeros.
# MAPE divides by the target, and so makes the errors of small targets important. L1 and L2 are MAE and MSE without the
# division: sums, whose gradients grow with the number of entries.

prediction = array([2.5, 0.3, 4.0, 1.2])
target = array([3.0, 0.5, 2.0, 1.0])
losses = {
    "MSE": (f.mse, f.mse_backward),
    "L2": (f.l2, f.l2_backward),
    "MAE": (f.mae, f.mae_backward),
    "L1": (f.l1, f.l1_backward),
    "MSLE": (f.msle, f.msle_backward),
    "MAPE": (f.mape, f.mape_backward),
}
for name, (loss, backward) in losses.items():
    gradient = host(backward(1.0, prediction, target))
    measured = central_difference(lambda p, loss=loss: loss(p, target), prediction)
    print(f"{name:5} {float(loss(prediction, target)):8.4f}  gradient", *(f"{slope:8.3f}" for slope in gradient))
    np.testing.assert_allclose(gradient, measured, rtol=1e-3, atol=1e-3)

e = host(prediction) - host(target)
assert np.isclose(float(f.mse(prediction, target)), (e**2).mean())
assert np.isclose(float(f.l2(prediction, target)), 4 * float(f.mse(prediction, target)))
assert np.isclose(float(f.mape(prediction, target)), 100 * np.mean(np.abs(e) / host(target)))

# %%
# As curves, for the target 1 and one prediction. ``reduction="none"`` returns the loss of each entry:

p = array(np.linspace(0.02, 4, 200))
t = xp.ones_like(p)
values = {name: losses[name][0](p, t, reduction="none") for name in ("MSE", "MAE", "MSLE", "MAPE")}
slopes = {name: losses[name][1](t, p, t, reduction="none") for name in values}
values["MAPE"], slopes["MAPE"] = values["MAPE"] / 100, slopes["MAPE"] / 100

assert bool(xp.all(values["MAPE"] == values["MAE"]) | (xp.max(xp.abs(values["MAPE"] - values["MAE"])) < 1e-6))

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Losses and derivatives for the target 1. MSE is a parabola, its derivative a line. MAE and MAPE are the same "
    "angle, with derivatives of minus 1 and 1. MSLE is steep below the target and flat above it",
    1,
    2,
    size=(6.4, 3.4),
)
values["MAPE / 100"], slopes["MAPE / 100"] = values.pop("MAPE"), slopes.pop("MAPE")
curves(axes[0, 0], p, values, "loss for t = 1", xlabel="p", ylim=(0, 4))
curves(axes[0, 1], p, slopes, "derivative", xlabel="p", ylim=(-4, 4))
axes[0, 1].get_legend().remove()
# sphinx_gallery_end_ignore

# %%
# Softmax
# -------
# A net that chooses among :math:`C` classes returns numbers :math:`z_c` of any size, the *logits*. The softmax makes
# probabilities of them,
#
# .. math::
#
#    p_c = \frac{e^{z_c}}{\sum_k e^{z_k}} ,
#    \qquad
#    \frac{\partial p_c}{\partial z_k} = p_c \, ([c = k] - p_k) .
#
# The derivative follows from :math:`\log p_c = z_c - \log \sum_k e^{z_k}`, whose derivative by :math:`z_k` is
# :math:`[c = k] - p_k`. With an upstream gradient :math:`g` that is :math:`dz = p \odot (g - \langle g, p \rangle)`,
# which is :func:`xpnn.functional.softmax_backward`.
#
# Cross-entropy is the negative logarithm of the probability of the right class :math:`y`, and here the logarithm pays
# for itself:
#
# .. math::
#
#    L = -\log p_y = \log \sum_k e^{z_k} - z_y ,
#    \qquad
#    \frac{\partial L}{\partial z_k} = p_k - [k = y] .
#
# The gradient is what the net said minus what is true. No exponential, no division is left in it, and it is small only
# where the net is right. (:func:`xpnn.functional.cross_entropy`, :class:`xpnn.CrossEntropy`.)

logits = array([[2.0, 1.0, -1.0], [0.5, 0.0, 3.0]])
classes = backend.asarray(np.array([0, 1]))
probabilities = f.softmax(logits)
gradient = f.cross_entropy_backward(1.0, logits, classes)

truth = array([[1, 0, 0], [0, 1, 0]])
np.testing.assert_allclose(host(gradient), host((probabilities - truth) / 2), atol=1e-6)
measured = central_difference(lambda z: f.cross_entropy(z, classes), logits)
np.testing.assert_allclose(host(gradient), measured, atol=1e-4)

g = array([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]])
measured = central_difference(lambda z: xp.sum(f.softmax(z) * g), logits)
np.testing.assert_allclose(host(f.softmax_backward(g, probabilities)), measured, atol=1e-3)

# %%
# Why log-sum-exp
# ---------------
# In float32 :math:`e^{89}` is infinite, and infinity over infinity is no number. But for every :math:`m`
#
# .. math::
#
#    \log \sum_k e^{z_k} = m + \log \sum_k e^{z_k - m} ,
#
# because :math:`e^{z_k} = e^m e^{z_k - m}`. With :math:`m = \max_k z_k` all exponents are at most 0 and one of them is
# 0, so the sum lies between 1 and :math:`C`: nothing overflows, and the logarithm is not of 0. Of large negative logits
# all exponentials are rounded to 0, and the formula by the letter divides 0 by 0.


def by_the_letter(z):
    """-log softmax of the first of two logits, as in the formula, with no care."""
    with np.errstate(all="ignore"):
        exponentials = xp.exp(z)
        return -xp.log(exponentials[:, 0] / xp.sum(exponentials, axis=1))


z = np.linspace(-150, 150, 301)
two = array(np.stack([np.zeros_like(z), z], axis=1))
first = backend.asarray(np.zeros(len(z), "int64"))
careful = host(f.cross_entropy(two, first, reduction="none"))
careless = host(by_the_letter(two))

assert np.isfinite(careful).all()
np.testing.assert_allclose(careful, np.logaddexp(0, z), rtol=1e-6, atol=2e-7)
print(f"by the letter finite up to z = {z[np.isfinite(careless)].max():.0f}")
assert not np.isfinite(careless[z > 89]).any()

low = array([[-200.0, -110.0]])
assert np.isnan(float(by_the_letter(low)[0])) and float(f.cross_entropy(low, first[:1])) == 90

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Cross-entropy of the first of two classes for logits 0 and z, from -150 to 150. Computed by the letter the curve "
    "ends at 88, where the exponential overflows; with log-sum-exp it goes on as a straight line",
    size=(6.4, 3),
)
curves(axes[0, 0], z, {"log-sum-exp": careful, "by the letter": careless}, xlabel="z", ylabel="loss")
axes[0, 0].lines[0].set(linewidth=5, alpha=0.6)
# sphinx_gallery_end_ignore

# %%
# Squares and a sigmoid learn slowly
# ----------------------------------
# One neuron, :math:`p = \sigma(z)`, whose target is :math:`t = 0`. By the chain rule
#
# .. math::
#
#    \frac{\partial}{\partial z} (p - t)^2 &= 2 (p - t) \, p (1 - p) , \\
#    \frac{\partial}{\partial z} \bigl( -t \log p - (1 - t) \log (1 - p) \bigr) &= p - t .
#
# In the first the factor :math:`p (1 - p)` comes from the sigmoid. If the neuron is sure and wrong, :math:`p \approx
# 1`, that factor is nearly 0: the worse the mistake, the smaller the step. In the second, the logarithm's
# :math:`1 / p (1 - p)` cancels it. Both from :math:`w = b = 2` with input 1, by the rule :math:`w \leftarrow w - \eta
# \, \partial L / \partial w`, as M. Nielsen shows it in "Neural networks and deep learning", 2015:


def learn(gradient_of_p, steps=300, lr=0.15):
    """The outputs of one neuron that is to learn to return 0 for the input 1."""
    x, t = array([[1.0]]), array([[0.0]])
    w, b = array([[2.0]]), array([2.0])
    outputs = []
    for _ in range(steps):
        p = f.sigmoid(f.dense(x, w, b))
        outputs.append(float(p[0, 0]))
        dz = f.sigmoid_backward(gradient_of_p(1.0, p, t), p)
        _, dw, db = f.dense_backward(dz, x, w)
        w, b = w - lr * dw, b - lr * db
    return np.array(outputs)


squares = learn(f.mse_backward)
entropy = learn(f.binary_cross_entropy_backward)
reached = {name: int(np.argmax(p < 0.2)) for name, p in (("squares", squares), ("cross-entropy", entropy))}
print("steps to an output below 0.2:", reached)
assert squares[0] == entropy[0] > 0.98
assert 0 < 3 * reached["cross-entropy"] < reached["squares"]

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Output of one neuron over 300 steps, beginning at 0.98 where 0 is right. With cross-entropy it falls at once; "
    "with squared errors it stays near 0.98 for about a hundred steps before it falls",
    size=(6.4, 3),
)
steps = range(len(squares))
curves(axes[0, 0], steps, {"squared error": squares, "cross-entropy": entropy}, xlabel="step", ylabel="p")
# sphinx_gallery_end_ignore

# %%
# :class:`xpnn.BinaryCrossEntropyWithLogits` does both steps in one, with log-sum-exp inside, so ``dz`` is computed as
# :math:`p - t` and not as a product of something huge and something tiny:

z = array([[30.0]])
dz = f.binary_cross_entropy_with_logits_backward(1.0, z, array([[0.0]]))
assert float(dz[0, 0]) == 1.0

# %%
# Next, all of it together: :doc:`plot_09_a_whole_network`.
#
# Source of the gradient of cross-entropy: C. Bishop, "Pattern recognition and machine learning", 2006, section 4.3.
