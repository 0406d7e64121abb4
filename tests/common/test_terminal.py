"""Lines and tables fit the terminal; in a file they are not broken."""

import io
import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from xpnn.common import terminal
from xpnn.common.terminal import columns, fitted, table, wrapped

WIDTHS = (40, 60, 80, 120)
FIGURES = [
    "epoch  1/30",
    "train loss 0.4333",
    "train accuracy 96.12 %",
    "验证 损失 1.235e-05",
    "lr nan",
    "12,346 images/s",
]


def words(text):
    return text.split()


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_are_not_broken_and_lines_fit(width):
    lines = fitted(FIGURES, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "  ".join(line.strip() for line in lines) == "  ".join(FIGURES)
    for one, other in pairwise(lines):
        first = next(figure for figure in FIGURES if other.strip().startswith(figure))
        assert cell_len(f"{one}  {first}") > width


def test_figures_that_fit_and_those_in_a_file_are_one_line():
    whole = "  ".join(FIGURES)
    assert fitted(FIGURES, None) == [whole] == fitted(FIGURES, cell_len(whole))
    assert len(fitted(FIGURES, cell_len(whole) - 1)) == 2


def test_the_name_of_a_row_has_its_own_line_if_the_figures_do_not_fit():
    assert fitted(["name", "1", "2"], 8, between=" ", own_line=True) == ["name 1 2"]
    assert fitted(["name", "1", "2"], 7, between=" ", own_line=True) == ["name", " 1 2"]


def test_a_figure_wider_than_the_terminal_is_broken_between_its_words():
    assert fitted(["a", "gradients in units of the last place"], 20) == [
        "a",
        "    gradients in",
        "    units of the",
        "    last place",
    ]


@given(st.lists(st.text("ab 中é", min_size=1, max_size=30), min_size=1, max_size=12), st.integers(4, 100))
def test_no_word_is_lost_broken_or_moved(pieces, width):
    given_words = words(" ".join(pieces))
    lines = fitted(pieces, width)
    assert words(" ".join(lines)) == given_words == words(wrapped(" ".join(pieces), width))
    longest = max(map(cell_len, given_words), default=0)
    for line in [*lines, *wrapped(" ".join(pieces), width).split("\n")]:
        assert cell_len(line.rstrip()) <= max(width, longest + min(4, width // 4)) or len(words(line)) == 1


def test_line_breaks_of_a_text_are_kept():
    assert wrapped("one two\nthree", 8) == "one two\nthree"
    assert wrapped("one two\nthree", 6) == "one\n two\nthree"
    assert wrapped("one two " * 9, None) == "one two " * 9


ROWS = [
    ("numpy", "yes", "2.4.6 (of the standard 2025.12)", 'no kernels (pip install "numba>=0.60")'),
    ("中文", "no", "", "a"),
]
HEADS = ("backend", "usable", "version", "notes")


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_tables_fit_without_broken_words(width, framed):
    text = table(HEADS, ROWS, width, words=(2, 3), numbers=(1,), footer=("total", "", "", "3,000"), framed=framed)
    assert width is None or all(cell_len(line) <= width for line in text.split("\n"))
    found = words(re.sub("[┏┓┃━┳┡╇┩│└┴┘├┼┤─]", " ", text))
    for word in words(" ".join(cell for row in ROWS for cell in row)):
        assert word in found, word


def test_a_table_that_would_break_words_becomes_lines():
    assert table(HEADS, ROWS, 36, words=(3,)).splitlines() == [
        "numpy",
        "    usable yes",
        "    version 2.4.6 (of the standard",
        "    2025.12)",
        "    notes no kernels (pip install",
        '    "numba>=0.60")',
        "中文",
        "    usable no  notes a",
    ]


class Screen(io.StringIO):
    def __init__(self, is_terminal=True):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


def test_columns_are_those_of_the_terminal_or_of_the_environment(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert columns(Screen(False)) is None and columns(io.StringIO()) is None
    closed = io.StringIO()
    closed.close()
    assert columns(closed) is None
    assert columns(Screen()) == 80
    monkeypatch.setenv("COLUMNS", "51")
    assert columns(Screen()) == 51 and columns(Screen(False)) is None
    for nonsense in ("0", "-3", "wide", ""):
        monkeypatch.setenv("COLUMNS", nonsense)
        assert columns(Screen()) == 80
    monkeypatch.setattr(sys, "stdout", None)
    assert columns() is None


@pytest.mark.parametrize("encoding, framed", [("utf-8", True), ("ascii", False), ("no-such", False)])
def test_borders_use_characters_that_the_output_can_encode(monkeypatch, encoding, framed):
    monkeypatch.setattr(sys, "stdout", type("Out", (), {"encoding": encoding, "isatty": lambda self: False})())
    text = table(("a",), [("b",)], None) + table(("a",), [("b",)], None, framed=False)
    assert text.isascii() is not framed
    assert terminal.can_print("b") is (encoding != "no-such")
