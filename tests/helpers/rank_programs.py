"""What ranks run in tests: ``python rank_programs.py NAME ARGUMENTS``, each argument in JSON."""

import hashlib
import json
import os
import signal
import sys
import time

import numpy as np

import xpnn as nn


def weights_hash(model):
    arrays = [np.ascontiguousarray(nn.backends.to_host(each)) for _, each in sorted(model.state_dict().items())]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def rows_of(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]


def net(norms=True, p=0.25, **placement):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.BatchNorm2d(4) if norms else nn.Identity(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(p),
        nn.Dense(64, 5),
        seed=3,
        **placement,
    )


def samples(count=43):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 1, 8, 8)).astype("float32"), rng.integers(0, 5, count)


def exchanges(group, spec="numpy"):
    b = nn.get_backend(spec)
    own = np.arange(6.0, dtype="float32").reshape(2, 3) + group.rank
    # NaN with either sign.
    with_nan = np.array([np.nan, 1.0, -np.inf] if group.rank else [2.0, -np.nan, -np.inf])
    found = {
        "sum": b.to_numpy(group.all_reduce(b.asarray(own))).tolist(),
        "integers": b.to_numpy(group.all_reduce(b.asarray(np.full(3, 2**40 + group.rank), "int64"))).tolist(),
        "max": repr(b.to_numpy(group.all_reduce(b.asarray([-1.5 - group.rank, float(group.rank)]), "max")).tolist()),
        "max with NaN": repr(group.all_reduce(with_nan, "max").tolist()),
        "broadcast": b.to_numpy(group.broadcast(b.asarray(own), group.size - 1)).tolist(),
        "gather": group.gather({"rank": group.rank}),
        "of root": group.of_root(["root", group.rank]),
        "agree": group.agree(group.rank == 1, False),
        "empty": list(group.all_reduce(np.zeros((0, 3), "float32")).shape),
        "unchanged": bool((own == np.arange(6.0).reshape(2, 3) + group.rank).all()),
    }
    group.barrier()
    return found


def train(group, numerics, options=None, epochs=2, checkpoints=None, resume=False, spec="numpy", optimizer="adam"):
    options = dict(options or {})
    x, y = samples()
    model = net(options.pop("norms", True), options.pop("p", 0.25), backend=spec, numerics=numerics,
                dtype=options.pop("dtype", "float32"))  # fmt: skip
    if options.pop("synchronised", False):
        nn.distributed.synchronise_batch_norms(model, group)
    kind = {"adam": lambda: nn.AdamW(model, lr=0.01), "sgd": lambda: nn.SGD(model, lr=0.1, momentum=0.9)}[optimizer]
    chosen = kind()
    batch = options.pop("batch_size", 10)
    steps = 3 * -(-len(y) // batch)
    before = group.traffic if group else None
    history = nn.fit(
        model, (x, y), validation=(x[:13], y[:13]), optimizer=chosen, epochs=epochs, batch_size=batch, progress=False,
        schedule=nn.CosineLR(chosen, steps), clip_norm=1.0, group=group, checkpoints=checkpoints and
        nn.Checkpoints(checkpoints, every=3), resume=resume, **options,
    )  # fmt: skip
    found = {"weights": weights_hash(model), "rows": rows_of(history)}
    found["norm"] = float(np.sqrt(sum(np.sum(np.square(p.value)) for _, p in model.named_parameters())))
    if group:
        traffic = group.traffic.since(before)
        found |= {"messages": traffic.messages, "bytes": traffic.bytes}
    return found


def sparse_gradients(group, which):
    """Gradients of parameters that some or all ranks do not use, and of one that is used twice."""
    from xpnn.distributed.buckets import GradientBuckets

    parameters = [nn.Parameter(np.zeros(3, "float32")) for _ in range(3)]
    buckets, found = GradientBuckets(group, parameters), []
    for step in range(3):
        for parameter in parameters:
            parameter.zero_grad()
        with buckets.summed():
            parameters[2].accumulate(np.full(3, 1.0 + step, "float32"))
            if group.rank == 0:
                parameters[0].accumulate(np.full(3, 10.0, "float32"))
            if which == "twice":
                parameters[2].accumulate(np.full(3, 100.0, "float32"))
        found.append([None if p.grad is None else p.grad.tolist() for p in parameters])
    return found


def fails(group, how, timeout):
    """Ranks that exchange until rank 1 does what ``how`` says."""
    del timeout
    for step in range(100_000):
        group.all_reduce(np.ones(4, "float32"))
        if step == 20 and group.rank == 1:
            print(f"PID {os.getpid()}", flush=True)
            match how:
                case "is killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "is frozen":
                    os.kill(os.getpid(), signal.SIGSTOP)
                case "hangs":
                    time.sleep(1000)
                case "raises":
                    raise ValueError("bad\ndata")
                case "lacks memory":
                    np.empty(1 << 60, "uint8")
                case "leaves":
                    sys.exit(0)
        time.sleep(0.001)


def differs(group, what):
    """A rank that trains something else."""
    x, y = samples()
    other = group.rank == 1
    if what == "data" and other:
        x = x + 1
    model = net(p=0.5 if what == "layers" and other else 0.25, backend="numpy")
    rate = 0.2 if what == "settings" and other else 0.1
    epochs = 3 if what == "epochs" and other else 2
    with_group = {"optimizer": nn.SGD(model, lr=rate), "epochs": epochs, "progress": False, "group": group}
    try:
        nn.fit(model, (x, y), **with_group)
    except ValueError as error:
        return str(error)


def other_weights(group):
    """A rank that begins with other weights: rank 0's are used."""
    x, y = samples()
    model = net(backend="numpy")
    if group.rank == 1:
        model["6"].parameters["weight"].value = np.ones((5, 64), "float32")
    nn.fit(model, (x, y), optimizer=nn.SGD(model, lr=0.1), epochs=1, progress=False, group=group)
    return weights_hash(model)


if __name__ == "__main__":
    name, arguments = sys.argv[1], [json.loads(argument) for argument in sys.argv[2:]]
    limit = arguments[-1] if name == "fails" else 60.0
    started = nn.distributed.init("mpi", timeout=limit)
    result = json.dumps([started.rank, globals()[name](started, *arguments)])
    # In one piece, among those of other ranks.
    os.write(1, f"RESULT {result}\n".encode())
