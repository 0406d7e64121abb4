"""The metrics of training: a table with one row for each epoch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from math import isnan, nan
from typing import Any

from ..common import checks
from ..common.files import read_bytes, write_whole

# Enough for a million epochs.
_MOST_BYTES = 1 << 28
GIVE_MODE = "give mode='min' or mode='max'"
# Characters of a bad line in a message.
_SHOWN = 200


class History(Mapping[str, list[Any]]):
    """Columns by name, with one entry for each epoch: ``history["train_loss"][-1]``.

    Columns are ``epoch`` (from 1), ``train_loss``, ``train_accuracy``, ``validation_loss``, ``validation_accuracy``
    and ``seconds``, and ``train_NAME`` and ``validation_NAME`` for each metric of `fit`. A column that no epoch has is
    missing; an epoch that lacks a column of others has NaN in it. The entries of a confusion matrix are nested lists,
    which tables in files leave out.

    Attributes
    ----------
    rows : list of dict
        The epochs.
    modes : dict of str to str or None
        For the columns of metrics, whether small or large values are good, ``"min"`` or ``"max"``; None if that is not
        known.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.modes: dict[str, str | None] = {}

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """A history with these epochs."""
        history = cls()
        for row in rows:
            history.append(dict(row))
        return history

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> History:
        """Read what `to_csv` wrote; every number is the same.

        Raises
        ------
        FileNotFoundError, OSError
            If there is no such file, or it can't be read.
        ValueError
            If the file is not a table of numbers; the message names the line.
        """
        history = cls()
        try:
            lines = read_bytes(path, _MOST_BYTES).decode()
            reader = csv.DictReader(io.StringIO(lines, newline=""))
            names = list(reader.fieldnames or ())
            if len({*names}) < len(names):
                raise ValueError("it has two columns of one name")
            for cells in reader:
                history.append(_row(cells, reader.line_num))
        except (ValueError, csv.Error) as error:
            between = ", " if str(error).startswith("line ") else ": it is no table of numbers: "
            raise ValueError(f"{os.fspath(path)}{between}{error}") from None
        return history

    def append(self, row: dict[str, Any]) -> None:
        """Add an epoch."""
        self.rows.append(row)

    def best(self, metric: str = "validation_loss", mode: str | None = None) -> dict[str, Any]:
        """The row of the best epoch, the first of equally good ones; NaN is never the best.

        Parameters
        ----------
        metric : str
            A column.
        mode : {"min", "max"}, optional
            Whether small or large values are good; unless given, that of the metric, and otherwise large for an
            accuracy and small for all else.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            For another mode, a column of only NaN, one that does not hold numbers, and without a mode for a function
            of which it is not known.
        """
        mode = checks.choice("mode", mode, ("min", "max", None))
        mode = self.mode_of(metric) if mode is None else mode
        sign = 1.0 if mode == "min" else -1.0
        if not all(checks.is_number(value) for value in self[metric]):
            raise ValueError(f"{metric} is not a number; choose the best epoch by another column")
        pairs = zip(self[metric], self.rows, strict=True)
        comparable = [(sign * value, row) for value, row in pairs if not isnan(value)]
        if not comparable:
            raise ValueError(f"{metric} is NaN in every epoch; none is the best")
        return min(comparable, key=lambda pair: pair[0])[1]

    def mode_of(self, column: str) -> str:
        """Whether small or large values of a column are good, ``"min"`` or ``"max"``.

        Raises
        ------
        ValueError
            If that is not known.
        """
        if column not in self.modes:
            return "min" if less_is_better(column) else "max"
        mode = self.modes[column]
        if mode is None:
            raise ValueError(f"it is not known whether small or large values of {column} are good; {GIVE_MODE}")
        return mode

    def __getitem__(self, name: str) -> list[Any]:
        if name not in list(self):
            columns = f"the columns are {', '.join(self)}" if self.rows else "no epoch is finished yet"
            raise KeyError(f"no column {name!r}; {columns}")
        return [row.get(name, nan) for row in self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epochs: {', '.join(self)})"

    def csv(self) -> str:
        """The table as CSV, numbers in full precision; confusion matrices are left out."""
        file = io.StringIO(newline="")
        matrices = {name for row in self.rows for name, value in row.items() if not checks.is_number(value)}
        names = [name for name in self if name not in matrices]
        writer: Any = csv.DictWriter(file, fieldnames=names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table as CSV, numbers in full precision."""
        write_whole(path, self.csv())


def _row(cells: Mapping[str, Any], line: int) -> dict[str, float]:
    try:
        return {name: _parsed(text) for name, text in cells.items() if text != ""}
    except (TypeError, ValueError):
        line_text = ", ".join(map(str, cells.values()))
        raise ValueError(
            f"line {line}: a history has one number under each name of its first line, got {line_text[:_SHOWN]}"
        ) from None


def less_is_better(metric: str) -> bool:
    """Whether small values of a column are good: of all columns but accuracies."""
    return not metric.endswith("accuracy")


def _parsed(text: Any) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)
