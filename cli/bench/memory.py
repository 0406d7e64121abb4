"""Peak memory of three training steps, in a process that does nothing else.

On a CPU it is the resident memory at its peak, above what was resident once the libraries were loaded and before the
net was built (Linux counts both, in ``/proc``): with it come the pages of a library's own code that the first steps
touch, some 50 to 90 MB of PyTorch's, which weigh in where nets are small. On a GPU it is what the library's
allocator held.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...backends import Backend, get_backend
from ..standalone import children
from ..standalone.arguments import Parser
from .opponent import FORMATS, Opponent, find_opponent
from .threads import same_threads, threads

STEPS = 3
SELF = Path("/proc/self")


def peaks(
    what: str, b: Backend, opponent: Opponent | None, batch: int, optimizer: str = "sgd"
) -> tuple[float | None, float | None]:
    """Megabytes of ours and of PyTorch's better format; None where the system does not tell."""
    ours = _ask(what, b.spec, batch, optimizer, "ours")
    theirs = [_ask(what, b.spec, batch, optimizer, name) for name in FORMATS] if opponent is not None else []
    return ours, min((mb for mb in theirs if mb is not None), default=None)


def _ask(what: str, spec: str, batch: int, optimizer: str, side: str) -> float | None:
    """Megabytes, from a process of its own."""
    # Before anything that takes time to import.
    code = f"import runpy, sys; runpy.run_path({children.__file__!r})['die_with_parent']({os.getpid()})"
    command = [sys.executable, "-c", f"{code}; from {__name__} import main; sys.exit(main())", what]
    command += ["--backend", spec, "--batch", str(batch)]
    command += ["--optimizer", optimizer, "--side", side]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        value = json.loads(found.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return None if value is None else float(value)


def main(arguments: list[str] | None = None) -> int:
    """Print the megabytes of one side, as JSON."""
    parser = Parser(prog="memory", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("what", help="a net, or block:CHANNELS:SIZE")
    parser.add_argument("--backend", default="numpy", help="what computes")
    parser.add_argument("--batch", type=int, default=1, help="images in a batch")
    parser.add_argument("--optimizer", default="sgd", help="of the steps")
    parser.add_argument(
        "--side",
        choices=("ours", *FORMATS),
        default="ours",
        metavar="SIDE",
        help=f"ours, or PyTorch in {FORMATS[0]} or {FORMATS[1]}",
    )
    options = parser.parse_args(arguments)
    b = get_backend(options.backend)
    opponent = None
    if options.side != "ours":
        opponent = find_opponent(b)[0]
        if opponent is None:
            print("null")
            return 0
    with same_threads(threads(), opponent.torch if opponent else None):
        print(json.dumps(_measure(b, opponent, options)))
    return 0


def _measure(b: Backend, opponent: Opponent | None, options: argparse.Namespace) -> float | None:
    from .growth import block_step
    from .nets import NETS, OurNet, TorchNet

    def build() -> Callable[[], object]:
        if options.what.startswith("block:"):
            channels, size = map(int, options.what.split(":")[1:])
            return block_step(b, opponent, channels, size, options.batch, options.side)
        ours = OurNet(b, NETS[options.what], options.batch, options.optimizer)
        if opponent is None:
            ours.model.state_dict()
            return ours.step
        return TorchNet(opponent, ours.model, ours.host_x, ours.host_y, options.optimizer, options.side).step

    if b.is_host:
        return _resident(build)
    step = build()
    for _ in range(STEPS):
        step()
    used: Any = opponent.torch.cuda.max_memory_allocated() if opponent else b.memory()["peak"]
    return float(used) / 1e6


def _resident(build: Callable[[], Callable[[], object]]) -> float | None:
    """Peak of the steps above what was resident before the net was built, in MB."""
    before = _status("VmRSS")
    step = build()
    try:
        (SELF / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    for _ in range(STEPS):
        step()
    peak = _status("VmHWM")
    return None if before is None or peak is None else (peak - before) * 1024 / 1e6


def _status(name: str) -> int | None:
    """A figure of this process in kB."""
    try:
        lines = (SELF / "status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(next(found, 0)) or None
