"""Write a trained net as a file for other programs, with how images are prepared for it."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..backends import get_backend
from ..common.files import write_whole
from ..common.terminal import say
from ..interop.onnx.to_onnx import FIRST_OPSET, encoded
from ..training.saved_net.weights import load_weights, read_weights
from .argument_types import at_least, text
from .errors import UsageError, one_line, preparing
from .output_files import target
from .saved_net.description import rebuild
from .saved_net.open_net import add_weight_options, without_overflow_warnings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn export``."""
    add_weight_options(parser)
    add = parser.add_argument
    add("--onnx", required=True, type=text, metavar="FILE", help="the file, in the format of ONNX")
    add(
        "--opset",
        default=None,
        type=at_least(FIRST_OPSET),
        metavar="N",
        help="version of ONNX's operators (default: 18, or a later one that a layer needs)",
    )
    add("--batch", default=None, type=at_least(1), metavar="N", help="images in a batch (default: any number)")
    add("--fold-batch-norm", action="store_true", help="compute batch norms by the convolutions before them")


def run(options: argparse.Namespace) -> None:
    """Write the file."""
    with preparing():
        file = target("onnx", options.onnx)
        assert file is not None
        weights, about, path = read_weights(Path(options.folder), options.checkpoint)
        model, about = rebuild(about, path, options.model, get_backend("numpy", numerics="fast"))
        with without_overflow_warnings():
            load_weights(model, weights, path)
        try:
            shape = (options.batch, *about["image"])
            content = encoded(model, shape, options.opset, options.fold_batch_norm, facts_of(about))
        except (ModuleNotFoundError, TypeError) as error:
            raise UsageError(one_line(error)) from error
    write_whole(file, content)
    say(f"wrote {file}: {len(content):,} bytes, input ({', '.join(str(n or 'batch') for n in shape)})")


def facts_of(about: dict[str, Any]) -> dict[str, str]:
    """The metadata of the file, all in JSON: which net it is, how images are prepared, and the names of classes."""
    normalise = about["normalise"] or {"mean": [0.0], "std": [1.0]}
    facts = {
        "model": about["model"],
        "image": about["image"],
        "scale": about["scale"],
        "mean": normalise["mean"],
        "std": normalise["std"],
        "class_names": about["class_names"],
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
