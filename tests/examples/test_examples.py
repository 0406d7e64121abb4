"""Every program in ``examples/`` runs, and what it asserts is true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpnn as nn

ROOT = Path(nn.__file__).parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_what_it_asserts_is_true(path, tmp_path):
    pytest.importorskip("sklearn", reason="the examples learn scikit-learn's handwritten digits")
    # A plotting example must not open a window.
    environment = {**os.environ, "MPLBACKEND": "agg"}
    run = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout, "an example prints what it has shown"


def test_there_are_examples():
    assert EXAMPLES
