"""Lines and tables that fit the terminal.

A terminal breaks a long line at its right edge, within a word or a number. The functions here break it between figures
or words. In a file or a pipe, which have no width, a line is not broken.
"""

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

# Columns of a terminal that does not report its width.
_USUAL = 80
_INDENT = 4


def columns(file: Any = None) -> int | None:
    """Columns of the terminal that a stream, by default standard output, writes to; None if it is no terminal.

    The environment variable ``COLUMNS`` overrides the width that the terminal reports.
    """
    file = sys.stdout if file is None else file
    try:
        if not file.isatty():
            return None
    except (AttributeError, ValueError):
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(file.fileno()).columns or _USUAL
    except (AttributeError, OSError, ValueError):
        return _USUAL


def cells(text: str) -> int:
    """Columns that a line takes up on a terminal: some characters have a width of two, some of none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """The text padded with spaces to ``width`` columns."""
    return text + " " * (width - cells(text))


def fitted(
    pieces: Sequence[str], width: int | None, *, between: str = "  ", indent: int = _INDENT, own_line: bool = False
) -> list[str]:
    """Arrange pieces of text in as few lines as possible.

    Parameters
    ----------
    pieces : sequence of str
        Each stays on one line if it fits.
    width : int or None
        Columns; None for a single line.
    between : str
        Separator of two pieces on a line.
    indent : int
        Spaces before all lines except the first.
    own_line : bool
        Whether the first piece has a line of its own if there are several lines.
    """
    whole = between.join(pieces).rstrip()
    if width is None or cells(whole) <= width:
        return [whole]
    indent = min(indent, width // 4)
    lines = [pieces[0]]
    fresh = own_line
    for piece in pieces[1:]:
        longer = f"{lines[-1]}{between}{piece}"
        if fresh or cells(longer.rstrip()) > width:
            lines.append(" " * indent + piece)
        else:
            lines[-1] = longer
        fresh = False
    return [part for line in lines for part in _broken(line.rstrip(), width, indent)]


def wrapped(text: str, width: int | None, indent: int = _INDENT) -> str:
    """Break the lines of a text between words, and indent continuation lines. A word is never broken."""
    if width is None:
        return text
    indent = min(indent, width // 4)
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width, indent))


def _broken(line: str, width: int, indent: int) -> list[str]:
    lines = [""]
    for word in re.findall(r" *[^ ]+ *$| *[^ ]+", line):
        if lines[-1].strip() and cells(lines[-1] + word.rstrip()) > width:
            lines.append(" " * indent + word.lstrip(" "))
        else:
            lines[-1] += word
    return lines


def say(text: str, file: Any = None, indent: int = _INDENT) -> None:
    """Print lines, broken between words if the terminal is too narrow for them."""
    print(wrapped(text, columns(file), indent), file=file, flush=True)


def say_row(*cells: str) -> None:
    """Print one row of a table: on one line, or its name on one line and its figures below."""
    print("\n".join(fitted(cells, columns(), between=" ", own_line=True)), flush=True)


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int | None,
    *,
    title: int = 1,
    numbers: Sequence[int] = (),
    words: Sequence[int] = (),
    footer: Sequence[str] = (),
    framed: bool = True,
) -> str:
    """A table that fits the width, or a few lines for each row if words would have to be broken.

    Parameters
    ----------
    heads : sequence of str
        One for each column.
    rows : iterable of sequence of str
    width : int or None
        Columns of the terminal; None for any width.
    title : int
        Number of cells that name a row.
    numbers : sequence of int
        Columns that are aligned to the right.
    words : sequence of int
        Columns whose text may be broken between words; the last of them is made as wide as possible.
    footer : sequence of str
        A last row.
    framed : bool
        Whether cells have borders.
    """
    rows = list(rows)
    every = [heads, *rows, *([footer] if footer else [])]
    natural = [max(cells(row[i]) for row in every) for i in range(len(heads))]
    # With borders: a bar and two spaces for each column, and a last bar. Without: two spaces for each column.
    borders = 3 * len(heads) + 1 if framed else 2 * len(heads)
    available = None if width is None else width - borders
    if available is not None and sum(natural) > available:
        longest = {i: max(cells(word) for row in every for word in row[i].split() or [""]) for i in words}
        least = [longest.get(i, natural[i]) for i in range(len(heads))]
        spare = available - sum(least)
        if spare < 0:
            return "\n".join(_block(heads, row, title, width) for row in every[1:])
        for i in reversed(words):
            more = min(spare, natural[i] - least[i])
            least[i], spare = least[i] + more, spare - more
        natural = least
    return _drawn(heads, rows, natural, numbers, footer, framed)


def _block(heads: Sequence[str], row: Sequence[str], title: int, width: int | None) -> str:
    name = fitted([cell for cell in row[:title] if cell] or [""], width)
    figures = [f"{head} {cell}" for head, cell in zip(heads[title:], row[title:], strict=True) if cell]
    available = None if width is None else width - _INDENT
    return "\n".join([*name, *(" " * _INDENT + line for line in fitted(figures, available, indent=0))])


def _drawn(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: list[int],
    numbers: Sequence[int],
    footer: Sequence[str],
    framed: bool,
) -> str:
    from rich.box import ASCII, HEAVY_HEAD, SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    box = (HEAVY_HEAD if can_print("┏━┳│") else ASCII) if framed else SIMPLE_HEAD if can_print("─") else None
    padding = (0, 1) if framed else (0, 1, 0, 0)
    frame = Table(box=box, padding=padding, pad_edge=framed, show_footer=bool(footer))
    for i, head in enumerate(heads):
        frame.add_column(
            Text(head), Text(footer[i] if footer else ""), width=widths[i], justify="right" if i in numbers else "left"
        )
    for row in rows:
        frame.add_row(*map(Text, row))
    out = io.StringIO()
    # Without colours: the environment variable FORCE_COLOR would add escape codes.
    Console(file=out, width=sum(widths) + 3 * len(widths) + 1, color_system=None).print(frame)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().split("\n"))


def can_print(text: str) -> bool:
    """Whether standard output can encode these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
