"""Train a net on images, by default on real handwritten digits, and keep the result in a folder."""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..backends import get_backend
from ..backends.backend import NUMERICS
from ..interop import safetensors
from ..layers.base import Layer
from ..layers.models import BUILDERS
from ..training.datasets import Dataset, load_dataset
from ..training.fit import evaluate, fit
from ..training.history import History
from ..training.optimizers import OPTIMIZERS
from .errors import UsageError, at_least, positive, preparing

MODEL, HISTORY, METRICS, CURVES = "model.safetensors", "history.csv", "metrics.json", "curves.png"


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn train`` takes."""
    parser.add_argument("--data", default="digits", metavar="digits|FILE.npz|DIR", help="images and labels")
    parser.add_argument("--model", default="lenet", choices=sorted(BUILDERS), help="the net")
    parser.add_argument("--backend", default="auto", help="numpy, cupy, cupy:1, torch, torch:cuda:0, strict or auto")
    parser.add_argument("--epochs", default=30, type=at_least(1), metavar="N", help="passes over the data")
    parser.add_argument("--batch", default=16, type=at_least(1), metavar="N", help="samples in a batch")
    parser.add_argument("--lr", default=0.001, type=positive, metavar="X", help="learning rate")
    parser.add_argument("--optimizer", default="adam", choices=sorted(OPTIMIZERS), help="how weights are updated")
    parser.add_argument("--seed", default=0, type=at_least(0), metavar="N", help="of weights and order of samples")
    parser.add_argument("--numerics", default=None, choices=NUMERICS, help="exact: the same bits on every backend")
    parser.add_argument("--shards", default=1, type=at_least(1), metavar="K", help="parts of a batch, one by one")
    parser.add_argument("--out", default=None, metavar="DIR", help="where to write (default: a new folder in runs/)")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def run(options: argparse.Namespace) -> None:
    """Train, measure on the held-out part, write, and say where."""
    with preparing():
        backend = get_backend(options.backend, numerics=options.numerics)
        data = load_dataset(options.data)
        model = BUILDERS[options.model](data.image, data.classes, backend=backend, seed=options.seed)
        optimizer = OPTIMIZERS[options.optimizer](model, lr=options.lr)
        loader = data.loader(options.batch, seed=options.seed)
        folder = _prepare_folder(options, data)

    print(
        f"{data.name}: {len(data.y_train)} images for training, {len(data.y_test)} held out; "
        f"{options.model} on {backend.spec}",
        file=sys.stderr,
    )
    held_out = data.held_out()
    started = time.perf_counter()
    history = fit(model, loader, validation=held_out, optimizer=optimizer, epochs=options.epochs, shards=options.shards)
    seconds = time.perf_counter() - started
    measured = evaluate(model, held_out)

    metrics = {
        "test_accuracy": measured["accuracy"],
        "test_loss": measured["loss"],
        "backend": backend.spec,
        "numerics": backend.numerics,
        "seed": options.seed,
        "epochs": options.epochs,
        "seconds": seconds,
        "model": options.model,
        "data": data.name,
        "batch": options.batch,
        "lr": options.lr,
        "optimizer": options.optimizer,
    }
    written = write(folder, model, describe(options.model, data), history, metrics)
    if backend.numerics == "exact":
        print(f"{hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()}  {folder / MODEL}")
    print(f"held-out accuracy {measured['accuracy']:.2%} ({len(data.y_test)} images) after {seconds:.1f} s")
    for path in written:
        print(f"wrote {path}")


def describe(model: str, data: Dataset) -> dict[str, Any]:
    """What `predict` needs to build the net again and to prepare images for it."""
    return {
        "model": model,
        "image": list(data.image),
        "classes": data.classes,
        "scale": data.scale,
        "data": data.name,
        "fingerprint": data.fingerprint,
    }


def write(folder: Path, model: Layer, about: dict[str, Any], history: History, metrics: dict[str, Any]) -> list[Path]:
    """Write all files of a run; returns their paths. Without matplotlib there is no plot."""
    paths = [folder / MODEL, folder / HISTORY, folder / METRICS]
    safetensors.save(model, paths[0], about)
    history.to_csv(paths[1])
    paths[2].write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    try:
        from .plots import plot_curves
    except ImportError:
        print("no plot: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
        return paths
    plot_curves(history, folder / CURVES, metrics)
    return [*paths, folder / CURVES]


def _prepare_folder(options: argparse.Namespace, data: Dataset) -> Path:
    """The folder to write into, made now so that a bad one fails before the training and not after it."""
    if options.out is None:
        stem = f"{Path(data.name).stem}-{options.model}"
        folder = next(f for i in range(1, sys.maxsize) if not (f := Path("runs") / f"{stem}-{i}").exists())
    else:
        folder = Path(options.out)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--out {folder} is a file; name a folder")
        if folder.is_dir() and any(folder.iterdir()) and not options.force:
            raise UsageError(f"--out {folder} is not empty; name another folder or add --force to write into it")
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.touch()
    probe.unlink()
    return folder
