"""A run for TensorBoard, where the package ``tensorboard`` is installed; neither torch nor TensorFlow need be."""

import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from time import time
from typing import Any, Self

_PARTS = ("train", "validation", "test")


class TensorBoard:
    """Writes an event file that ``tensorboard --logdir FOLDER`` shows.

    Training and validation of one quantity get tags side by side: ``loss/train``, ``loss/validation``.

    Parameters
    ----------
    folder : path
        Made at the first epoch. Each writer adds a file of its own; a resumed run goes on in the same folder.

    Raises
    ------
    ImportError
        Where the package is not installed.
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
        """Write all figures of an epoch, whose number is the step, to disk."""
        values = [
            self._summary.Value(tag=_tag(name), simple_value=float(value))
            for name, value in row.items()
            if name != "epoch"
        ]
        if self._writer is None:
            self._writer = self._open()
        event = self._event(wall_time=time(), step=int(row["epoch"]), summary=self._summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file; a second time does nothing."""
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
    """``loss/train`` of ``train_loss``; other names as they are."""
    part, _, quantity = name.partition("_")
    return f"{quantity}/{part}" if quantity and part in _PARTS else name
