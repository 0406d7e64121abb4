"""Peak memory of a few training steps, measured in a process that does nothing else.

On a CPU it is the peak of the resident memory, less the resident memory before the net was built, when the libraries
were loaded (both from Linux's ``/proc``). It includes pages of a library's code that the first steps touch: 50 to 90 MB
for PyTorch, which matters for small nets. On a GPU it is the peak of the library's allocator.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...backends import Backend, get_backend, operations_of
from ...backends.execution.thread_count import thread_count
from ..standalone import children
from ..standalone.arguments import Parser
from .block_steps import block_step
from .net_steps import NETS, OurNet, TorchNet
from .pytorch import FORMATS, PyTorch, find_pytorch
from .same_threads import same_threads

STEPS = 3
# The first calls of a compiled step are not recorded, and the state that they make needs a recording of its own.
COMPILED_STEPS = 6
OURS = ("ours", "compiled")
SELF = Path("/proc/self")


def peaks(
    what: str, b: Backend, pytorch: PyTorch | None, batch: int, optimizer: str = "sgd", side: str = "ours"
) -> tuple[float | None, float | None]:
    """Megabytes of ours, plain or ``"compiled"``, and of PyTorch's better memory format.

    None for a side that can't be measured.
    """
    ours = _in_new_process(what, b.spec, batch, optimizer, side)
    theirs = [_in_new_process(what, b.spec, batch, optimizer, name) for name in FORMATS] if pytorch is not None else []
    return ours, min((mb for mb in theirs if mb is not None), default=None)


def _in_new_process(what: str, spec: str, batch: int, optimizer: str, side: str) -> float | None:
    """Megabytes of one side, measured in a new process."""
    # First of all, because imports take time.
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
    parser = Parser(prog="peak_memory", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("what", help="a net, or block:CHANNELS:SIZE")
    parser.add_argument("--backend", default="numpy", help="where our side computes")
    parser.add_argument("--batch", type=int, default=1, help="images in a batch")
    parser.add_argument("--optimizer", default="sgd", help="of the steps")
    parser.add_argument(
        "--side",
        choices=(*OURS, *FORMATS),
        default="ours",
        metavar="SIDE",
        help=f"ours, plain or compiled, or PyTorch in {FORMATS[0]} or {FORMATS[1]}",
    )
    options = parser.parse_args(arguments)
    b = get_backend(options.backend)
    pytorch = None
    if options.side not in OURS:
        pytorch = find_pytorch(b)[0]
        if pytorch is None:
            print("null")
            return 0
    with same_threads(thread_count(), pytorch.torch if pytorch else None):
        print(json.dumps(_measure(b, pytorch, options)))
    return 0


def _measure(b: Backend, pytorch: PyTorch | None, options: argparse.Namespace) -> float | None:
    def build() -> Callable[[], object]:
        if options.what.startswith("block:"):
            channels, size = map(int, options.what.split(":")[1:])
            return block_step(b, pytorch, channels, size, options.batch, options.side)
        ours = OurNet(b, NETS[options.what], options.batch, options.optimizer)
        if pytorch is None:
            ours.model.state_dict()
            return (ours.compiled() if options.side == "compiled" else None) or ours.step
        return TorchNet(pytorch, ours.model, ours.host_x, ours.host_y, options.optimizer, options.side).step

    steps = COMPILED_STEPS if options.side == "compiled" else STEPS
    if b.is_host:
        operations_of(b.xp).find_kernels()
        return _resident(build, steps)
    step = build()
    for _ in range(steps):
        step()
    used: Any = pytorch.torch.cuda.max_memory_allocated() if pytorch else b.memory()["peak"]
    return float(used) / 1e6


def _resident(build: Callable[[], Callable[[], object]], steps: int) -> float | None:
    """Peak of the resident memory in the steps, less that before the net was built, in MB."""
    before = _status("VmRSS")
    step = build()
    try:
        (SELF / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    for _ in range(steps):
        step()
    peak = _status("VmHWM")
    return None if before is None or peak is None else (peak - before) * 1024 / 1e6


def _status(name: str) -> int | None:
    """An entry of /proc/self/status, in kB."""
    try:
        lines = (SELF / "status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(next(found, 0)) or None
