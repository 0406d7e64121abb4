"""What `Backend.compile` gains: ``python -m xpnn.scripts.captured --backend cupy``.

LeNet-5's training step (forward, loss, backward, update; 28 x 28 images), compiled and plain in turn, and beside
PyTorch's eager step where there is a PyTorch for the device. A case that fails says why, and the next one runs; exit
status 1 if one did.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..backends import Backend, Generator, get_backend
from ..backends.errors import first_line
from ..layers.losses import CrossEntropy
from ..layers.models import lenet5
from ..training.optimizer import Optimizer
from ..training.optimizers import SGD, Adam

IMAGE = (1, 28, 28)
# Calls of a sample, and of each side before the first: more than a compiled step takes to be recorded.
CALLS = 20

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda model: SGD(model, lr=1e-3, momentum=0.9),
    "adam": lambda model: Adam(model, lr=1e-3, capturable=True),
}


@dataclass
class CapturedRow:
    """Medians in milliseconds; ``gain`` is plain by compiled, ``ratio`` PyTorch by compiled (above 1 we are faster)."""

    kind: str
    name: str
    phase: str
    batch: int
    ours_ms: float
    plain_ms: float
    torch_ms: float | None
    gain: float
    ratio: float | None
    recorded: int


def measure(b: Backend, optimizer: str, batch: int, rounds: int) -> CapturedRow:
    """One optimizer's step, all sides in turn."""
    compiled, plain = (_step(b, optimizer, batch, compiled) for compiled in (True, False))
    sides: dict[str, Callable[[], object]] = {"compiled": compiled, "plain": plain}
    beside = _torch_step(b, optimizer, batch)
    if beside is not None:
        sides["torch"] = beside
    for side in sides.values():
        for _ in range(CALLS):
            side()
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            b.synchronize()
            started = time.perf_counter()
            for _ in range(CALLS):
                side()
            samples[name].append((time.perf_counter() - started) * 1e3 / CALLS)
    ms = {name: statistics.median(values) for name, values in samples.items()}
    theirs = ms.get("torch")
    ratio = None if theirs is None else theirs / ms["compiled"]
    gain = ms["plain"] / ms["compiled"]
    name = f"lenet5 {optimizer} compiled"
    return CapturedRow("net", name, "step", batch, ms["compiled"], ms["plain"], theirs, gain, ratio, compiled())


def _step(b: Backend, optimizer_name: str, batch: int, compiled: bool) -> Callable[[], int]:
    generator = Generator(0).fold_in("bench")
    x = b.asarray(generator.uniform((batch, *IMAGE), backend="numpy"))
    y = b.asarray(generator.permutation(batch) % 10)
    model = lenet5(IMAGE, 10, backend=b, seed=0)
    optimizer, loss = OPTIMIZERS[optimizer_name](model), CrossEntropy(backend=b)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        return value

    taken: Callable[..., Any] = b.compile(step, model, optimizer) if compiled else step

    def call() -> int:
        taken(x, y)
        b.synchronize()
        return int(getattr(taken, "recorded", 0))

    return call


def _torch_step(b: Backend, optimizer_name: str, batch: int) -> Callable[[], None] | None:
    """PyTorch's eager step: TF32 off, cuDNN's search on; None without PyTorch for this device."""
    try:
        import torch
    except ImportError:
        return None
    on_gpu = not b.is_host
    if on_gpu and not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = b.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    device, nn = "cuda" if on_gpu else "cpu", torch.nn
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    ).to(device)
    loss = nn.CrossEntropyLoss()
    optimizer: Any = torch.optim.Adam(net.parameters(), lr=1e-3)
    if optimizer_name == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    x, y = torch.rand((batch, *IMAGE), device=device), torch.randint(0, 10, (batch,), device=device)

    def call() -> None:
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()

    return call


def main(arguments: list[str] | None = None) -> int:
    """Measure all cases; 1 if one failed."""
    parser = argparse.ArgumentParser(description="Time compiled training steps; see the top of this file.")
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(arguments)
    rows, failed = [], 0
    for optimizer in OPTIMIZERS:
        try:
            row = measure(get_backend(options.backend), optimizer, options.batch, options.rounds)
        except Exception as error:
            # A GPU fails in ways that nobody lists; the other cases still tell something.
            print(f"lenet5 {optimizer} compiled: failed: {type(error).__name__}: {first_line(error)}", flush=True)
            failed += 1
            continue
        rows.append(row)
        theirs = "" if row.ratio is None else f", PyTorch eager {row.torch_ms:.3f} ms, ratio {row.ratio:.2f}"
        print(
            f"{row.name}, batch {row.batch}: {row.ours_ms:.3f} ms, plain {row.plain_ms:.3f} ms, gain {row.gain:.2f}"
            f"{theirs}; recorded {row.recorded}",
            flush=True,
        )
        if options.json is not None:
            options.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
