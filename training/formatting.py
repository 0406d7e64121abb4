"""Numbers as text for people: metrics, rates, times, sizes, and the table at the end of a run."""

import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import inf, isfinite
from typing import Any, TextIO

from ..common.checks import is_number

# Larger numbers are written with four digits and an exponent.
_MOST = 1e12
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def number(value: float) -> str:
    """Four significant digits: ``0.4333``, ``12.30``, ``1.234e-05``."""
    return f"{value:#.4g}".rstrip(".")


def percent(share: float) -> str:
    """``96.12 %`` of 0.9612."""
    return f"{100.0 * share:.2f} %" if not 1e7 < abs(share) < inf else f"{number(100.0 * share)} %"


def per_second(rate: float, what: str = "images") -> str:
    """``12,345 images/s``; below 10 with a decimal."""
    if abs(rate) < 10.0:
        return f"{rate:,.1f} {what}/s"
    return f"{rate:,.0f} {what}/s" if abs(rate) < _MOST else f"{number(rate)} {what}/s"


def clock(seconds: float) -> str:
    """``1:05`` or ``2:01:05``; ``?`` if not finite."""
    if not isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(n: float) -> str:
    """Bytes in decimal units: ``423.1 MB``."""
    power = 0
    while n >= 1000.0 and power < len(_UNITS) - 1:
        n, power = n * 1e-3, power + 1
    if n >= _MOST:
        return f"{number(n)} {_UNITS[power]}"
    return f"{n:.1f} {_UNITS[power]}" if power else f"{n:.0f} bytes"


def count(n: int) -> str:
    """``1,234``; four digits and an exponent if it is very large."""
    return f"{n:,}" if abs(n) < _MOST else f"{Decimal(n):.3e}"


def described(row: Mapping[str, float], unit: str = "images") -> Iterator[str]:
    """The metrics of an epoch as text, such as ``train loss 0.4333``."""
    for name, value in row.items():
        words = name.replace("_", " ")
        if name == "epoch" or not is_number(value):
            continue
        if name == "images_per_second":
            yield per_second(value, unit)
        elif name == "seconds":
            yield f"{value:.1f} s" if abs(value) < _MOST else f"{number(value)} s"
        elif name.endswith("accuracy"):
            yield f"{words} {percent(value)}"
        elif isinstance(value, int):
            yield f"{words} {count(value)}"
        else:
            yield f"{words} {value:.3g}" if name == "lr" else f"{words} {number(value)}"


def summary_table(values: Mapping[str, Any], *, title: str = "", file: TextIO | None = None) -> None:
    """Print a run in two columns: framed on a terminal, aligned plain text elsewhere.

    Parameters
    ----------
    values : mapping of str to anything
        Values by label, in this order. Text is printed as it is, integers with commas, other numbers with four digits;
        None is left out. `percent`, `size`, `clock` and `per_second` format other quantities.
    title : str
        Above the table.
    file : text file
        Standard output unless given.
    """
    file = sys.stdout if file is None else file
    rows = [(label, _text(value)) for label, value in values.items() if value is not None]
    if file.isatty():
        _framed(rows, title, file)
        return
    width = max((len(label) for label, _ in rows), default=0)
    lines = [title] * bool(title) + [f"{label:<{width}}  {text}".rstrip() for label, text in rows]
    print("\n".join(lines), file=file, flush=True)


def _framed(rows: list[tuple[str, str]], title: str, file: TextIO) -> None:
    from rich.box import ROUNDED
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, "bold") if title else None, title_justify="left", show_header=False, box=ROUNDED)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(label), Text(text))
    Console(file=file).print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return number(value) if isinstance(value, float) else str(value)
