"""Run a text as the program of several ranks, and read what each printed."""

import sys
import textwrap
from pathlib import Path

import ranks

BEGIN = """
import json, sys
import numpy as np
import xpnn as nn
group = nn.distributed.init("mpi", timeout=4) if "RANKS" in sys.argv else None
def samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 2, 8, 8)).astype("float32"), rng.integers(0, 5, count)
def weights(model):
    return [float(x) for _, a in sorted(model.state_dict().items()) for x in np.asarray(a).ravel()]
def tell(value):
    sys.stdout.write(f"RESULT {json.dumps([0 if group is None else group.rank, value])}\\n")
    sys.stdout.flush()
"""


def start(count, folder, text, **more):
    """The process of so many ranks of a program, or with None of one process without a group."""
    program = Path(folder) / f"program{count}.py"
    program.write_text(BEGIN + textwrap.dedent(text))
    alone = [sys.executable, str(program)]
    return ranks.started(alone if count is None else ranks.command(count, program, "RANKS"), **more)


def results(out):
    return [value for _, value in sorted(ranks.results_in(out).items())]


def run(count, folder, text, **more):
    """What each rank told, in order of rank."""
    process = start(count, folder, text, **more)
    out, errors = ranks.end_of(process)
    found = results(out)
    assert process.returncode == 0 and len(found) == (count or 1), out + errors
    return found
