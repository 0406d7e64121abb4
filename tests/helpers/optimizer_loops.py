"""Optimizers as loops over Python's numbers, by their papers' formulas in PyTorch's form.

Each is called as ``rule(gradient, value, steps, **settings)`` for one entry, where ``gradient(value, t)`` is that of
step ``t``, counted from 1; it returns the value after each step.
"""

from math import copysign, sqrt


def _start(gradient, value, t, weight_decay, maximize, decoupled=False, lr=0.0):
    g = gradient(value, t)
    g = -g if maximize else g
    if decoupled:
        return g, value * (1 - lr * weight_decay)
    return g + weight_decay * value, value


def sgd(gradient, value, steps, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):
    v, found = 0.0, []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize)
        v = g if t == 1 else momentum * v + (1 - dampening) * g
        value -= lr * ((g + momentum * v if nesterov else v) if momentum else g)
        found.append(value)
    return found


def adam(
    gradient,
    value,
    steps,
    lr=0.001,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
    decoupled=False,
):
    m = s = largest = 0.0
    found = []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize, decoupled, lr)
        m, s = betas[0] * m + (1 - betas[0]) * g, betas[1] * s + (1 - betas[1]) * g * g
        largest = max(largest, s)
        root = sqrt((largest if amsgrad else s) / (1 - betas[1] ** t))
        value -= lr * (m / (1 - betas[0] ** t)) / (root + eps)
        found.append(value)
    return found


def adamw(gradient, value, steps, weight_decay=0.01, **settings):
    return adam(gradient, value, steps, weight_decay=weight_decay, decoupled=True, **settings)


def rmsprop(
    gradient,
    value,
    steps,
    lr=0.01,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    maximize=False,
):
    s = m = v = 0.0
    found = []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize)
        s, m = alpha * s + (1 - alpha) * g * g, alpha * m + (1 - alpha) * g
        v = momentum * v + g / (sqrt(max(s - m * m, 0.0) if centered else s) + eps)
        value -= lr * v
        found.append(value)
    return found


def adagrad(
    gradient,
    value,
    steps,
    lr=0.01,
    lr_decay=0.0,
    weight_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
    maximize=False,
):
    s, found = initial_accumulator_value, []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize)
        s += g * g
        value -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)
        found.append(value)
    return found


def adadelta(gradient, value, steps, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, maximize=False):
    s = d = 0.0
    found = []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize)
        s = rho * s + (1 - rho) * g * g
        step = sqrt(d + eps) / sqrt(s + eps) * g
        d = rho * d + (1 - rho) * step * step
        value -= lr * step
        found.append(value)
    return found


def adamax(gradient, value, steps, lr=0.002, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, maximize=False):
    m = u = 0.0
    found = []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize)
        m, u = betas[0] * m + (1 - betas[0]) * g, max(betas[1] * u, abs(g) + eps)
        value -= lr / (1 - betas[0] ** t) * m / u
        found.append(value)
    return found


def nadam(
    gradient,
    value,
    steps,
    lr=0.002,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=0.004,
    decoupled_weight_decay=False,
    maximize=False,
):
    m = s = 0.0
    product, found = 1.0, []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize, decoupled_weight_decay, lr)
        mu, ahead = (betas[0] * (1 - 0.5 * 0.96 ** (each * momentum_decay)) for each in (t, t + 1))
        product *= mu
        m, s = betas[0] * m + (1 - betas[0]) * g, betas[1] * s + (1 - betas[1]) * g * g
        root = sqrt(s / (1 - betas[1] ** t)) + eps
        value -= lr * ((1 - mu) / (1 - product) * g + ahead / (1 - product * ahead) * m) / root
        found.append(value)
    return found


def radam(
    gradient,
    value,
    steps,
    lr=0.001,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    maximize=False,
):
    m = s = 0.0
    found, longest = [], 2 / (1 - betas[1]) - 1
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize, decoupled_weight_decay, lr)
        m, s = betas[0] * m + (1 - betas[0]) * g, betas[1] * s + (1 - betas[1]) * g * g
        mean, power = m / (1 - betas[0] ** t), betas[1] ** t
        length = longest - 2 * t * power / (1 - power)
        if length > 5:
            rect = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            value -= lr * mean * sqrt(rect) * sqrt(1 - power) / (sqrt(s) + eps)
        else:
            value -= lr * mean
        found.append(value)
    return found


def lion(gradient, value, steps, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, maximize=False):
    m, found = 0.0, []
    for t in range(1, steps + 1):
        g, value = _start(gradient, value, t, weight_decay, maximize, True, lr)
        c = betas[0] * m + (1 - betas[0]) * g
        m = betas[1] * m + (1 - betas[1]) * g
        value -= lr * (copysign(1.0, c) if c else 0.0)
        found.append(value)
    return found


#: By the names of the command: the class, ours and PyTorch's, the loop, and settings to try.
LOOPS = {
    "sgd": ("SGD", sgd, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}]),
    "adam": ("Adam", adam, [{"lr": 0.1}, {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1}, {"maximize": True}]),
    "adamw": ("AdamW", adamw, [{"lr": 0.1, "amsgrad": True}, {"lr": 0.1, "weight_decay": 0.5, "maximize": True}]),
    "rmsprop": ("RMSprop", rmsprop, [{"lr": 0.02, "momentum": 0.7, "maximize": True}]),
    "adagrad": ("Adagrad", adagrad, [{"lr": 0.1, "lr_decay": 0.05, "maximize": True}]),
    "adadelta": (
        "Adadelta",
        adadelta,
        [{}, {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}, {"maximize": True}],
    ),
    "adamax": (
        "Adamax",
        adamax,
        [{}, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}, {"maximize": True}],
    ),
    "nadam": (
        "NAdam",
        nadam,
        [
            {},
            {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "momentum_decay": 0.2},
            {"lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True, "maximize": True},
        ],
    ),
    "radam": (
        "RAdam",
        radam,
        [
            {},
            {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1},
            {"lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True, "maximize": True},
            # The average of squares never gets long enough, and its scale would divide by 0.
            {"lr": 0.1, "betas": (0.9, 0.6)},
        ],
    ),
    "lion": ("Lion", lion, [{}, {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.3}, {"maximize": True}]),
}
