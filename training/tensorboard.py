"""Event files for TensorBoard; requires the package ``tensorboard``, but neither torch nor TensorFlow."""

import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from time import time
from typing import Any, Self

from ..common.checks import is_number

_PARTS = ("train", "validation", "test")


class TensorBoard:
    """A writer of an event file that ``tensorboard --logdir FOLDER`` shows.

    The parts of a quantity have tags under the same name: ``loss/train``, ``loss/validation``.

    Parameters
    ----------
    folder : path
        Created at the first epoch. Each writer adds its own file; a resumed run continues in the same folder.

    Raises
    ------
    ImportError
        If the package is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            writers, events, summaries = _modules()
        except ImportError as error:
            raise ImportError(
                f"TensorBoard needs the package tensorboard ({error}): pip install 'tensorboard>=2.16'"
            ) from None
        self._event, self._summary = events.Event, summaries.Summary
        self._open = partial(writers.EventFileWriter, os.fspath(folder))
        self._writer: Any = None

    @staticmethod
    def available() -> bool:
        """Whether the package is installed and can be imported."""
        try:
            _modules()
        except ImportError:
            return False
        return True

    def epoch(self, row: Mapping[str, float]) -> None:
        """Write all metrics of an epoch to the disk; the number of the epoch is the step."""
        values = [
            self._summary.Value(tag=_tag(name), simple_value=float(value))
            for name, value in row.items()
            if name != "epoch" and is_number(value)
        ]
        if self._writer is None:
            self._writer = self._open()
        event = self._event(wall_time=time(), step=int(row["epoch"]), summary=self._summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _modules() -> tuple[Any, Any, Any]:
    writers = import_module("tensorboard.summary.writer.event_file_writer")
    protocol = "tensorboard.compat.proto"
    return writers, import_module(f"{protocol}.event_pb2"), import_module(f"{protocol}.summary_pb2")


def _tag(name: str) -> str:
    """``loss/train`` for ``train_loss``; other names unchanged."""
    part, _, quantity = name.partition("_")
    return f"{quantity}/{part}" if quantity and part in _PARTS else name
