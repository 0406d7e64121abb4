"""Golden runs: 200 steps of training in exact numerics, with the expected hash of the results in this file.

If another backend, machine or version has the same hash, then the order of the data, initial weights, dropout masks,
forward, backward and updates all have the same bits. The net has every kind of layer whose bits are hard to reproduce,
and learns the handwritten digits that come with scikit-learn.
"""

import hashlib
from typing import Any

from ..backends import BackendLike, get_backend, use_backend
from ..layers import (
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    ReLU,
    Sequential,
    Tanh,
)
from ..training import optimizers
from ..training.datasets import load_dataset

SEED, STEPS, BATCH = 20240917, 200, 32
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD with momentum": ("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-4}),
    "Adam": ("Adam", {"lr": 0.002}),
}
#: SHA-256 of losses, weights and running statistics, by optimizer.
GOLDEN = {
    "SGD with momentum": "6033394909477d1e1a866986493378dd9feee7193883163411218d47edddf059",
    "Adam": "39f88a7b638a8d02af689130745891b669422a6e010dd01dabac0d9e9b31ce09",
}


def golden_net(**placement: Any) -> Layer:
    """Convolution, batch norm, ReLU, tanh, max-pool, dropout and dense, for images of 8 x 8."""
    return Sequential(
        Conv2d(1, 8, 3, padding="same"),
        BatchNorm2d(8),
        ReLU(),
        MaxPool2d(2),
        Conv2d(8, 16, 3, padding=1),
        Tanh(),
        Dropout(0.25),
        Flatten(),
        Dense(16 * 16, 10),
        **placement,
    )


def golden_run(backend: BackendLike, optimizer: str, steps: int = STEPS) -> str:
    """Train on a backend in exact numerics and return the SHA-256 of losses, weights and buffers.

    Parameters
    ----------
    backend : str or Backend
    optimizer : str
        One of `OPTIMIZERS`.
    steps : int
        `GOLDEN` has the hashes for 200.

    Raises
    ------
    ValueError
        If scikit-learn, which has the data, is not installed.
    """
    data = load_dataset("digits")
    b = get_backend(backend, numerics="exact")
    net = golden_net(backend=b, seed=SEED)
    name, options = OPTIMIZERS[optimizer]
    rule = getattr(optimizers, name)(net, **options)
    loader = data.loader(BATCH, seed=SEED)
    losses: list[Any] = []
    with use_backend(b):
        loss = CrossEntropy()
        while len(losses) < steps:
            for x, target in loader.batches(b):
                rule.zero_grad()
                losses.append(loss.forward(net.forward(x), target))
                net.backward(loss.backward(), input_grad=False)
                rule.step()
                if len(losses) == steps:
                    break
        found = hashlib.sha256(b.to_numpy(b.xp.stack(losses)).tobytes())
    for key, array in sorted(net.state_dict().items()):
        host = b.to_numpy(array)
        found.update(f"{key} {host.dtype.name} {host.shape}".encode())
        found.update(host.tobytes())
    return found.hexdigest()
