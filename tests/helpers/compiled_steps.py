"""A small net, its training step and optimizers, for tests of compiled steps."""

import threading

import numpy as np

import xpnn as nn

CALLS = 8


def net(b, *more):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding="same"),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *more,
        nn.Dense(27, 4),
        backend=b,
        seed=1,
    )


def batch(i, n=8):
    generator = np.random.default_rng(i)
    return generator.normal(size=(n, 1, 6, 6)).astype("float32"), generator.integers(0, 4, n)


def make(b, make_optimizer, *more, zero=True):
    model = net(b, *more)
    optimizer, loss = make_optimizer(model), nn.CrossEntropy(backend=b)

    def step(x, y):
        if zero:
            optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        return value

    return model, optimizer, step


def train(b, step, calls=CALLS, between=lambda i: None, n=8):
    """Losses, each kept on the device until the end."""
    values = []
    for i in range(calls):
        x, y = batch(i, n)
        values.append(step(b.asarray(x), b.asarray(y)))
        between(i)
    return [b.to_numpy(value).tobytes() for value in values]


def bits(b, model, optimizer):
    state = {name: b.to_numpy(array).tobytes() for name, array in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"{name}.grad"] = b.to_numpy(parameter.grad).tobytes()
        for key, value in parameter.states[optimizer].items():
            state[f"{name}.{key}"] = b.to_numpy(value).tobytes() if hasattr(value, "dtype") else value
    return state


OPTIMIZERS = {
    "sgd": lambda m: nn.SGD(m, lr=0.1),
    "momentum": lambda m: nn.SGD(m, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda m: nn.Adam(m, lr=0.01, capturable=True),
    "adamw": lambda m: nn.AdamW(m, lr=0.01, capturable=True),
    "rmsprop": lambda m: nn.RMSprop(m, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda m: nn.Adagrad(m, lr=0.01, lr_decay=0.1, capturable=True),
    "amsgrad": lambda m: nn.Adam(m, lr=0.01, amsgrad=True, maximize=True, capturable=True),
    "adadelta": lambda m: nn.Adadelta(m, weight_decay=0.01),
    "adamax": lambda m: nn.Adamax(m, lr=0.01, capturable=True),
    "nadam": lambda m: nn.NAdam(m, lr=0.01, capturable=True),
    "radam": lambda m: nn.RAdam(m, lr=0.01, betas=(0.9, 0.9), capturable=True),
    "lion": lambda m: nn.Lion(m, lr=0.001, weight_decay=0.1),
    "groups": lambda m: nn.Adam(
        [{**group, "lr": rate} for group, rate in zip(nn.decay_groups(m, 0.1), (0.02, 0.01), strict=True)],
        capturable=True,
    ),
}


def with_dropout(b, where=1):
    model, optimizer, step = make(b, OPTIMIZERS["momentum"], nn.Dropout(0.3), nn.Dropout(0.5))
    return model, optimizer, step


def in_threads(*work):
    errors = []

    def run(each):
        try:
            each()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
