"""The option that names the weights of a run, and the weights."""

import argparse

from ...training.saved_net.weights import data_id, read_weights

__all__ = ["checkpoint_name", "data_id", "read_weights"]


def checkpoint_name(text: str) -> str | int:
    """An argument that is ``best``, ``last`` or a step."""
    if text in ("best", "last"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be best, last or a step that has a checkpoint, got {text!r}")
