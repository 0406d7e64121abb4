"""The output of the commands fits the terminal, and has the same text there as in a file."""

import re
import sys

import numpy as np
import pytest
from pseudo_terminal import python
from rich.cells import cell_len

from xpnn.cli.bench.comparison import Row

pytest.importorskip("pty", reason="no pseudo-terminals here")
FRAMES = re.compile("[┏┓┃━┳┡╇┩│└┴┘├┼┤─╭┬╮╰╯|+]")
# Calls that print the same text every time: no times and no speeds.
CALLS = {
    "info": "main(['info'])",
    "parity": "main(['parity', '--filter', 'dense/(plain|nan)'])",
    "predict": "main(['predict', 'run', '--data', 'data.npz', '--backend', 'numpy'])",
    "explain": "main(['explain', 'run', '--data', 'data.npz', '--sample', '1', '--backend', 'numpy'])",
    "summary": "print(nn.models.resnet18((3, 32, 32), 10).summary((1, 3, 32, 32)))",
    "table": "summary_table({'peak memory': 1e300, '数据': 'photographs of ants and of bees ' * 4}, title='run')",
    "bench": "command._printed([ROW], None)",
}
CODE = """
import fcntl, os, struct, sys, termios, time
import xpnn as nn
from xpnn.cli import pictures
from xpnn.cli.bench import command
from xpnn.cli.bench.comparison import Row
from xpnn.cli.main import main
from xpnn.training.formatting import summary_table

time.perf_counter = lambda: 0.0
pictures.plot_activations = lambda *arguments, **options: None
ROW = Row('net', 'conv 64x56x56->64 3x3 s2', 'backward', 32, 1234.567, 12.3, 0.01, 1e3, 2e3, 0.5, 1e-7, 'channels_last',
          launches=344, discarded=3, wrong=True)
for width in {widths}:
    if width:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    for call in {calls}:
        print("=====", flush=True)
        eval(call)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import xpnn as nn
    from xpnn.interop import safetensors
    from xpnn.training.datasets import load_dataset
    from xpnn.training.saved_net.description import describe

    folder = tmp_path_factory.mktemp("widths")
    x = np.random.default_rng(0).integers(0, 17, (40, 8, 8)).astype(np.uint8)
    np.savez(folder / "data.npz", x=x, y=np.arange(40) % 10)
    data = load_dataset(folder / "data.npz")
    (folder / "run").mkdir()
    safetensors.save(
        nn.models.lenet(data.image, 10, seed=3), folder / "run" / "model.safetensors", describe("lenet", data)
    )
    return folder


WIDTHS = (40, 60, 80, 120)


@pytest.fixture(scope="module")
def outputs(folder):
    """The output of each call on terminals of several widths, and in a file."""
    import subprocess

    code = f"import os; os.chdir({str(folder)!r})" + CODE.format(widths=WIDTHS, calls=list(CALLS.values()))
    shown = "\n".join(python(80, code)).split("=====\n")[1:]
    found = {(name, width): shown.pop(0) for width in WIDTHS for name in CALLS}
    code = f"import os; os.chdir({str(folder)!r})" + CODE.format(widths=(0,), calls=list(CALLS.values()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole = done.stdout.split("=====\n")[1:]
    return found | {(name, None): whole.pop(0) for name in CALLS}


def words(text):
    return FRAMES.sub(" ", text).split()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", CALLS)
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(outputs, name, width):
    there = words(outputs[name, width])
    for line in outputs[name, width].splitlines():
        # A path is not broken.
        assert cell_len(line) <= width or len(line.split()) <= 2, line
    # On a terminal too narrow for a table, the first columns have no heads.
    for word in set(words(outputs[name, None])) - {"backend", "layer", "name"}:
        assert word in there, word


@pytest.mark.parametrize("name", ["parity", "bench"])
def test_in_a_file_a_row_is_one_line(outputs, name):
    (row,) = [line for line in outputs[name, None].splitlines() if line.startswith(("Dense/plain", "conv 64x56x56"))]
    assert len(row) > 90
    assert row.split()[-1] in outputs[name, None].splitlines()[-1] or len(row.split()) > 8


def test_a_row_of_the_benchmark_reads_as_its_cells():
    row = Row("net", "mlp", "step", 64, 1.5, 3.0, 2.0)
    assert (
        str(row)
        == "mlp                        step         64     1.500     3.000        2.00      -        -        -"
    )
