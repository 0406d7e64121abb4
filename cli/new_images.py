"""The classes of new images, as a table on standard output and in a CSV file."""

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.files import write_whole
from ..common.terminal import cells, padded, say
from ..training.saved_net import Classifier
from ..training.saved_net.new_images import listed_images
from ..training.saved_net.weights import load_weights, read_weights
from .backend_option import open_backend
from .errors import Failure, NotMeasured, one_line, preparing
from .output_files import target
from .saved_net.description import rebuild

# Names of files longer than this are not padded to one width.
_WIDEST = 60


def classify(options: argparse.Namespace) -> None:
    """Print file, class and probability of each image that the options name; files that can't be read are named.

    Raises
    ------
    Failure
        If the net's output is NaN or of another shape, which is printed.
    NotMeasured
        If a file can't be read.
    """
    with preparing():
        classifier, images = _opened(options)
        file = target("csv", options.csv)
    top = min(options.top, len(classifier.class_names))
    rows: list[list[Any]] = []
    unread = 0
    try:
        for probabilities, items, errors in classifier.batches(images, options.batch):
            for item, error in errors:
                print(f"left out {_printable(item.name)}: {error}", file=sys.stderr)
            unread += len(errors)
            likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :top].tolist()
            for item, row, numbers in zip(items, probabilities.tolist(), likeliest, strict=True):
                pairs = ((classifier.class_names[number], row[number]) for number in numbers)
                rows.append([_printable(item.name), *(entry for pair in pairs for entry in pair)])
    except ValueError as error:
        print(f"xpnn predict: {one_line(error)}", file=sys.stderr)
        raise Failure from error
    for line in _lines(rows):
        print(line)
    if file is not None:
        write_whole(file, _table(rows, top))
        say(f"wrote {file}", sys.stderr)
    if unread:
        say(f"{unread} of {len(images)} image file(s) can't be read and were left out", sys.stderr)
        raise NotMeasured


def _opened(options: argparse.Namespace) -> tuple[Classifier, list[Any]]:
    backend = open_backend(options.backend, options.numerics)
    weights, about, path = read_weights(Path(options.folder), options.checkpoint)
    model, about = rebuild(about, path, options.model, backend)
    load_weights(model, weights, path)
    return Classifier(model, about), listed_images([Path(name) for name in options.images])


def _lines(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """The rows as text, in columns."""
    texts = [[f"{each:.4f}" if isinstance(each, float) else each for each in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        yield "  ".join(padded(each, min(width, _WIDEST)) for each, width in zip(row, widths, strict=True)).rstrip()


def _table(rows: Sequence[Sequence[Any]], top: int) -> str:
    """The rows as CSV, probabilities in full precision."""
    heads = ["file", "class", "probability"]
    heads += [f"{name}_{k}" for k in range(2, top + 1) for name in ("class", "probability")]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(heads)
    writer.writerows(rows)
    return file.getvalue()


def _printable(name: str) -> str:
    """A file's name as it is, or escaped if a terminal or a file in UTF-8 can't show it."""
    return name if name.isprintable() else ascii(name)


def positionals_first(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Arguments with those first that are no options: argparse expects them beside each other."""
    places: list[str] = []
    options: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*options, "--", *places, *rest]
        action = parser._option_string_actions.get(argument.partition("=")[0])
        if action is None and not argument.startswith("-"):
            places.append(argument)
            continue
        options.append(argument)
        if action is not None and action.nargs is None and "=" not in argument:
            options += [value for value in [next(rest, None)] if value is not None]
    return [*places, *options]
