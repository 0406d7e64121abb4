"""Time training steps beside PyTorch's, or exact numerics beside fast, in turn and in one process."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend, Generator, get_backend
from ..backends.exact.namespace import ExactNamespace
from ..layers.losses import CrossEntropy
from ..layers.models import BUILDERS, lenet5
from ..training.optimizers import Adam
from .errors import at_least, preparing

# Worker threads of one library spin on for tens of milliseconds and would slow the other.
REST = 0.16
SAMPLE = 0.1


@dataclass
class Row:
    """One measurement: medians in milliseconds, and PyTorch's time by ours (above 1 we are faster)."""

    kind: str
    name: str
    phase: str
    batch: int
    ours_ms: float
    torch_ms: float | None
    ratio: float | None
    relative_error: float | None


@dataclass
class NumericsRow:
    """One net in both numerics: medians in milliseconds, their ratio, and array operations of a step."""

    kind: str
    name: str
    phase: str
    batch: int
    fast_ms: float
    exact_ms: float
    ratio: float
    fast_operations: int | None
    exact_operations: int | None


# Of nets to compare numerics on: image, and images in a batch.
NETS: dict[str, tuple[tuple[int, int, int], int]] = {
    "lenet5": ((1, 28, 28), 64),
    "vgg11_bn": ((3, 32, 32), 32),
    "resnet18": ((3, 32, 32), 32),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn bench`` takes."""
    parser.add_argument("--backend", default="numpy", help="what to measure")
    parser.add_argument("--batch", default=None, type=at_least(1), metavar="N", help="images in a batch")
    parser.add_argument("--rounds", default=None, type=at_least(1), metavar="N", help="samples of each side")
    parser.add_argument("--numerics", action="store_true", help="what exact numerics costs, in nets of three sizes")
    parser.add_argument("--json", default=None, metavar="FILE", help="write the figures there too")


def run(options: argparse.Namespace) -> None:
    """Measure LeNet-5's training step beside PyTorch's, or the cost of exact numerics, and print the table."""
    with preparing():
        backend = get_backend(options.backend)
        target = None if options.json is None else Path(options.json)
        if target is not None and not target.parent.is_dir():
            raise ValueError(f"--json {target}: no folder {target.parent}")
    machine = describe_machine(backend)
    print("  ".join(f"{name} {value}" for name, value in machine.items()))
    rows: list[Any] = list(_numerics(options) if options.numerics else _beside_pytorch(options, backend))
    if target is not None:
        target.write_text(
            json.dumps({"machine": machine, "rows": list(map(asdict, rows))}, indent=2) + "\n", encoding="utf-8"
        )
        print(f"wrote {target}")


def _numerics(options: argparse.Namespace) -> Iterator[NumericsRow]:
    """The rows of ``--numerics``, printed as they come."""
    for name in NETS:
        row = measure_numerics(options.backend, name, options.batch, options.rounds or 5)
        told = (
            "" if row.exact_operations is None else f"; array operations {row.fast_operations}, {row.exact_operations}"
        )
        print(
            f"{row.name} step, batch {row.batch}: fast {row.fast_ms:.1f} ms, exact {row.exact_ms:.1f} ms, "
            f"exact/fast {row.ratio:.2f}{told}",
            flush=True,
        )
        yield row


def _beside_pytorch(options: argparse.Namespace, backend: Backend) -> Iterator[Row]:
    row = measure_lenet5(backend, options.batch or 64, options.rounds or 9)
    if row.torch_ms is None:
        print(f"lenet5 step, batch {row.batch}: ours {row.ours_ms:.2f} ms; PyTorch is not installed, so no ratio")
    else:
        print(
            f"lenet5 step, batch {row.batch}: ours {row.ours_ms:.2f} ms, PyTorch {row.torch_ms:.2f} ms (the better of "
            f"its memory formats), ratio {row.ratio:.2f}; gradients agree to {row.relative_error:.1e}"
        )
    yield row


def measure_numerics(spec: str, name: str, batch: int | None, rounds: int) -> NumericsRow:
    """A training step of a net in both numerics, in turn."""
    image, usual = NETS[name]
    batch = batch or usual
    fast, exact = (_step(get_backend(spec, numerics=numerics), name, image, batch) for numerics in ("fast", "exact"))
    medians = interleave({"fast": fast, "exact": exact}, rounds)
    counts = (count_operations(numerics, name, image) for numerics in ("fast", "exact"))
    ratio = medians["exact"] / medians["fast"]
    return NumericsRow("net", name, "step", batch, medians["fast"], medians["exact"], ratio, *counts)


def _step(b: Backend, name: str, image: tuple[int, int, int], batch: int) -> Callable[[], None]:
    """Forward, loss, backward and Adam's update on one batch of random images."""
    generator = Generator(0).fold_in("bench")
    model = BUILDERS[name](image, 10, backend=b, seed=0)
    optimizer, loss = Adam(model), CrossEntropy(backend=b)
    x = b.asarray(generator.uniform((batch, *image), backend="numpy"))
    y = b.asarray(generator.permutation(batch) % 10)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        b.synchronize()

    return step


def count_operations(numerics: str, name: str, image: tuple[int, int, int]) -> int | None:
    """Array operations of a step on a device that takes arrays whole, views not counted; None without PyTorch.

    PyTorch's dispatcher counts them: the code is the same for every backend, and on a GPU each is about one kernel.
    """
    try:
        from torch.utils._python_dispatch import TorchDispatchMode
    except ImportError:
        return None

    class Count(TorchDispatchMode):  # type: ignore[misc, no-untyped-call, unused-ignore]
        total = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.total += not function.is_view
            return function(*args, **(kwargs or {}))

    b = get_backend("torch", numerics=numerics)
    if numerics == "exact":
        b = replace(b, xp=ExactNamespace(b.xp.raw, b.products, on_host=False))
    step = _step(b, name, image, 2)
    step()
    with Count() as count:  # type: ignore[no-untyped-call, unused-ignore]
        step()
    return int(count.total)


def measure_lenet5(backend: Backend, batch: int, rounds: int) -> Row:
    """Forward, loss, backward and Adam's update on one batch of random 28 x 28 images."""
    generator = Generator(0).fold_in("bench")
    x = generator.uniform((batch, 1, 28, 28), backend="numpy")
    y = generator.permutation(batch) % 10
    model = lenet5((1, 28, 28), 10, backend=backend)
    optimizer, loss = Adam(model), CrossEntropy(backend=backend)
    inputs, targets = backend.asarray(x), backend.asarray(y)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(inputs), targets)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        backend.synchronize()

    sides: dict[str, Callable[[], None]] = {"ours": step}
    error = None
    try:
        import torch
    except ImportError:
        pass
    else:
        device = str(backend.device) if backend.spec.startswith("torch") else "cpu"
        device = "cuda" if backend.spec.startswith("cupy") else device
        weights = {name: backend.to_numpy(array) for name, array in model.state_dict().items()}
        nets = {
            name: _TorchLenet5(torch, weights, x, y, device, memory_format)
            for name, memory_format in (("torch", torch.contiguous_format), ("torch nhwc", torch.channels_last))
        }
        optimizer.zero_grad()
        loss(model(inputs), targets)
        model.backward(loss.backward(), input_grad=False)
        ours = {name: backend.to_numpy(parameter.grad) for name, parameter in model.named_parameters()}
        error = max(_relative(ours[name], gradient) for name, gradient in nets["torch"].gradients().items())
        sides |= {name: net.step for name, net in nets.items()}

    medians = interleave(sides, rounds)
    theirs = min((ms for name, ms in medians.items() if name != "ours"), default=None)
    ratio = None if theirs is None else theirs / medians["ours"]
    return Row("net", "lenet5", "step", batch, medians["ours"], theirs, ratio, error)


def interleave(sides: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds a call of each side, measured in turn with a rest in between."""
    repeats = {}
    for name, call in sides.items():
        call()
        started = time.perf_counter()
        call()
        repeats[name] = max(1, round(SAMPLE / max(time.perf_counter() - started, 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            time.sleep(REST)
            if repeats[name] > 1:
                call()
            started = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - started) / repeats[name] * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


def describe_machine(backend: Backend) -> dict[str, Any]:
    """What the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "backend": f"{backend.spec} {backend.version()} ({backend.notes()})",
        "processor": platform.processor() or platform.machine(),
        "cores": cores,
        "python": platform.python_version(),
    }


class _TorchLenet5:
    """The same net, weights, batch and optimizer in PyTorch, eager."""

    def __init__(self, torch: Any, weights: dict[str, Any], x: Any, y: Any, device: str, memory_format: Any) -> None:
        nn = torch.nn
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )
        self.net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        self.net.to(device=device, memory_format=memory_format)
        self.x = torch.from_numpy(np.array(x)).to(device=device, memory_format=memory_format)
        self.y = torch.from_numpy(np.array(y)).to(device)
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.net(self.x), self.y).backward()
        self.optimizer.step()
        self.wait()

    def gradients(self) -> dict[str, Any]:
        self.optimizer.zero_grad()
        self.loss(self.net(self.x), self.y).backward()
        return {name: parameter.grad.cpu().numpy() for name, parameter in self.net.named_parameters()}


def _relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30))
