"""Apply a trained net, on any backend: classes of new images, or accuracy and confusion matrix on labelled data."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..common.terminal import columns, say
from ..layers.core.layer import Layer
from ..training.evaluation import predict
from ..training.out_of_memory import OutOfMemory
from .argument_types import at_least, text
from .confusion_matrix import confusion, format_matrix
from .errors import Failure, UsageError, preparing
from .new_images import classify, positionals_first
from .saved_net.open_net import add_net_options, open_net, without_overflow_warnings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn predict``."""
    add_net_options(parser)
    add = parser.add_argument
    add("images", nargs="*", type=text, metavar="IMAGE", help="files and folders of new images, which are classified")
    add("--batch", default=256, type=at_least(1), metavar="N", help="images in a batch")
    add("--csv", default=None, type=text, metavar="FILE", help="also write the classes of new images as a table")
    add("--top", default=1, type=at_least(1), metavar="K", help="how many of the likeliest classes of a new image")


def expand(arguments: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The arguments with the images beside the folder, wherever options stand."""
    return positionals_first(arguments, parser)


def run(options: argparse.Namespace) -> None:
    """Print the class of each new image, or accuracy and confusion matrix."""
    if options.images and options.data is not None:
        raise UsageError("--data is labelled data to measure on; leave it out, or the images")
    if not options.images and (options.csv is not None or options.top != 1):
        raise UsageError("--csv and --top are for new images; name files or folders of images after the run's folder")
    try:
        if options.images:
            classify(options)
        else:
            measure(options)
    except OutOfMemory as error:
        if not error.fits:
            raise
        what = f"batch of {error.batch} does not fit in the memory of {error.where}"
        print(f"xpnn predict: {what}; a batch of {error.fits} does: add --batch {error.fits}", file=sys.stderr)
        raise Failure from error


def measure(options: argparse.Namespace) -> None:
    """Print accuracy and confusion matrix on labelled data."""
    with preparing():
        net = open_net(options)
    predicted = np.argmax(scores(net.model, net.loader(options.batch), net.class_names), axis=1)
    matrix = confusion(net.labels, predicted, len(net.class_names))
    right, total = int(np.trace(matrix)), len(net.labels)
    say(f"{net.part}: {total} images, {right} right, accuracy {right / total:.4%}")
    print(format_matrix(matrix, net.class_names, columns()))


def scores(model: Layer, images: Any, class_names: Sequence[str]) -> np.ndarray[Any, Any]:
    """The model's outputs ``(N, classes)``.

    Raises
    ------
    UsageError
        If the outputs have another shape.
    Failure
        If one is NaN or infinite, which is printed.
    """
    with without_overflow_warnings():
        found = predict(model, images)
    if found.ndim != 2 or found.shape[1] != len(class_names):
        raise UsageError(
            f"the net's outputs must have shape (images, {len(class_names)}), one for each class, got {found.shape}"
        )
    if (bad := ~np.isfinite(found).all(axis=1)).any():
        print(
            f"xpnn: the net's output is NaN or infinite for {bad.sum()} of {len(found)} images, first for image "
            f"{np.argmax(bad)}",
            file=sys.stderr,
        )
        raise Failure
    return found
