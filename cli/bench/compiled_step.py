"""What `Backend.compile` gains: ``python -m xpnn.cli.bench.compiled_step --backend cupy --net resnet18 lenet5``.

The training step of a net (forward, loss, backward, update), compiled and plain in turn, and beside PyTorch's eager
step, in the faster of its memory formats, where there is a PyTorch for the device. Before they are timed, compiled and
plain take the same few steps from the same weights, and their losses are compared. A case that fails says why, and the
next one runs; exit status 1 if one did, and 3 if none did but other processes disturbed what was timed.
"""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...backends import Backend, get_backend
from ...backends.errors import first_line
from ...layers.losses import CrossEntropy
from ...layers.models import BUILDERS
from ...training.optimizers import SGD, Adam, Optimizer
from ..backend_option import add_backend, backend_name
from ..errors import at_least, preparing, text
from ..program import Ended, program, reported
from ..standalone.arguments import Parser
from ..targets import append, targets, write
from .load import Watch
from .measure import Side, disturbance, measure
from .mirror import load
from .nets import CLASSES, NETS, RATE, NetCase, TorchNet, batch_of
from .opponent import Opponent, find_opponent
from .work import relative_error

# Steps whose losses are compared: more than a compiled step takes to be recorded and replayed.
STEPS = 6
# Losses may differ by that much of their norm: the products of a compiled step may be summed in another order.
BOUND = 1e-3

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda model: SGD(model, lr=RATE, momentum=0.9),
    "adam": lambda model: Adam(model, lr=RATE, capturable=True),
}


@dataclass
class CapturedRow:
    """Medians in milliseconds; ``gain`` is plain by compiled, ``ratio`` PyTorch by compiled (above 1 we are faster).

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
        self.host_x, self.host_y = batch_of(case.image, batch)
        self.x, self.y = b.asarray(self.host_x, b.dtype_name), b.asarray(self.host_y)
        self.model = model = BUILDERS[case.builder](case.image, CLASSES, backend=b, seed=0)
        optimizer, loss = OPTIMIZERS[optimizer_name](model), CrossEntropy(backend=b)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            value = loss(model(x), y)
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            return value

        self.step: Callable[..., Any] = b.compile(step, model, optimizer) if compiled else step

    def __call__(self) -> Any:
        """Take it; the loss."""
        return self.step(self.x, self.y)

    def losses(self, steps: int) -> np.ndarray[Any, Any]:
        """Of the next steps, on the host."""
        return np.array([self.b.to_numpy(self()) for _ in range(steps)])

    @property
    def recorded(self) -> int:
        """How often the step was recorded; 0 where it is not compiled."""
        return int(getattr(self.step, "recorded", 0))


def captured_row(
    b: Backend, opponent: Opponent | None, case: NetCase, optimizer: str, batch: int, rounds: int
) -> CapturedRow:
    """One net with one optimizer, all sides in turn."""
    compiled, plain = (Step(b, case, optimizer, batch, compiled) for compiled in (True, False))
    sides = {"compiled": Side(compiled, b.synchronize), "plain": Side(plain, b.synchronize)}
    for memory_format in () if opponent is None else opponent.formats():
        assert opponent is not None
        net = TorchNet(opponent, plain.model, plain.host_x, plain.host_y, optimizer, memory_format)
        load(opponent, net.net, plain.model, b)
        sides[memory_format] = Side(net.step, opponent.wait)
    error = relative_error([compiled.losses(STEPS)], [plain.losses(STEPS)])
    times = measure(sides, rounds, Watch(), 0.0, None if b.is_host else 0.0)
    ms = dict(times.medians)
    ours, eager = ms.pop("compiled"), ms.pop("plain")
    best = min(ms, key=lambda name: ms[name]) if ms else None
    theirs = None if best is None else ms[best]
    ratio = None if theirs is None else theirs / ours
    name = f"{case.name} {optimizer} compiled"
    told = (best, compiled.recorded, error, not error <= BOUND, times.disturbed)
    return CapturedRow("net", name, "step", batch, ours, eager, theirs, eager / ours, ratio, *told)


def main(arguments: list[str] | None = None) -> int:
    """Measure all cases; 1 if one failed, 2 for a bad call, 3 where other processes disturbed one."""
    try:
        with reported("compiled_step"):
            return _measured(arguments)
    except Ended as error:
        return int(str(error))


def _measured(arguments: list[str] | None) -> int:
    parser = Parser(prog="compiled_step", description="Time compiled training steps; see the top of this file.")
    add_backend(parser, "cupy")
    nets = f"some of {', '.join(NETS)}; largest first, if time may run out"
    parser.add_argument("--net", nargs="+", default=["lenet5"], choices=NETS, metavar="NET", help=nets)
    parser.add_argument(
        "--optimizer", nargs="+", default=list(OPTIMIZERS), choices=OPTIMIZERS, metavar="NAME", help="of the steps"
    )
    parser.add_argument(
        "--batch", type=at_least(1), default=None, help="images in a batch; the net's usual one unless given"
    )
    parser.add_argument("--rounds", type=at_least(1), default=9, help="samples of each side")
    parser.add_argument("--json", default=None, type=text, metavar="FILE", help="all rows, written anew after each")
    parser.add_argument("--lines", default=None, type=text, metavar="FILE", help="add each row there, a line of JSON")
    options = parser.parse_args(arguments)
    with preparing():
        files = targets({name: getattr(options, name) for name in ("json", "lines")})
        backend = backend_name(options.backend, "cupy")
    rows, failed, disturbed = [], 0, 0
    for net, optimizer in [(net, optimizer) for net in options.net for optimizer in options.optimizer]:
        name = f"{net} {optimizer} compiled"
        try:
            b = get_backend(backend)
            opponent, _ = find_opponent(b)
            case = NETS[net]
            with opponent.settings() if opponent is not None else nullcontext():
                row = captured_row(b, opponent, case, optimizer, options.batch or case.batch, options.rounds)
        except Exception as error:
            # A GPU fails in ways that nobody lists; the other cases still tell something.
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
            write(files["json"], json.dumps({"rows": [asdict(row) for row in rows]}))
    return 1 if failed else 3 if disturbed else 0


if __name__ == "__main__":
    sys.exit(program("compiled_step", main))
