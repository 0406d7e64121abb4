"""The options of ``xpnn train``, and how ``--config`` and ``--resume`` add those of a file."""

import argparse
from pathlib import Path

from ...backends.backend import PRECISIONS
from ...layers.models import BUILDERS
from ...training.gradients import MOST_PARTS
from ...training.optimizers import OPTIMIZERS
from ...training.saved_net.weights import CONFIG
from ..argument_types import at_least, not_negative, positive, text
from ..backend_option import add_backend, add_numerics
from ..config_file import expanded, from_file, given_options, value_of
from ..errors import UsageError
from ..net_option import net_name
from ..run_folder import existing_run
from .from_options import AUGMENTATIONS, FIXED_LENGTH, SCHEDULES
from .processes import ENGINES

# Options that may be given with --resume; the others are those in the run's folder.
CHANGEABLE = {
    "backend",
    "checkpoint-every",
    "compile",
    "data",
    "distributed",
    "epochs",
    "keep",
    "no-pictures",
    "on-nan",
    "patience",
}
#: Values of ``--compile``, and those of the argument of `fit`.
COMPILE: dict[str, bool | str] = {"auto": "auto", "yes": True, "no": False}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn train``."""
    add = parser.add_argument
    nets = ", ".join(sorted(BUILDERS))
    add("--config", default=None, type=text, metavar="FILE", help="a TOML file with any of these options")
    add(
        "--data",
        default="digits",
        type=text,
        metavar="digits|FILE.npz|DIR",
        help="images and labels; see docs/training.md",
    )
    add("--image-size", default=None, type=at_least(1), metavar="N", help="resize images of a folder to N x N pixels")
    add("--model", default="lenet", type=net_name, metavar="NET", help=f"{nets}, FILE.onnx, or module:function")
    add_backend(parser)
    add_numerics(parser)
    add("--epochs", default=30, type=at_least(1), metavar="N", help="passes over the data")
    add("--batch", default=16, type=at_least(1), metavar="N", help="samples in a batch")
    add("--drop-last", action="store_true", help="leave out the last batch of an epoch if it is not full")
    add(
        "--accumulate",
        default=1,
        type=at_least(1, MOST_PARTS),
        metavar="K",
        help="batches whose gradients make one step",
    )
    add("--shards", default=1, type=at_least(1, MOST_PARTS), metavar="K", help="parts of a batch, computed in turn")
    add(
        "--distributed",
        default="none",
        choices=ENGINES,
        metavar="{none,auto,mpi,nccl}",
        help="train with the processes that mpiexec or torchrun started, each with a part of every batch",
    )
    add(
        "--optimizer",
        default="adam",
        choices=sorted(OPTIMIZERS),
        metavar="NAME",
        help=f"how weights are updated: {', '.join(sorted(OPTIMIZERS))}",
    )
    add("--lr", default=0.001, type=positive, metavar="X", help="learning rate; with one-cycle the highest")
    add("--momentum", default=0.0, type=not_negative, metavar="X", help="of sgd and rmsprop")
    add("--weight-decay", default=0.0, type=not_negative, metavar="X", help="how strongly weights are pulled to 0")
    add(
        "--schedule",
        default="constant",
        choices=SCHEDULES,
        metavar="NAME",
        help=f"how the learning rate changes: {', '.join(SCHEDULES)}",
    )
    add(
        "--schedule-epochs",
        default=None,
        type=at_least(1),
        metavar="N",
        help="length of the schedule in epochs (default: --epochs)",
    )
    add("--warmup", default=0, type=at_least(0), metavar="N", help="epochs in which cosine rises first")
    add("--clip-norm", default=None, type=positive, metavar="X", help="largest norm of all gradients together")
    add("--clip-value", default=None, type=positive, metavar="X", help="largest magnitude of a gradient's entry")
    add("--augment", default=[], nargs="*", choices=AUGMENTATIONS, help="random changes of images in training")
    add("--normalise", action="store_true", help="shift and scale channels to mean 0 and deviation 1")
    add("--seed", default=0, type=at_least(0), metavar="N", help="of weights, order of samples and augmentation")
    add("--on-nan", default="stop", choices=("stop", "skip"), help="what to do if a loss is NaN or infinite")
    add(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        metavar="NAME",
        help=f"of products and of what is kept for gradients: {', '.join(PRECISIONS)}",
    )
    add("--compile", default="auto", choices=tuple(COMPILE), help="whether steps are recorded and replayed")
    add(
        "--patience",
        default=None,
        type=at_least(1),
        metavar="N",
        help="stop after N epochs without a lower held-out loss",
    )
    add("--checkpoint-every", default=None, type=at_least(1), metavar="N", help="steps between checkpoints in an epoch")
    add("--keep", default=2, type=at_least(1), metavar="K", help="number of newest checkpoints kept, beside the best")
    add("--no-pictures", action="store_true", help="draw nothing")
    add("--out", default=None, type=text, metavar="DIR", help="where to write (default: a new folder in runs/)")
    add("--force", action="store_true", help="write into a folder that is not empty")
    add("--resume", default=None, type=text, metavar="DIR", help="continue the run in that folder")


def expand(arguments: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The arguments after those of the ``--config`` file, or of the run that ``--resume`` names."""
    name = value_of("--resume", arguments)
    if name is None:
        all_given = expanded(arguments, parser)
        of_file = all_given[: len(all_given) - len(arguments)]
        length = value_of("--schedule-epochs", all_given)
        if {*given_options(arguments)} >= {"epochs"} and length is not None and length == value_of("--epochs", of_file):
            # The schedule in the file was as long as its run; this run has another length.
            of_file = [argument for argument in of_file if not argument.startswith("--schedule-epochs=")]
        return [*of_file, *arguments]
    fixed = [option for option in given_options(arguments) if option not in {"resume", *CHANGEABLE}]
    if fixed:
        raise UsageError(
            f"--resume continues with the options in {Path(name) / CONFIG}; leave out --{fixed[0]} (those that may "
            f"change are {', '.join('--' + option for option in sorted(CHANGEABLE))})"
        )
    of_file = from_file(existing_run(name) / CONFIG, parser)
    schedule, epochs = value_of("--schedule", of_file), value_of("--epochs", of_file)
    if schedule in FIXED_LENGTH and value_of("--epochs", arguments) not in (None, epochs):
        raise UsageError(f"--epochs: the schedule {schedule} of {name} ends after {epochs} epochs; leave it out")
    if value_of("--schedule-epochs", of_file) is None and epochs is not None:
        # A file of an earlier version; with more epochs its schedule stays as long as it was.
        of_file.append(f"--schedule-epochs={epochs}")
    return [*of_file, *arguments]
