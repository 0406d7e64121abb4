"""Parts that the programs `scripts/train_*.py` share: options, checks before training, errors in one line.

A script calls `parse_options`, then opens data and model within ``with preparing():``, then trains. Within
``with reported(NAME):`` mistakes in the call, and errors such as a full disk, end it with one line; `program` runs it
with the exit statuses of all commands.
"""

import argparse
from pathlib import Path

from ..layers.core.layer import Layer
from ..training.checkpoints import Checkpoints
from ..training.data_loader import DataLoader
from ..training.datasets import Dataset
from ..training.one_sample_batches import require_no_one_sample_batch
from ..training.saved_net.weights import CHECKPOINTS
from .argument_types import at_least, positive, text
from .backend_option import add_backend, open_backend
from .errors import UsageError, preparing
from .exit_status import program, reported
from .standalone.arguments import Parser
from .standalone.process import require_writable
from .train.from_options import require_classes

__all__ = ["check_resumable", "open_backend", "parse_options", "preparing", "program", "reported", "trainable"]


def parse_options(
    arguments: list[str] | None, name: str, doc: str | None, *, data: str, epochs: int, lr: float, out: str
) -> argparse.Namespace:
    """The options of a training script, with these defaults; ``data`` says which files ``--data`` names."""
    parser = Parser(prog=name, description=(doc or "").partition("\n")[0])
    parser.add_argument("--data", required=True, type=text, metavar="FOLDER", help=data)
    add_backend(parser)
    parser.add_argument("--epochs", default=epochs, type=at_least(1), help="passes over the data")
    parser.add_argument("--batch", default=128, type=at_least(1), help="samples in a batch")
    parser.add_argument("--lr", default=lr, type=positive, help="the highest learning rate")
    parser.add_argument("--seed", default=0, type=at_least(0), help="of weights, order of samples and augmentation")
    parser.add_argument("--out", type=text, default=out, help="where to write")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    options: argparse.Namespace = parser.parse_args(arguments)
    options.out = Path(options.out)
    return options


def check_resumable(folder: Path, resume: bool) -> None:
    """Check whether a training script can start in a folder, or with ``resume`` continue.

    Raises
    ------
    UsageError
        If the folder has checkpoints and the script would start, or has none and it would resume.
    OSError
        If no file can be made in the folder.
    """
    checkpoints = folder / CHECKPOINTS
    steps = Checkpoints(checkpoints).steps()
    if resume and not steps:
        raise UsageError(f"--resume: there is no checkpoint in {checkpoints}; leave out --resume to start again")
    if steps and not resume:
        raise UsageError(f"--out {folder}: there are checkpoints of a run; add --resume or name another folder")
    require_writable(folder)


def trainable(model: Layer, data: Dataset, loader: DataLoader) -> DataLoader:
    """The loader, if `fit` can train with it: `UsageError` for one class, `ValueError` for a batch of one sample."""
    require_classes(data)
    require_no_one_sample_batch(model, loader)
    return loader
