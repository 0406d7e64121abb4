"""What ranks on the double of NCCL, or on MPI, run in tests: ``python cupy_ranks.py CASE``; prints a row of JSON."""

import hashlib
import json
import os
import sys
import time

import numpy as np

import xpnn as nn


def digest(model) -> str:
    digest = hashlib.sha256()
    for name, p in model.named_parameters():
        digest.update(name.encode() + nn.backends.to_host(p.value).tobytes())
    for _, layer in model.named_layers():
        for name, buffer in layer.buffers.items():
            digest.update(name.encode() + nn.backends.to_host(buffer).tobytes())
    return digest.hexdigest()


def net(backend, numerics, statistics=True):
    b = nn.get_backend(backend, numerics=numerics)
    middle = [nn.BatchNorm1d(16, backend=b), nn.Dropout(0.25, backend=b, seed=2)] if statistics else []
    ends = nn.Dense(6, 16, backend=b, seed=1), nn.Dense(16, 3, backend=b, seed=3)
    return nn.Sequential(ends[0], *middle, nn.ReLU(backend=b), ends[1])


def data():
    rng = np.random.default_rng(5)
    return rng.standard_normal((53, 6)).astype("float32"), rng.integers(0, 3, 53)


def fit(backend, numerics, group=None, epochs=2):
    """Batches of 16, so that the last one, of 5 samples, is of uneven parts."""
    model = net(backend, numerics)
    optimizer = nn.SGD(model, lr=0.1, momentum=0.9)
    history = nn.fit(
        model,
        data(),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=16,
        seed=4,
        clip_norm=1.0,
        group=group,
        progress=False,
    )
    return model, history


def exchange(group, backend):
    """All exchanges, on host and device arrays."""
    import cupy

    rank, size = group.rank, group.size
    found = {}
    for xp in (np, cupy):
        where = xp.__name__

        def host(array):
            return np.asarray(nn.backends.to_host(array))

        for dtype in ("float32", "float64", "int32", "int64", "uint8"):
            own = xp.arange(6, dtype=dtype).reshape(2, 3) + rank
            total = group.all_reduce(own)
            assert type(total).__module__ == type(own).__module__ and total.dtype == own.dtype
            assert np.array_equal(host(own), np.arange(6).reshape(2, 3) + rank), "changed"
            expected = size * np.arange(6).reshape(2, 3) + size * (size - 1) // 2
            assert np.array_equal(host(total), expected), (where, dtype, total)
            assert np.array_equal(host(group.all_reduce(own, "max")), np.arange(6).reshape(2, 3) + size - 1)
            assert np.array_equal(host(group.broadcast(own, size - 1)), np.arange(6).reshape(2, 3) + size - 1)
        # Strided, empty, and a scalar.
        strided = xp.asarray(np.arange(12, dtype="float32").reshape(3, 4) * (rank + 1))[::2, ::-1].T
        assert np.array_equal(host(group.all_reduce(strided)), host(strided) / (rank + 1) * (size * (size + 1) // 2))
        assert group.all_reduce(xp.zeros((0, 3), "float32")).shape == (0, 3)
        assert float(group.all_reduce(xp.asarray(np.float32(2.0)))) == 2.0 * size
        for dtype in ("float32", "float64"):
            values = np.array([np.nan, -0.0, -np.inf, -1e-40, 5.0, -2.0], dtype)
            other = np.array([1.0, 0.0, -3.0, -1e-41, np.nan, -7.0], dtype)
            largest = host(group.all_reduce(xp.asarray(values if rank == 0 else other), "max"))
            expected = np.maximum(values, other)
            assert np.array_equal(largest, expected, equal_nan=True), (where, largest)
            assert not np.signbit(largest[1])
            total = host(group.all_reduce(xp.asarray(values if rank == 0 else other)))
            assert np.array_equal(total, values + (size - 1) * other, equal_nan=True)
    # What is computed just before belongs to the sum, and what comes after sees it.
    array = cupy.ones(1 << 16, "float32")
    for _ in range(5):
        array = group.all_reduce(array * 2.0) / np.float32(size)
    assert float(array[-1]) == 32.0
    assert group.gather({"rank": rank, "text": "x" * (10 * rank)}) == [
        {"rank": each, "text": "x" * (10 * each)} for each in range(size)
    ]
    assert group.of_root("from root" if rank == 0 else None) == "from root"
    assert group.agree(False, rank == 1, True) == [False, True, True]
    group.barrier()
    found["calls"] = group.traffic.messages
    return found


def buckets(group, backend):
    """Gradients in several buckets while backward runs, against those of one process."""
    from xpnn.distributed.buckets import GradientBuckets

    x, y = data()
    x, y = x[:32], y[:32]
    results = []
    for parts in (1, group.size):
        model = net(backend, "fast", statistics=False)
        b = model.backend
        loss = nn.CrossEntropy(backend=b)
        found = GradientBuckets(group, [p for _, p in model.named_parameters()], bucket_bytes=200)
        own = slice(None) if parts == 1 else slice(group.rank * 32 // parts, (group.rank + 1) * 32 // parts)
        for _ in range(3):
            for _, p in model.named_parameters():
                p.grad = None
            if parts == 1:
                loss(model(b.asarray(x)), b.asarray(y))
                model.backward(loss.backward(), input_grad=False)
            else:
                with found.summed():
                    loss(model(b.asarray(x[own])), b.asarray(y[own]))
                    model.backward(loss.backward(1.0 / parts), input_grad=False)
        results.append([nn.backends.to_host(p.grad) for _, p in model.named_parameters()])
    for one, many in zip(*results, strict=True):
        np.testing.assert_allclose(many, one, rtol=2e-4, atol=1e-6)
    return {"buckets": len(found._buckets)}


def training(group, backend):
    """`fit` in both numerics; without a group on one rank."""
    rows = {}
    for numerics in ("fast", "exact"):
        model, history = fit(backend, numerics, group)
        rows[numerics] = digest(model)
        rows[f"{numerics} loss"] = history["train_loss"][-1]
        rows[f"{numerics} gpu"] = model.backend.spec
    return rows


def hanging(group, backend):
    """Rank 1 hangs in a step; the others wait on the device, not in an exchange."""
    x, y = data()

    class Slow(nn.SGD):
        def step(self):
            super().step()
            if group.rank == 1:
                time.sleep(100)

    model = net(backend, "fast")
    nn.fit(
        model, (x, y), optimizer=Slow(model, lr=0.1), epochs=2, batch_size=16, on_nan=None, group=group, progress=False
    )


def dying(group, backend):
    """Rank 1 dies while rank 0 waits for it."""
    if group.rank == 1:
        time.sleep(0.5)
        os.kill(os.getpid(), 9)
    import cupy

    group.all_reduce(cupy.ones(3))


def everything(group, backend):
    """What ends well."""
    return exchange(group, backend) | buckets(group, backend) | training(group, backend)


CASES = {each.__name__: each for each in (everything, exchange, buckets, training, hanging, dying)}


def make_late():
    """Let events be done only when a queue that runs as late as it may has been looked at a few times."""
    import cupy

    class LateEvent(cupy.cuda.Event):
        looks = 0

        @property
        def done(self):
            self.looks += 1
            if self.looks > 3:
                self.synchronize()
            return super().done

    cupy.cuda.Event = LateEvent


if __name__ == "__main__":
    case, engine = sys.argv[1], sys.argv[2]
    if engine == "nccl":
        import nccl_double

        nccl_double.install()
    elif "CUDA_EMULATOR_LATE" in os.environ:
        make_late()
    with nn.distributed.init(engine, timeout=3.0) as group:
        row = {"rank": group.rank, "size": group.size, "description": group.description}
        row |= CASES[case](group, group.device("cupy")) or {}
    print(json.dumps(row), flush=True)
