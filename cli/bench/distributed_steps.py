"""What `xpnn.cli.bench.distributed` starts as one process, or as several: steps of a net, and how long they took.

``python -m xpnn.cli.bench.distributed_steps NET NUMERICS STEPS`` prints a line of JSON, rank 0 alone.
"""

import json
import sys
import time
from statistics import median
from typing import Any

from ...backends import get_backend, use_backend
from ...distributed import init
from ...layers.core.grad_mode import by_mode
from ...training.modes import in_training
from ...training.optimizers import SGD
from ...training.options import FitOptions
from ...training.ranks.gradients import GroupGradients
from ...training.run import Run
from ...training.training_step import TrainingStep
from .net_steps import NETS, RATE, batch_of

# Steps before those that are measured: kernels are compiled, buckets made, calls kept.
FIRST = 8


def main(net: str, numerics: str, steps: int) -> None:
    """Take the steps, and print what rank 0 measured."""
    group, case = init("auto"), NETS[net]
    b = get_backend("numpy", numerics=numerics)
    model = case.build(b)
    batch = batch_of(case.image, case.batch, model)
    # Steps are compared uncompiled: those of a group are not recorded.
    optimizer = SGD(model, lr=RATE, momentum=0.9)
    run = Run(FitOptions(model, batch, optimizer=optimizer, batch_size=case.batch, group=group, compile=False))
    times: list[float] = []
    timeline: list[Any] = []
    with use_backend(b), in_training(model, []), by_mode(), TrainingStep(run, print) as step:
        for number in range(FIRST + steps):
            if number == FIRST:
                before = group.traffic
            last = number == FIRST + steps - 1
            if last and isinstance(step.gradients, GroupGradients) and step.gradients.buckets is not None:
                step.gradients.buckets.timeline = timeline
            x, target = next(iter(run.loader.batches(b, share=run.share)))
            start = time.perf_counter()
            step(x, target)
            times.append(time.perf_counter() - start)
    traffic = group.traffic.since(before)
    if group.is_root:
        measured = times[FIRST:]
        found = {
            "seconds": median(measured),
            "waits": traffic.seconds / sum(measured),
            "messages": traffic.messages / steps,
            "bytes": traffic.bytes / steps,
            "peak_mb": b.memory()["peak"] / 1e6,
            "by": group.description,
            "timeline": {
                "step": [0.0, times[-1]],
                "buckets": [[each.start - start, each.end - start] for each in timeline],
            },
        }
        print(json.dumps(found), flush=True)
    group.barrier()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
