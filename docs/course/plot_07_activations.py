r"""
7. Activation functions, and gradients that vanish
==================================================

Two linear layers in a row are one linear layer: :math:`B (A x) = (B A) x`. A function between them, the same for each
number, is what makes depth worth its price. Here are the usual ones with their derivatives, and a measurement of what
the derivative does to a deep net.
"""

import drawing
import numpy as np
from drawing_nets import array, central_difference, curves

import xpnn as nn
from xpnn import functional as f

backend = nn.get_backend()
host, xp = backend.to_numpy, backend.xp

# %%
# The table
# ---------
# =========================================  ==================================  =================================
# function                                   :math:`f(x)`                        :math:`f'(x)`
# =========================================  ==================================  =================================
# :func:`~xpnn.functional.sigmoid`           :math:`y = 1 / (1 + e^{-x})`        :math:`y (1 - y)`
# :func:`~xpnn.functional.tanh`              :math:`y = \tanh x`                 :math:`1 - y^2`
# :func:`~xpnn.functional.softsign`          :math:`x / (1 + |x|)`               :math:`1 / (1 + |x|)^2`
# :func:`~xpnn.functional.relu`              :math:`\max(x, 0)`                  :math:`[x > 0]`
# :func:`~xpnn.functional.leaky_relu`        :math:`x` or :math:`a x`            1 or :math:`a`
# :func:`~xpnn.functional.elu`               :math:`x` or :math:`e^x - 1`        1 or :math:`e^x`
# :func:`~xpnn.functional.softplus`          :math:`\log(1 + e^x)`               :math:`1 / (1 + e^{-x})`
# :func:`~xpnn.functional.silu`              :math:`x \, \sigma(x)`              :math:`\sigma + x \sigma (1 - \sigma)`
# :func:`~xpnn.functional.gelu`              :math:`x \, \Phi(x)`                :math:`\Phi(x) + x \, \varphi(x)`
# =========================================  ==================================  =================================
#
# "Or": the first for :math:`x > 0`, the second otherwise. :math:`\sigma` is the sigmoid, :math:`\Phi` the distribution
# function of the normal distribution and :math:`\varphi` its density.
#
# The first row, derived. With :math:`y = (1 + e^{-x})^{-1}`
#
# .. math::
#
#    y' = \frac{e^{-x}}{(1 + e^{-x})^2}
#       = \frac{1}{1 + e^{-x}} \cdot \frac{e^{-x}}{1 + e^{-x}}
#       = y \, (1 - y) ,
#
# since :math:`e^{-x} / (1 + e^{-x}) = 1 - y`. So the output is enough to compute the derivative, and the layer keeps
# only that. The same holds for :math:`\tanh`; a ReLU keeps its output too, since :math:`y > 0` where :math:`x > 0`.
#
# Each function has its backward beside it in the same file, which multiplies by the upstream gradient,
# :math:`dx = dy \, f'(x)`. With ``dy = 1`` that is the derivative itself:

x = array(np.linspace(-4, 4, 400))  # 0 is not among them
one = xp.ones_like(x)
saturating = {
    "sigmoid": (f.sigmoid(x), f.sigmoid_backward(one, f.sigmoid(x))),
    "tanh": (f.tanh(x), f.tanh_backward(one, f.tanh(x))),
    "softsign": (f.softsign(x), f.softsign_backward(one, x)),
}
rectifying = {
    "ReLU": (f.relu(x), f.relu_backward(one, f.relu(x))),
    "leaky ReLU, a = 0.1": (f.leaky_relu(x, negative_slope=0.1), f.leaky_relu_backward(one, x, negative_slope=0.1)),
    "ELU": (f.elu(x), f.elu_backward(one, x)),
}
smooth = {
    "softplus": (f.softplus(x), f.softplus_backward(one, x)),
    "SiLU": (f.silu(x), f.silu_backward(one, x)),
    "GELU": (f.gelu(x), f.gelu_backward(one, x)),
}

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Curves from -4 to 4 in three rows, functions at the left, derivatives at the right. Sigmoid, tanh and softsign "
    "level off at both ends, and their derivatives are bells of height 0.25, 1 and 1. ReLU, leaky ReLU and ELU are the "
    "identity for positive x, with derivative 1. Softplus, SiLU and GELU are smooth versions of ReLU",
    3,
    2,
    size=(6.4, 8),
)
for row, family in zip(axes, (saturating, rectifying, smooth), strict=True):
    curves(row[0], x, {name: pair[0] for name, pair in family.items()}, "f(x)")
    curves(row[1], x, {name: pair[1] for name, pair in family.items()}, "f'(x)")
    row[1].get_legend().remove()
    row[1].set_ylim(-0.2, 1.2)
# sphinx_gallery_end_ignore

# %%
# Every derivative in the picture against a central difference of the function beside it:

checked = {
    "sigmoid": (f.sigmoid, lambda dy, x: f.sigmoid_backward(dy, f.sigmoid(x))),
    "tanh": (f.tanh, lambda dy, x: f.tanh_backward(dy, f.tanh(x))),
    "softsign": (f.softsign, f.softsign_backward),
    "ReLU": (f.relu, lambda dy, x: f.relu_backward(dy, f.relu(x))),
    "leaky ReLU": (f.leaky_relu, f.leaky_relu_backward),
    "ELU": (f.elu, f.elu_backward),
    "softplus": (f.softplus, f.softplus_backward),
    "SiLU": (f.silu, f.silu_backward),
    "GELU": (f.gelu, f.gelu_backward),
}
points = array([-3.1, -1.7, -0.4, 0.3, 0.9, 2.2])
for name, (function, backward) in checked.items():
    measured = central_difference(lambda x, function=function: xp.sum(function(x)), points)
    error = np.abs(host(backward(xp.ones_like(points), points)) - measured).max()
    print(f"{name:10} largest difference {error:.1e}")
    assert error < 5e-4

# %%
# Why gradients vanish
# --------------------
# A net of :math:`n` layers, :math:`a_l = W_l h_{l-1}` and :math:`h_l = f(a_l)`, has by the chain rule
#
# .. math::
#
#    \frac{\partial L}{\partial h_{l-1}}
#    = W_l^T \left( f'(a_l) \odot \frac{\partial L}{\partial h_l} \right) ,
#
# and so the gradient at the first layer has gone through :math:`n` factors :math:`f'(a_l)` and :math:`n` matrices. For
# the sigmoid
#
# .. math::
#
#    \sigma' = y (1 - y) \le \tfrac14 ,
#
# because the product of two numbers with sum 1 is largest when they are equal. If a matrix leaves lengths about as they
# are, ten layers shrink the gradient by :math:`4^{10} \approx 10^6`, or more. For ReLU the factor is 1 on the active
# side, 0 on the other. Half the numbers are lost, so
#
# .. math::
#
#    \operatorname{Var}(\text{gradient}) \to \tfrac12 \, n_{\text{out}}
#    \operatorname{Var}(w) \cdot \operatorname{Var}(\text{gradient}) ,
#
# which stays as it is for :math:`\operatorname{Var}(w) = 2 / n`: this is why He's initialisation has a 2. Measured, in
# nets of 20 layers of 128 numbers that differ in their function only:

LAYERS, WIDTH = 20, 128


def gradient_lengths(activation, initialiser):
    """Length of the gradient with respect to the output of each layer, for 64 random inputs and gradients."""
    rng = np.random.default_rng(0)
    blocks = [
        nn.Sequential(nn.Dense(WIDTH, WIDTH, weight_init=initialiser), activation(), backend=backend, seed=seed)
        for seed in range(LAYERS)
    ]
    h = array(rng.standard_normal((64, WIDTH)))
    for block in blocks:
        h = block(h)
    gradient = array(rng.standard_normal((64, WIDTH)))
    lengths = [float(xp.sqrt(xp.sum(gradient**2)))]
    for block in reversed(blocks):
        gradient = block.backward(gradient)
        lengths.append(float(xp.sqrt(xp.sum(gradient**2))))
    return np.array(lengths[::-1]) / lengths[0]


glorot, he = nn.initialisers.glorot_normal(), nn.initialisers.he_normal()
lengths = {
    "sigmoid": gradient_lengths(nn.Sigmoid, glorot),
    "tanh": gradient_lengths(nn.Tanh, glorot),
    "ReLU": gradient_lengths(nn.ReLU, he),
}
for name, length in lengths.items():
    print(f"{name:8} at the first layer {length[0]:.1e}, per layer a factor of {length[0] ** (1 / LAYERS):.3f}")

assert lengths["sigmoid"][0] < 0.25**LAYERS * 10
assert 0.1 < lengths["ReLU"][0] < 10
assert lengths["sigmoid"][0] < lengths["tanh"][0] < 1

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Length of the gradient at each of 20 layers, on a logarithmic scale. For sigmoid it falls in a straight line from "
    "1 at the last layer to less than a millionth of a millionth at the first; for tanh it falls slowly, and for ReLU "
    "it stays near 1",
    size=(6.4, 3.6),
)
curves(axes[0, 0], range(LAYERS + 1), lengths, xlabel="layers before", ylabel="length, relative to the last")
axes[0, 0].set(yscale="log", xticks=range(0, LAYERS + 1, 5))
# sphinx_gallery_end_ignore

# %%
# A step of gradient descent changes a weight of the first layer of the sigmoids by less than a millionth of a
# millionth of what it changes the last: that layer stays random. ReLU does not have this problem, but one of its own.
# A number that is negative for every input has derivative 0 for every input and never changes again, which the leaky
# ReLU prevents.
#
# Next: what the gradient begins with, :doc:`plot_08_losses`.
#
# Sources: X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010;
# K. He et al., "Delving deep into rectifiers", 2015.
