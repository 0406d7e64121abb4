"""Show what each layer of a trained net makes of one sample, and what it takes it for."""

import argparse
import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import get_backend, to_host
from ..backends.backend import NUMERICS
from ..interop import safetensors
from ..layers.base import Layer
from ..training import fit
from ..training.datasets import check_labels, load_dataset
from .errors import UsageError, at_least, preparing
from .outputs import layer_outputs
from .predict import choose, rebuild
from .text_pictures import bar, picture
from .train import MODEL

Host = np.ndarray[Any, Any]
_CLASSES = 5
_WIDEST_CALL = 44


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what ``xpnn explain`` takes."""
    parser.add_argument("folder", metavar="DIR", help="what xpnn train wrote")
    parser.add_argument("--sample", default=0, type=at_least(0), metavar="K", help="which sample, from 0")
    parser.add_argument("--data", default="digits", metavar="digits|FILE.npz", help="images and labels")
    parser.add_argument("--backend", default="auto", help="numpy, cupy, cupy:1, torch, torch:cuda:0, strict or auto")
    parser.add_argument("--numerics", default=None, choices=NUMERICS, help="exact: the same bits on every backend")
    parser.add_argument("--out", default=None, metavar="PNG", help="the picture (default: explain-K.png in DIR)")


def run(options: argparse.Namespace) -> None:
    """Print image, layers and probabilities; draw the activations."""
    with preparing():
        backend = get_backend(options.backend, numerics=options.numerics)
        path = Path(options.folder) / MODEL
        if not path.is_file():
            raise UsageError(f"no {MODEL} in {options.folder}; name a folder that xpnn train wrote")
        weights, about = safetensors.read(path)
        model, about = rebuild(about, str(path))
        model.to(backend).load_state_dict(weights)
        data = load_dataset(options.data)
        if list(data.image) != about["image"]:
            sizes = (" x ".join(map(str, image)) for image in (data.image, about["image"]))
            raise UsageError("the images of {} are {}, this model takes {}".format(data.name, *sizes))
        images, labels, part = choose(data, about)
        check_labels(labels, about["classes"], f"labels of {data.name}")
        if options.sample >= len(images):
            raise UsageError(f"no sample {options.sample}: {part} has {len(images)}, numbered from 0")
        out = Path(options.out or Path(options.folder) / f"explain-{options.sample}.png")
        if not out.parent.is_dir():
            raise UsageError(f"no folder {out.parent} to write {out.name} into")

    image = images[options.sample : options.sample + 1]
    x, label = image * np.float32(about["scale"]), int(labels[options.sample])
    print(f"sample {options.sample} of {part}: class {label}\n")
    if drawn := picture(image[0]):
        print(f"{drawn}\n")
    print_layers(model, x)
    probabilities = softmax(fit.predict(model, x)[0])
    print(f"\n{verdict(probabilities, label)}")
    title = f"{data.name}, sample {options.sample}: class {label}, taken for {int(np.argmax(probabilities))}"
    draw(model, x[0], out, title, probabilities)


def print_layers(model: Layer, x: Host) -> None:
    """A table of what each layer gives for ``x (1, C, H, W)``."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("name", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", max_width=_WIDEST_CALL, overflow="fold")
    for head in ("output", "parameters", "min", "mean", "max", "zeros"):
        table.add_column(head, justify="right", no_wrap=True)
    b = model.backend
    for name, layer, output in layer_outputs(model, b.asarray(x, b.dtype)):
        count = sum(prod(parameter.shape) for parameter in layer.parameters.values())
        table.add_row(*map(Text, (name, repr(layer), *statistics(np.asarray(to_host(output))[0], count))))
    # Written to a file, the table keeps its width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(table)


def statistics(values: Host, parameters: int) -> tuple[str, ...]:
    """Shape, parameters, smallest, mean and largest value, and the share of zeros, as text."""
    shape = " x ".join(map(str, values.shape)) or "1"
    wide = values.astype(np.float64)
    figures = (wide.min(), wide.mean(), wide.max()) if values.size else (np.nan,) * 3
    zeros = float(np.mean(values == 0)) if values.size else 0.0
    return (shape, f"{parameters:,}", *(f"{value:.4g}" for value in figures), f"{zeros:.0%}")


def verdict(probabilities: Host, label: int) -> str:
    """The likeliest classes with their probabilities as bars; the true one is marked, and always among them."""
    order = [int(i) for i in np.argsort(-probabilities, kind="stable")]
    shown = order[:_CLASSES] + [label] * (label not in order[:_CLASSES])
    width = max(len(str(i)) for i in shown)
    lines = [f"taken for class {order[0]}, which is {'right' if order[0] == label else f'wrong: it is {label}'}"]
    for i in shown:
        mark = "  <- true class" if i == label else ""
        lines.append(f"  {i:>{width}}  {probabilities[i]:7.2%}  {bar(float(probabilities[i]))}{mark}".rstrip())
    return "\n".join(lines)


def softmax(logits: Host) -> Host:
    """Probabilities in float64."""
    wide: Host = np.exp(logits.astype(np.float64) - float(logits.max()))
    return wide / float(wide.sum())


def draw(model: Layer, x: Host, path: Path, title: str, probabilities: Host) -> None:
    """Write the picture of the activations, where matplotlib is."""
    try:
        from .plots import plot_activations
    except ImportError:
        print("no picture: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)
        return
    plot_activations(model, x, path, title=title, probabilities=probabilities)
    print(f"wrote {path}")
