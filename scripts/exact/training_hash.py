"""The hash of a short training: the program that ``scripts/exact_matrix.py`` runs under each configuration.

Its argument is a task in JSON; its last line of output is the answer, in JSON too.
"""

import hashlib
import importlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from ...cli.standalone.children import die_with_parent
else:
    # Run as a file. `xpnn` itself is imported later, because that takes time.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from cli.standalone.children import die_with_parent

BATCH, BATCHES = 16, 5


def training_hash(
    backend: str, numerics: str, steps: int, *, shards: int = 1, flush_denormal: bool = False, seed: int = 1
) -> str:
    """SHA-256 of losses, weights, statistics and optimizer states after ``steps`` steps, half with each optimizer."""
    import xpnn as nn

    b = nn.get_backend(backend, numerics=numerics)
    if flush_denormal:
        import torch

        torch.set_flush_denormal(True)
    numbers = nn.random.Generator(seed)
    x = numbers.fold_in("x").normal((BATCH * BATCHES, 2, 8, 8), backend="numpy", dtype="float32")
    y = numbers.fold_in("y").permutation(BATCH * BATCHES) % 5
    digest = hashlib.sha256()
    for make_optimizer in (lambda model: nn.Adam(model, lr=0.01), lambda model: nn.SGD(model, lr=0.05, momentum=0.9)):
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Dense(128, 5),
            backend=b,
            seed=seed,
        )
        optimizer = make_optimizer(model)
        epochs = -(-steps // (2 * BATCHES))
        history = nn.fit(
            model, (x, y), optimizer=optimizer, epochs=epochs, batch_size=BATCH, shards=shards, progress=False
        )
        arrays = dict(model.state_dict())
        for name, state in optimizer.state_dict()["state"].items():
            arrays |= {f"{name}/{key}": value for key, value in state.items() if hasattr(value, "dtype")}
        for name, array in sorted(arrays.items()):
            digest.update(name.encode() + b.to_numpy(array).tobytes())
        digest.update(repr(history["train_loss"]).encode())
    return digest.hexdigest()


def answer(task: Mapping[str, Any]) -> dict[str, Any]:
    """The hashes in both numerics; for a task without ``steps`` the processor features that NumPy dispatches on."""
    import xpnn as nn

    backend = task["backend"]
    try:
        nn.get_backend(backend, numerics="exact")
    except (nn.BackendUnavailable, ValueError) as error:
        return {"unusable": str(error)}
    if "steps" not in task:
        # NumPy has no public function for its dispatch.
        core = importlib.import_module("numpy._core._multiarray_umath")
        enabled = core.__cpu_features__
        return {"dispatched": [name for name in core.__cpu_dispatch__ if enabled.get(name)]}
    started = time.perf_counter()
    hashes = {
        numerics: training_hash(backend, numerics, task["steps"], **task["arguments"]) for numerics in ("exact", "fast")
    }
    return {**hashes, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    die_with_parent(task["parent"])
    print(json.dumps(answer(task)))
