"""Time compiled training steps of nets beside plain steps, and beside PyTorch's eager steps.

A step is forward, loss, backward and update; PyTorch's is in the faster of its memory formats. Compiled and plain steps
are timed in turn. Before that both take the same few steps from the same weights, and their losses are compared.

If a case fails, the reason is printed and the next case runs.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...backends import Backend, get_backend
from ...backends.errors import first_line
from ...common.files import write_whole
from ...layers.losses import CrossEntropy
from ...training.optimizers import SGD, Adam
from ...training.optimizers.base import Optimizer
from ..argument_types import at_least, text
from ..backend_option import add_backend, backend_name
from ..errors import Failure, NotMeasured, preparing
from ..output_files import append, targets
from .host_arrays import relative_error
from .measure import Side, disturbance, measure
from .net_steps import NETS, RATE, NetCase, TorchNet, batch_of
from .other_processes import Watch
from .pytorch import PyTorch, find_pytorch
from .torch_module import load_weights

# Steps whose losses are compared: enough for a compiled step to be recorded and replayed.
STEPS = 6
# The largest relative error of the losses: the products of a compiled step may be summed in another order.
BOUND = 1e-3

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda model: SGD(model, lr=RATE, momentum=0.9),
    "adam": lambda model: Adam(model, lr=RATE, capturable=True),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn bench compiled-step``."""
    add_backend(parser, "cupy")
    nets = f"some of {', '.join(NETS)}; largest first, if time may run out"
    parser.add_argument("--net", nargs="+", default=["lenet5"], choices=NETS, metavar="NET", help=nets)
    parser.add_argument(
        "--optimizer",
        nargs="+",
        default=list(OPTIMIZERS),
        choices=OPTIMIZERS,
        metavar="OPT",
        help="optimizers of the steps",
    )
    parser.add_argument(
        "--batch",
        type=at_least(1),
        default=None,
        metavar="N",
        help="images in a batch; the net's usual number unless given",
    )
    parser.add_argument("--rounds", type=at_least(1), default=9, metavar="N", help="samples of each side")
    parser.add_argument("--json", default=None, type=text, metavar="FILE", help="write all rows there, after each one")
    parser.add_argument(
        "--lines", default=None, type=text, metavar="FILE", help="add each row to this file at once, as a line of JSON"
    )


def run(options: argparse.Namespace) -> None:
    """Measure all cases, net by net.

    Raises
    ------
    Failure
        If a case failed, or its losses differ.
    NotMeasured
        If none did, but other processes disturbed a case.
    """
    with preparing():
        files = targets({name: getattr(options, name) for name in ("json", "lines")})
        backend = backend_name(options.backend, "cupy")
    rows, failed, disturbed = [], 0, 0
    for net, optimizer in [(net, optimizer) for net in options.net for optimizer in options.optimizer]:
        name = f"{net} {optimizer} compiled"
        try:
            b = get_backend(backend)
            pytorch, _ = find_pytorch(b)
            case = NETS[net]
            with pytorch.settings() if pytorch is not None else nullcontext():
                row = compiled_row(b, pytorch, case, optimizer, options.batch or case.batch, options.rounds)
        except Exception as error:
            # Errors of a GPU are of many kinds; the other cases may still work.
            problem = f"{type(error).__name__}: {first_line(error)}"
            print(f"{name}: failed: {problem}", flush=True)
            failed += 1
            if files["lines"] is not None:
                append(files["lines"], {"name": name, "passed": False, "problem": problem})
            continue
        failed += row.wrong
        disturbed += row.disturbed is True
        rows.append(row)
        print(row, flush=True)
        if files["lines"] is not None:
            append(files["lines"], asdict(row))
        if files["json"] is not None:
            write_whole(files["json"], json.dumps({"rows": [asdict(row) for row in rows]}))
    if failed:
        raise Failure
    if disturbed:
        raise NotMeasured


@dataclass
class CompiledRow:
    """Median milliseconds of a net's step: ``ours_ms`` compiled, ``plain_ms`` not compiled.

    ``gain`` is plain divided by compiled, ``ratio`` PyTorch divided by compiled: above 1 we are faster.
    ``relative_error`` is that of the compiled step's first losses against the plain step's.
    """

    kind: str
    name: str
    phase: str
    batch: int
    ours_ms: float
    plain_ms: float
    torch_ms: float | None
    gain: float
    ratio: float | None
    torch_format: str | None
    recorded: int
    relative_error: float
    wrong: bool
    disturbed: bool | None = None

    def __str__(self) -> str:
        text = f"{self.name}, batch {self.batch}: {self.ours_ms:.3f} ms, plain {self.plain_ms:.3f} ms"
        text += f", gain {self.gain:.2f}"
        if self.ratio is not None:
            text += f", PyTorch eager {self.torch_ms:.3f} ms, ratio {self.ratio:.2f}"
        text += f"; recorded {self.recorded}, losses {self.relative_error:.1e} from those of the plain step"
        text += disturbance(self.disturbed)
        return text + (f"\n    WRONG: {BOUND:g} is allowed" if self.wrong else "")


class Step:
    """A training step of ours on one batch, compiled or not."""

    def __init__(self, b: Backend, case: NetCase, optimizer_name: str, batch: int, compiled: bool) -> None:
        self.b = b
        self.model = model = case.build(b)
        self.host_x, self.host_y = batch_of(case.image, batch, model)
        self.x, self.y = b.asarray(self.host_x, b.dtype_name), b.asarray(self.host_y)
        optimizer, loss = OPTIMIZERS[optimizer_name](model), CrossEntropy(backend=b)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            value = loss(model(x), y)
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            return value

        self.step: Callable[..., Any] = b.compile(step, model, optimizer) if compiled else step

    def __call__(self) -> Any:
        """Take the step; returns the loss."""
        return self.step(self.x, self.y)

    def losses(self, steps: int) -> np.ndarray[Any, Any]:
        """The losses of the next steps, on the host."""
        return np.array([self.b.to_numpy(self()) for _ in range(steps)])

    @property
    def recorded(self) -> int:
        """The number of recordings; 0 if the step is not compiled."""
        return int(getattr(self.step, "recorded", 0))


def compiled_row(
    b: Backend, pytorch: PyTorch | None, case: NetCase, optimizer: str, batch: int, rounds: int
) -> CompiledRow:
    """One net with one optimizer, all sides in turn."""
    compiled, plain = (Step(b, case, optimizer, batch, compiled) for compiled in (True, False))
    sides = {"compiled": Side(compiled, b.synchronize), "plain": Side(plain, b.synchronize)}
    for memory_format in () if pytorch is None else pytorch.formats():
        assert pytorch is not None
        net = TorchNet(pytorch, plain.model, plain.host_x, plain.host_y, optimizer, memory_format)
        load_weights(pytorch, net.net, plain.model, b)
        sides[memory_format] = Side(net.step, pytorch.wait)
    error = relative_error([compiled.losses(STEPS)], [plain.losses(STEPS)])
    times = measure(sides, rounds, Watch(), 0.0, None if b.is_host else 0.0)
    ms = dict(times.medians)
    ours, eager = ms.pop("compiled"), ms.pop("plain")
    best = min(ms, key=lambda name: ms[name]) if ms else None
    theirs = None if best is None else ms[best]
    ratio = None if theirs is None else theirs / ours
    name = f"{case.name} {optimizer} compiled"
    checks = (best, compiled.recorded, error, not error <= BOUND, times.disturbed)
    return CompiledRow("net", name, "step", batch, ours, eager, theirs, eager / ours, ratio, *checks)
