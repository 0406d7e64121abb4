"""``xpnn explain``: one image, the outputs of all layers as a table and as a picture, and the probabilities."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import to_host
from ...common.terminal import columns, fitted, say, table
from ...layers.containers.container import Container
from ...layers.core.layer import Layer
from ...layers.core.layer_outputs import layer_outputs
from ..argument_types import at_least
from ..errors import UsageError, preparing
from ..output_files import target
from ..predict import scores
from ..saved_net.open_net import add_net_options, open_net
from .text_pictures import bar, picture

HostArray = np.ndarray[Any, Any]
_CLASSES = 5
# Columns of text for a table that goes to a file.
_FILE_WIDTH = 140


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn explain``."""
    add_net_options(parser)
    parser.add_argument("--sample", default=0, type=at_least(0), metavar="K", help="which sample, from 0")
    parser.add_argument("--out", default=None, metavar="PNG", help="the picture (default: explain-K.png in DIR)")


def run(options: argparse.Namespace) -> None:
    """Print image, layers and probabilities; draw the outputs of the layers."""
    with preparing():
        net = open_net(options)
        if options.sample >= len(net.images):
            raise UsageError(f"no sample {options.sample}: {net.part} has {len(net.images)}, numbered from 0")
        out = picture_file(options.out or str(Path(options.folder) / f"explain-{options.sample}.png"))

    x, label = net.sample(options.sample), int(net.labels[options.sample])
    names = net.class_names
    probabilities = softmax(scores(net.model, x, names)[0])
    say(f"sample {options.sample} of {net.part}: class {names[label]}\n")
    if drawn := picture(net.images[options.sample : options.sample + 1][0]):
        print(f"{drawn}\n")
    print_layers(net.model, x)
    print(f"\n{verdict(probabilities, label, names)}")
    predicted = names[int(np.argmax(probabilities))]
    title = f"{net.data}, sample {options.sample}: class {names[label]}, predicted as {predicted}"
    draw(net.model, x[0], out, title, probabilities, names)


def print_layers(model: Layer, x: HostArray) -> None:
    """Print a table of the outputs of all layers for ``x (1, C, H, W)``."""
    b, rows = model.backend, []
    for name, layer, output in layer_outputs(model, b.asarray(x, b.dtype)):
        if isinstance(layer, Container):
            continue
        count = sum(prod(parameter.shape) for parameter in layer.parameters.values())
        rows.append((name, repr(layer), *statistics(np.asarray(to_host(output))[0], count)))
    heads = ("name", "layer", "output", "parameters", "min", "mean", "max", "zeros")
    print(table(heads, rows, columns() or _FILE_WIDTH, title=2, numbers=range(2, 8), words=(1,), framed=False))


def statistics(values: HostArray, parameters: int) -> tuple[str, ...]:
    """Shape, parameters, smallest, mean and largest value, and the share of zeros, as text."""
    shape = " x ".join(map(str, values.shape)) or "1"
    wide = values.astype(np.float64)
    figures = (wide.min(), wide.mean(), wide.max()) if values.size else (np.nan,) * 3
    zeros = float(np.mean(values == 0)) if values.size else 0.0
    return (shape, f"{parameters:,}", *(f"{value:.4g}" for value in figures), f"{zeros:.0%}")


def verdict(probabilities: HostArray, label: int, names: Sequence[str]) -> str:
    """The most likely classes, and the true one, which is marked, with bars for their probabilities."""
    order = [int(i) for i in np.argsort(-probabilities, kind="stable")]
    shown = order[:_CLASSES] + [label] * (label not in order[:_CLASSES])
    width = max(len(names[i]) for i in shown)
    right = "right" if order[0] == label else f"wrong: it is {names[label]}"
    lines = [f"predicted class {names[order[0]]}, which is {right}"]
    for i in shown:
        pieces = [f"  {names[i]:>{width}}  {probabilities[i]:7.2%}", bar(float(probabilities[i]))]
        lines += fitted([*pieces, *(["<- true class"] if i == label else [])], columns())
    return "\n".join(lines)


def softmax(logits: HostArray) -> HostArray:
    """Probabilities in float64."""
    wide: HostArray = np.exp(logits.astype(np.float64) - float(logits.max()))
    return wide / float(wide.sum())


def picture_file(path: str) -> Path:
    """The path of the picture, if it can be written in the format of its suffix; else `UsageError` or `ValueError`."""
    if not Path(path).parent.is_dir():
        raise UsageError(f"no folder {Path(path).parent} to write {Path(path).name} into")
    file = target("out", path)
    assert file is not None
    with suppress(ImportError):
        from ..pictures.canvas import picture_format

        picture_format(file)
    return file


def draw(model: Layer, x: HostArray, path: Path, title: str, probabilities: HostArray, names: Sequence[str]) -> None:
    """Write the picture of the outputs of all layers, if matplotlib is installed."""
    try:
        from ..pictures import plot_activations
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'matplotlib>=3.8')", file=sys.stderr)
        return
    plot_activations(model, x, path, title=title, class_names=names, probabilities=probabilities)
    say(f"wrote {path}")
