"""What happened in training: a table with one row an epoch."""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class History(Mapping[str, list[float]]):
    """Columns by name, one entry an epoch: ``history["train_loss"][-1]``.

    Columns are ``epoch`` (from 1), ``train_loss``, ``train_accuracy``, ``validation_loss``, ``validation_accuracy``
    and ``seconds``; those that were not measured are missing.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def append(self, row: dict[str, float]) -> None:
        """Add an epoch."""
        self.rows.append(row)

    def __getitem__(self, name: str) -> list[float]:
        if not self.rows or name not in self.rows[0]:
            raise KeyError(f"no column {name!r}; the columns are {', '.join(self)}")
        return [row[name] for row in self.rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows[0] if self.rows else ())

    def __len__(self) -> int:
        return len(self.rows[0]) if self.rows else 0

    def __repr__(self) -> str:
        return f"History({len(self.rows)} epochs: {', '.join(self)})"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table as CSV, numbers in full precision."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer: Any = csv.DictWriter(file, fieldnames=list(self))
            writer.writeheader()
            writer.writerows(self.rows)
