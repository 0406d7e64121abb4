"""What ranks must have in common before they train together."""

import hashlib
import json
import sys
from typing import Any

import numpy as np

from ...distributed import Group
from ...distributed.errors import RanksDiffer
from ...layers.core.snapshot import streams
from ..data_loader import DataLoader
from ..host_state import average_state, load_average_state, load_model_state, model_state, optimizer_state
from ..images import IN_MEMORY, Images
from ..run import Run

# Samples that are compared of data that is read batch by batch, or does not fit into memory easily.
_SOME = 16


def require_same_run(run: Run) -> None:
    """Compare the ranks, then give all of them the weights of rank 0; called by all.

    Raises
    ------
    RanksDiffer
        On all ranks, if versions, settings, data or models differ; the message names the ranks and what differs.
    """
    if run.group.size == 1:
        return
    every = run.group.gather({name: _digest(value) for name, value in _facts(run).items()})
    problems = []
    for rank, facts in enumerate(every):
        differing = [name for name, value in every[0].items() if facts.get(name) != value]
        if differing:
            problems.append(f"rank {rank} differs from rank 0 in its {', '.join(differing)}")
    if problems:
        raise RanksDiffer(f"all ranks must train the same: {'; '.join(problems)}; start them with the same program")
    _share_weights(run)


def require_same(what: str, value: Any, group: Group) -> None:
    """Raise `RanksDiffer` on all ranks unless they have the same value, such as settings; called by all."""
    if group.size == 1:
        return
    digests = group.gather(_digest(value))
    others = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise RanksDiffer(
            f"{what} rank {', '.join(others)} with other settings of what is trained than rank 0; call it alike on all"
        )


def _facts(run: Run) -> dict[str, Any]:
    b = run.model.backend
    where = b.spec.partition(":")[0] if b.numerics == "fast" else "any"
    facts: dict[str, Any] = {
        "version of xpnn": sys.modules[__name__.partition(".")[0]].__version__,
        "backend": where,
        "numerics": b.numerics,
        "dtype": b.dtype_name,
        "settings": run.settings,
        "epochs": run.epochs,
        "model": [(name, list(p.shape), p.requires_grad) for name, p in run.model.named_parameters()],
        "layers": repr(run.model),
        "seed": [(name, repr(stream)) for name, stream in streams(run.model)],
        "batches": run.loader.state_dict(),
        "data": _data(run.loader),
        "validation": None if run.validation is None else [run.validation.state_dict(), _data(run.validation)],
        "options": {
            name: repr(getattr(run.options, name))
            for name in ("schedule_each", "clip_norm", "on_nan", "precision", "resume", "monitor", "mode")
        },
        "early stopping": repr(run.early_stopping),
        "state of the optimizer": _state(run),
        "checkpoints": run.checkpoints is None or [run.checkpoints.every, run.checkpoints.about],
    }
    return facts


def _state(run: Run) -> str:
    """A digest of the state of optimizer and schedule before the first step."""
    arrays, facts = optimizer_state(run.optimizer)
    schedule = None if run.schedule is None else run.schedule.state_dict()
    sums = {name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in arrays.items()}
    return _digest([facts, schedule, sums])


def _data(loader: DataLoader) -> list[str]:
    return [_content(array) for array in loader.arrays]


def _content(array: Images) -> str:
    """A digest of samples: of all in memory, of some where they are read batch by batch."""
    shape, dtype = tuple(array.shape), str(array.dtype)
    whole = isinstance(array, np.ndarray) and not isinstance(array, np.memmap) and array.nbytes <= IN_MEMORY
    rows: Any = slice(None) if whole else np.unique(np.linspace(0, len(array) - 1, _SOME).astype(int))
    found = np.ascontiguousarray(array[rows])
    data = repr(found.tolist()).encode() if found.dtype.hasobject else found.tobytes()
    return f"{shape} {dtype} {hashlib.sha256(data).hexdigest()}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _share_weights(run: Run) -> None:
    """Load the state of rank 0 if any rank has another one."""
    arrays, facts = model_state(run.model)
    averages = average_state(run.options.ema)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in [*arrays.items(), *averages.items()]:
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    if len({*run.group.gather(digest.hexdigest())}) > 1:
        load_model_state(run.model, *run.group.of_root((arrays, facts)))
        load_average_state(run.options.ema, run.group.of_root(averages))
