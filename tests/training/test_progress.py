"""The output while a model trains, on a terminal and in a file."""

import io
import os
import re
import subprocess
import sys

import pytest
from pseudo_terminal import python
from rich.cells import cell_len
from rich.console import Console

from xpnn.training import formatting
from xpnn.training.formatting import summary_table
from xpnn.training.progress import Progress

ROW = {
    "epoch": 2,
    "train_loss": 0.433312,
    "train_accuracy": 0.96125,
    "validation_loss": 1.23456e-5,
    "validation_accuracy": 1.0,
    "lr": 0.001,
    "images_per_second": 12345.6,
    "seconds": 1.26,
}


class Clock:
    """A clock that the test advances."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("xpnn.training.progress.perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Terminal:
    """A terminal with a number of columns, and the text that it received."""

    def __init__(self, width=120):
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=width, legacy_windows=False)

    def lines(self):
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue())
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def go(bar, clock, epoch, steps, seconds, reads=None):
    """Take steps of 8 samples."""
    for step in steps:
        clock.now += seconds
        bar.step(epoch, step, 8, lambda: (reads.append(1) if reads is not None else None) or {"loss": 0.5})


def test_a_line_of_an_epoch_reads_well(capsys):
    with Progress(12, 4, shown=True) as bar:
        bar.epoch(ROW)
    assert capsys.readouterr().err.splitlines() == [
        "epoch  2/12  train loss 0.4333  train accuracy 96.12 %  validation loss 1.235e-05  validation accuracy "
        "100.00 %  lr 0.001  12,346 images/s  1.3 s"
    ]


LONG = {
    "epoch": 3,
    "train_loss": float("nan"),
    "train_accuracy": 0.0,
    "validation_loss": 1.5e300,
    "validation_accuracy": float("inf"),
    "lr": 1e-300,
    "skipped": 10**30,
    "验证_损失": 0.25,
    "mean_intersection_over": 5e-324,
    "images_per_second": 1e200,
    "seconds": 1e30,
}


def shown_on(width, *rows, unit="images"):
    """The lines of epochs on a terminal with a number of columns, without the bar."""
    terminal = Terminal(width)
    with Progress(1000, 4, shown=True, console=terminal.console, unit=unit) as bar:
        for row in rows:
            bar.epoch(row)
    return [line for line in terminal.lines() if "━" not in line]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_lines_of_epochs_are_broken_between_figures(width):
    lines = shown_on(width, ROW, LONG, ROW, unit="图像")
    assert all(cell_len(line) <= width for line in lines)
    shown_text = "  ".join(line.strip() for line in lines)
    for row in (ROW, LONG):
        for figure in formatting.described(row, "图像"):
            assert figure in shown_text
    heads = [line for line in lines if line.startswith("epoch")]
    assert [head.split("/")[0].split()[-1] for head in heads] == ["2", "3", "2"]


def test_figures_below_an_epoch_stand_beneath_those_behind_it():
    first, *others = shown_on(80, ROW)
    assert first.startswith("epoch    2/1000  train loss")
    assert others and all(re.match(r" {17}[\w]", line) for line in others)


def test_a_figure_too_wide_to_stand_beneath_moves_to_the_left():
    lines = shown_on(20, {"epoch": 1, "mean_of_all": 0.5, "a": 1})
    assert lines == ["epoch    1/1000", "  mean of all 0.5000", "  a 1"]


def test_in_a_file_an_epoch_is_one_line(capsys):
    with Progress(1000, 4, shown=True) as bar:
        bar.epoch(LONG)
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) > 200 and "skipped 1.000e+30" in line


def test_a_terminal_that_draws_no_bar_gets_lines_that_fit():
    code = (
        "from xpnn.training.progress import Progress\n"
        "with Progress(12, 4, shown=True) as bar:\n"
        "    bar.note('early stopping: no better ' + 'for five epochs ' * 4)\n"
        f"    bar.epoch({ROW!r})\n"
    )
    for terminal in ("dumb", "xterm"):
        lines = python(44, code, TERM=terminal)
        assert all(len(line) <= 44 for line in lines) and len(lines) > 4
        assert "validation loss 1.235e-05" in "\n".join(lines) and "early stopping" in lines[0]


@pytest.mark.parametrize("width", [120, 80, 60, 44])
def test_the_bar_fits_where_characters_are_wide(clock, width):
    terminal = Terminal(width)
    with Progress(100, 20_000, shown=True, console=terminal.console, unit="图像") as bar:
        for step in (1, 2):
            clock.now += 1.0
            bar.step(1, step, 8, lambda: {"损失": 0.0123456, "accuracy": 0.99})
    last = terminal.lines()[-1]
    assert last.startswith("epoch 1/100") and cell_len(last) <= width and "图像/s" in last


def test_a_count_is_shown_as_an_integer(capsys):
    with Progress(1, 4, shown=True) as bar:
        bar.epoch({"epoch": 1, "train_loss": 0.5, "skipped": 1200})
    assert capsys.readouterr().err.rstrip().endswith("skipped 1,200")


def test_lines_of_epochs_stand_in_columns(capsys):
    with Progress(2, 4, shown=True) as bar:
        bar.epoch({"epoch": 1, "train_loss": 0.00123456, "seconds": 1.0})
        bar.epoch({"epoch": 2, "train_loss": 0.5, "seconds": 1.0})
    first, second = capsys.readouterr().err.splitlines()
    assert first.index("1.0 s") == second.index("1.0 s")


def test_speed_of_an_epoch_is_that_of_its_steps(capsys, clock):
    with Progress(1, 10, shown=True) as bar:
        go(bar, clock, 1, range(1, 11), 0.1)
        clock.now += 9.0  # validation
        bar.epoch({"epoch": 1, "train_loss": 0.5, "seconds": 10.0})
    assert "80 images/s  10.0 s" in capsys.readouterr().err


def test_a_long_epoch_gets_a_line_every_ten_seconds(capsys, clock):
    reads = []
    with Progress(3, 100, shown=True) as bar:
        go(bar, clock, 1, range(1, 101), 0.25, reads)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [["epoch 1/3", "step 40/100"], ["epoch 1/3", "step 80/100"]]
    assert lines[0].endswith("train loss 0.5000  32 images/s  1:05 left")
    assert len(reads) == 4  # the first step, two lines, the last step


def test_a_short_epoch_gets_one_line(capsys, clock):
    with Progress(1, 100, shown=True) as bar:
        go(bar, clock, 1, range(1, 101), 0.05)
        bar.epoch({"epoch": 1, "train_loss": 0.5, "seconds": 5.0})
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_nothing_is_read_if_nothing_is_shown(capsys, clock):
    reads = []
    with Progress(1, 100, shown=False) as bar:
        go(bar, clock, 1, range(1, 101), 1.0, reads)
        bar.epoch(ROW)
        bar.note("a word")
    assert (reads, *capsys.readouterr()) == ([], "", "")


def test_a_note_is_a_line(capsys):
    with Progress(1, 100, shown=True) as bar:
        bar.note("early stopping: no better for 5 epochs")
    assert capsys.readouterr().err == "early stopping: no better for 5 epochs\n"


def test_the_bar_shows_epoch_step_figures_speed_and_time_left(clock):
    terminal = Terminal()
    with Progress(3, 200, shown=True, console=terminal.console) as bar:
        go(bar, clock, 1, range(1, 101), 0.1)
    shown_text = [line for line in terminal.lines() if "100/200" in line][-1]
    assert re.fullmatch(r"epoch 1/3  ━+\S*━*  100/200  loss 0\.5000  80 images/s  0:50 left", shown_text)


def test_the_bar_reads_figures_a_few_times_a_second(clock):
    reads = []
    with Progress(1, 100_000, shown=True, console=Terminal().console) as bar:
        go(bar, clock, 1, range(1, 10_001), 0.001, reads)
    assert 30 <= len(reads) <= 41


def test_time_left_counts_the_pauses_between_epochs(clock):
    terminal = Terminal()
    with Progress(3, 100, shown=True, console=terminal.console) as bar:
        go(bar, clock, 1, range(1, 101), 0.5)
        clock.now += 20.0
        bar.epoch({"epoch": 1, "train_loss": 0.5, "seconds": 70.0})
        go(bar, clock, 2, range(1, 51), 0.5)
    # 150 steps of 0.5 s, and two validations of 20 s
    assert "16 images/s  1:55 left" in [line for line in terminal.lines() if " 50/100" in line][-1]


def test_resumed_training_shows_where_it_continues(clock):
    terminal = Terminal()
    with Progress(5, 100, shown=True, start=(4, 60), console=terminal.console) as bar:
        assert terminal.lines()[0].startswith("epoch 4/5")
        assert "60/100" in terminal.lines()[0]
        go(bar, clock, 4, range(61, 81), 1.0)
    assert "8.0 images/s  2:00 left" in terminal.lines()[-1]


@pytest.mark.parametrize("width", [120, 80, 60, 44])
def test_the_bar_is_one_line_that_fits(clock, width):
    terminal = Terminal(width)
    with Progress(100, 20_000, shown=True, console=terminal.console) as bar:
        clock.now += 1.0
        bar.step(1, 1, 8, lambda: {"loss": 0.0123456, "accuracy": 0.99})
        clock.now += 1.0
        bar.step(1, 2, 8, lambda: {"loss": 0.0123456, "accuracy": 0.99})
    last = terminal.lines()[-1]
    assert last.startswith("epoch 1/100") and len(last) <= width
    assert "images/s" in last


def test_notes_and_epochs_stand_above_the_bar(clock):
    terminal = Terminal()
    with Progress(2, 10, shown=True, console=terminal.console) as bar:
        go(bar, clock, 1, range(1, 11), 0.1)
        bar.note("checkpoint [bold] restored")
        bar.epoch({"epoch": 1, "train_loss": 0.5, "seconds": 1.0})
    lines = terminal.lines()
    assert "checkpoint [bold] restored" in lines
    assert "epoch 1/2  train loss 0.5000  80 images/s  1.0 s" in lines


def test_fit_shows_a_bar_on_a_terminal():
    pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
    code = (
        "import numpy as np, time, xpnn as nn\n"
        "class Slow(nn.Identity):\n"
        "    def _forward(self, x):\n        time.sleep(0.02)\n        return x\n"
        "x = np.zeros((400, 4), np.float32)\n"
        "nn.fit(nn.Sequential(Slow(), nn.Dense(4, 2)), (x, np.zeros(400, int)), batch_size=8, epochs=2)\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 4096):
                text += part
        except OSError:
            pass  # Linux says so when the other end is closed
    os.close(ours)
    assert process.returncode == 0
    shown = text.decode()
    assert re.search(r"images/s  0:0\d left", shown)
    assert re.search(r"epoch 2/2  train loss [\d.e-]+", shown)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (formatting.number(0.5), "0.5000"),
        (formatting.number(1234.0), "1234"),
        (formatting.number(float("nan")), "nan"),
        (formatting.number(0.0), "0.000"),
        (formatting.clock(59.6), "1:00"),
        (formatting.clock(7265), "2:01:05"),
        (formatting.size(0), "0 bytes"),
        (formatting.size(999), "999 bytes"),
        (formatting.size(423_100_000), "423.1 MB"),
        (formatting.size(7.2e15), "7200.0 TB"),
        (formatting.per_second(3.14), "3.1 images/s"),
        (formatting.per_second(1e300), "1.000e+300 images/s"),
        (formatting.per_second(float("nan")), "nan images/s"),
        (formatting.size(1e30), "1.000e+18 TB"),
        (formatting.clock(float("inf")), "?"),
        (formatting.clock(float("nan")), "?"),
        (formatting.count(-1234567), "-1,234,567"),
        (formatting.count(10**400), "1.000e+400"),
        (formatting.percent(1e300), "1.000e+302 %"),
        (formatting.percent(float("nan")), "nan %"),
        (formatting.percent(0.98888), "98.89 %"),
    ],
)
def test_numbers_as_text(text, wanted):
    assert text == wanted


def test_summary_is_aligned_plain_text_in_a_file():
    file = io.StringIO()
    values = {
        "model": "lenet",
        "parameters": 40404,
        "test accuracy": None,
        "peak memory": formatting.size(2e6),
        "loss": 0.5,
    }
    summary_table(values, title="run", file=file)
    assert file.getvalue() == "run\nmodel        lenet\nparameters   40,404\npeak memory  2.0 MB\nloss         0.5000\n"


def test_summary_is_framed_on_a_terminal():
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    summary_table({"model": "[lenet]", "exact": True}, title="run", file=screen)
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert "│ model │ [lenet] │" in text
    assert "│ exact │ yes     │" in text
