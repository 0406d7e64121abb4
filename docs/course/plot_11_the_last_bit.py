r"""
11. The last bit: why two machines differ, and what exact numerics does about it
================================================================================

The same net, the same weights, the same image, and yet another computer returns 0.73105854 where this one returns
0.73105860. Neither has a fault. This page shows where such differences begin and how they grow, and ends with one hash
that is the same everywhere.
"""

import hashlib

import drawing
import numpy as np
from drawing_nets import array, curves
from sklearn.datasets import load_digits

import xpnn as nn
from xpnn.testing import ulp_distance

backend = nn.get_backend()
host, xp = backend.to_numpy, backend.xp

# %%
# A sum depends on its order
# --------------------------
# A float32 number has 24 binary digits. The result of each operation is rounded to the nearest of them,
#
# .. math::
#
#    \operatorname{fl}(a + b) = (a + b)(1 + \delta), \qquad |\delta| \le u = 2^{-24} ,
#
# and the rounding makes addition lose its associative law. Beyond :math:`2^{24}` float32 has even numbers only, so
# :math:`2^{24} + 1` is rounded to :math:`2^{24}`:

big, one = array(2.0**24), array(1.0)
left, right = float((big + one) + one), float(big + (one + one))
print(f"(2^24 + 1) + 1 = {left:.0f}    2^24 + (1 + 1) = {right:.0f}")
assert (left, right) == (16_777_216, 16_777_218)

# %%
# A library chooses its order for speed: by the number of cores, the width of a processor's registers, the size of its
# cache. To see what that does, take sums of :math:`n` products in three orders: one after the other, in 16 interleaved
# parts (as registers of 16 numbers add) and by halves. The exact value comes from float64. If roundings are
# independent, the error of the first order grows with
#
# .. math::
#
#    \left| \hat s - s \right| \approx u \, \Bigl( \sum_{k=1}^{n} s_k^2 \Bigr)^{1/2}
#    \sim u \, n \quad \text{for products with random signs},
#
# where :math:`s_k` are the partial sums, each about :math:`\sqrt k` large. In halves a number goes through
# :math:`\log_2 n` additions in place of :math:`n`, and the error grows little faster than the sum,
# :math:`\sqrt{n \log n}`.


def one_after_the_other(products):
    """Sums over the last axis from the left, each rounded to float32."""
    total = xp.zeros_like(products[:, 0])
    for k in range(products.shape[1]):
        total = total + products[:, k]
    return total


def in_parts(products, parts=16):
    """Every 16th number into one part, then the parts."""
    shape = (products.shape[0], -1, parts)
    rows = xp.reshape(products, shape)
    total = xp.zeros_like(rows[:, 0, :])
    for k in range(rows.shape[1]):
        total = total + rows[:, k, :]
    return one_after_the_other(total)


def by_halves(products):
    """The first half plus the second, until one number is left."""
    while products.shape[1] > 1:
        half = products.shape[1] // 2
        products = products[:, :half] + products[:, half:]
    return products[:, 0]


orders = {"one after the other": one_after_the_other, "16 parts": in_parts, "by halves": by_halves}
lengths = 2 ** np.arange(5, 14)
rng = np.random.default_rng(0)
errors = {name: [] for name in orders}
for n in lengths:
    products = (rng.standard_normal((400, n)) * rng.standard_normal((400, n))).astype("float32")
    true = products.astype("float64").sum(axis=1)
    for name, order in orders.items():
        error = host(order(array(products))).astype("float64") - true
        errors[name].append(np.sqrt(np.mean(error**2)))

slope = {name: np.polyfit(np.log(lengths), np.log(error), 1)[0] for name, error in errors.items()}
print("error grows with n to the power of", *(f"{name}: {power:.2f}," for name, power in slope.items()))
assert 0.9 < slope["one after the other"] < 1.1
assert 0.45 < slope["by halves"] < 0.75
assert errors["by halves"][-1] < errors["16 parts"][-1] < errors["one after the other"][-1]

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Root mean square error of sums of 32 to 8192 products in three orders, on logarithmic scales, each nearly a "
    "straight line. Adding one after the other has the largest error and the steepest line, 16 parts less, and halves "
    "the least",
    size=(6.4, 3.6),
)
curves(axes[0, 0], lengths, errors, xlabel="number of terms", ylabel="error of the sum")
axes[0, 0].set(xscale="log", yscale="log")
# sphinx_gallery_end_ignore

# %%
# From a bit to a net
# -------------------
# One rounding is a relative error of :math:`6 \cdot 10^{-8}`. Training multiplies it: a different last bit changes a
# gradient, that changes a weight, and a small difference :math:`\delta` of weights becomes
#
# .. math::
#
#    \delta' = \delta - \eta \left( \nabla L(w + \delta) - \nabla L(w) \right)
#    \approx (I - \eta H) \, \delta ,
#
# which grows along each direction in which the loss is curved downwards, or more strongly than :math:`2 / \eta`
# upwards. To see it, a net is trained twice on the digits. The second time each batch is fed in reverse order. That is
# the same mean, in another order, and nothing else.

digits = load_digits()
images, labels = (digits.images[:, None] / 16).astype("float32"), digits.target.astype("int64")


def trained(numerics, reverse=False, steps=60):
    """The weights after each of some steps of SGD, as one vector for each."""
    with nn.use_backend(backend.spec, numerics=numerics) as b:
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(72, 10), seed=0)
        loss, optimizer = nn.CrossEntropy(), nn.SGD(model, lr=0.5, momentum=0.9)
        path = []
        for k in range(steps):
            batch = np.arange(32 * k, 32 * (k + 1)) % len(images)
            batch = batch[::-1].copy() if reverse else batch
            loss(model(b.asarray(images[batch])), b.asarray(labels[batch]))
            model.backward(loss.backward())
            optimizer.step()
            model.zero_grad()
            path.append(np.concatenate([b.to_numpy(p.value).ravel() for _, p in model.named_parameters()]))
    return np.array(path)


def distance(first, second):
    """How far apart two trainings are after each step, relative to the weights."""
    return np.linalg.norm(first - second, axis=1) / np.linalg.norm(first, axis=1)


fast, fast_reversed = trained("fast"), trained("fast", reverse=True)
apart = distance(fast, fast_reversed)
print(f"fast: apart by {apart[0]:.1e} after the first step, {apart[-1]:.1e} after the last")
assert 0 < apart[0] < 1e-6 and apart[-1] > 2 * apart[0]

# %%
# What exact numerics does
# ------------------------
# A sum of whole numbers below :math:`2^{53}` has no rounding in float64, and so no order. With
# ``numerics="exact"`` each factor of a product is therefore cut into parts that are whole numbers times a power of two,
#
# .. math::
#
#    a = 2^{\alpha} (A_1 + 2^{-\beta} A_2) + \text{rest},
#    \qquad |A_i| < 2^{\beta} ,
#
# so small that the sum of :math:`n` products of them fits,
#
# .. math::
#
#    n \cdot 2^{2 \beta} \le 2^{53} .
#
# Any library may then compute the products of the parts in any order: each gives the same whole numbers. What is left
# is to add them with their powers of two, in one fixed way, and to round once. (Sums without products likewise;
# functions such as :math:`e^x` are made of :math:`+ - \times /`, which IEEE-754 defines to the bit.)
#
# That whole numbers have no order is quickly seen. The same sums as above, of products of numbers of 20 bits, in
# float64:

whole = rng.integers(-(2**19), 2**19, (50, 4096)) * rng.integers(-(2**19), 2**19, (50, 4096))
assert np.abs(whole).sum(axis=1).max() < 2**53
exactly = backend.asarray(whole.astype("float64"), "float64")
results = [host(order(exactly)) for order in orders.values()]
assert (results[0] == results[1]).all() and (results[1] == results[2]).all()
assert results[0].tolist() == whole.sum(axis=1).tolist()

# %%
# And the training of above, with its batches reversed:

exact, exact_reversed = trained("exact"), trained("exact", reverse=True)
assert exact.tobytes() == exact_reversed.tobytes()
print("exact: apart by", distance(exact, exact_reversed).max())

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "Distance of the weights of two trainings, relative to the weights, over 60 steps on a logarithmic scale. In fast "
    "numerics it begins near one ten-millionth and grows. In exact numerics it is 0 at every step, drawn at the bottom",
    size=(6.4, 3.6),
)
floor = 1e-9
steps = np.arange(1, len(apart) + 1)
shown = {"fast": apart, "exact (0)": np.full(len(apart), floor)}
curves(axes[0, 0], steps, shown, xlabel="step", ylabel="relative distance")
axes[0, 0].set(yscale="log", ylim=(floor / 2, None))
# sphinx_gallery_end_ignore

# %%
# The distance of 0 can't be on a logarithmic axis, so it is drawn at its lower end.
#
# Nearer to the truth, too
# ------------------------
# Inside of a layer nothing is rounded to float32, so results are not only repeatable but more accurate. The output of a
# long convolution, 288 products each, in both numerics, as the distance from float64 in units of the last place:

x, weight = rng.standard_normal((4, 32, 12, 12)), rng.standard_normal((16, 32, 3, 3))
x, weight = x.astype("float32"), weight.astype("float32")
found = {}
for numerics in ("fast", "exact"):
    b = nn.get_backend(backend.spec, numerics=numerics)
    found[numerics] = b.to_numpy(nn.functional.conv(b.asarray(x), b.asarray(weight)))
wide = [backend.asarray(each.astype("float64"), "float64") for each in (x, weight)]
true = host(nn.functional.conv(*wide))
off = {name: ulp_distance(y, true.astype("float32")).astype("float64").ravel() for name, y in found.items()}
for name, each in off.items():
    print(f"{name:6} at most one last place off: {np.mean(each <= 1):.0%}, more than eight: {np.mean(each > 8):.1%}")
assert np.mean(off["exact"] <= 1) > max(0.7, np.mean(off["fast"] <= 1))

# sphinx_gallery_start_ignore
axes = drawing.panels(
    "How many of the outputs are 0, 1, 2 and more last places off. In exact numerics three of four are 0 or 1 off, "
    "in fast numerics one of three",
    size=(6.4, 3.2),
)
places = np.arange(9)
for i, (name, each) in enumerate(off.items()):
    share = [np.mean(np.minimum(each, places[-1]) == k) for k in places]
    colour = (drawing.ORANGE, drawing.BLUE)[i]
    axes[0, 0].bar(
        places + (i - 0.5) * 0.4, share, 0.4, color=colour, hatch=("//", "")[i], edgecolor="white", label=name
    )
axes[0, 0].set(xlabel="last places off", ylabel="share of outputs", xticks=places)
axes[0, 0].set_xticklabels([*map(str, places[:-1]), f"{places[-1]}+"])
axes[0, 0].legend()
# sphinx_gallery_end_ignore

# %%
# What is left of the error comes from sums that nearly cancel, whose last place is tiny, and from what was cut off as
# :math:`\text{rest}`; with ``slice_products=3`` there is less of it.
#
# One hash
# --------
# The weights after 60 steps, as a hash of all their bits. It was made once, on a CPU with NumPy, and stands here as a
# number. Wherever this page is built, on another processor, with another number of threads, on CuPy or PyTorch, it must
# come out again, or the page is not built:

HASH = "6f40478185663922"
found_hash = hashlib.sha256(exact[-1].astype("<f4").tobytes()).hexdigest()[:16]
print(found_hash, backend.spec)
assert found_hash == HASH

# %%
# The price is time: a step takes 3 to 6 times as long on a CPU. And the promise is for one version of the library,
# since another may cut numbers differently. When exact numerics applies, and its limits, are in "What identical means"
# in the guide; the command ``xpnn parity`` compares every layer on two backends.
#
# Sources: N. Higham, "Accuracy and stability of numerical algorithms", 2002, chapters 3 and 4; K. Ozaki et al.,
# "Error-free transformations of matrix multiplication by using fast routines of matrix multiplication and its
# applications", 2012.
