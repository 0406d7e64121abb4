"""Time a training step beside PyTorch's, in turn and in one process."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import Backend, Generator, get_backend
from ..layers.losses import CrossEntropy
from ..layers.models import lenet5
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


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn bench`` takes."""
    parser.add_argument("--backend", default="numpy", help="what to measure")
    parser.add_argument("--batch", default=64, type=at_least(1), metavar="N", help="images in a batch")
    parser.add_argument("--rounds", default=9, type=at_least(1), metavar="N", help="samples of each side")
    parser.add_argument("--json", default=None, metavar="FILE", help="write the figures there too")


def run(options: argparse.Namespace) -> None:
    """Measure LeNet-5's training step and print the table."""
    with preparing():
        backend = get_backend(options.backend)
        target = None if options.json is None else Path(options.json)
        if target is not None and not target.parent.is_dir():
            raise ValueError(f"--json {target}: no folder {target.parent}")
    row = measure_lenet5(backend, options.batch, options.rounds)
    machine = describe_machine(backend)
    print("  ".join(f"{name} {value}" for name, value in machine.items()))
    if row.torch_ms is None:
        print(f"lenet5 step, batch {row.batch}: ours {row.ours_ms:.2f} ms; PyTorch is not installed, so no ratio")
    else:
        print(
            f"lenet5 step, batch {row.batch}: ours {row.ours_ms:.2f} ms, PyTorch {row.torch_ms:.2f} ms (the better of "
            f"its memory formats), ratio {row.ratio:.2f}; gradients agree to {row.relative_error:.1e}"
        )
    if target is not None:
        target.write_text(json.dumps({"machine": machine, "rows": [asdict(row)]}, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {target}")


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
        for _ in range(3):
            call()
        started = time.perf_counter()
        call()
        repeats[name] = max(1, round(SAMPLE / max(time.perf_counter() - started, 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            time.sleep(REST)
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
