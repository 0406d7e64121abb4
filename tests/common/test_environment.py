"""Environment variables: accepted values, the error for others, and no error at import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpnn as nn
from xpnn.common import environment

ROOT = Path(__file__).resolve().parents[2]
# A wrong value of each variable for which values can be wrong, and the accepted values in the error.
WRONG = {
    "XPNN_BACKEND": ("abacus", "numpy, cupy, cupy:1, torch, torch:cuda:0, strict or auto"),
    "XPNN_NUMERICS": ("precise", "'fast' or 'exact'"),
    "XPNN_NUM_THREADS": ("abc", "an integer >= 1"),
    "XPNN_NUMBA": ("off", "0 (no compiled kernels) or 1"),
    "XPNN_CUDA_KERNELS": ("false", "0 (no CUDA kernels of our own) or 1"),
    "XPNN_TRACEBACK": ("yes", "0 or 1"),
}
# Code that reads each variable.
NEEDS = {
    "XPNN_BACKEND": lambda: nn.get_backend(),
    "XPNN_NUMERICS": lambda: nn.get_backend("numpy"),
    "XPNN_NUM_THREADS": nn.backends.execution.thread_count.thread_count,
    "XPNN_NUMBA": nn.backends.engines.numba.used,
    "XPNN_CUDA_KERNELS": lambda: nn.backends.registry.backend_class("cupy").open(None, "float32", "fast", "float32"),
    "XPNN_TRACEBACK": lambda: environment.switch(environment.TRACEBACK),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("given", [None, " ", "0x1", "numpy:"])
def test_wrong_value_is_an_error_with_variable_value_and_what_is_accepted(monkeypatch, name, given):
    text = WRONG[name][0] if given is None else given
    monkeypatch.setenv(name, text)
    for check in (NEEDS[name], environment.check if name != "XPNN_BACKEND" else NEEDS[name]):
        with pytest.raises(ValueError) as error:
            check()
        assert str(error.value).startswith(f"{name} must be ") and f"got {text!r}" in str(error.value)
        assert WRONG[name][1] in str(error.value)


@pytest.mark.parametrize("name", sorted(set(WRONG) - {"XPNN_CUDA_KERNELS"}))
def test_empty_variable_is_an_unset_one(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    unset = NEEDS[name]()
    monkeypatch.setenv(name, "")
    assert NEEDS[name]() == unset
    assert environment.value(name) is None
    environment.check()


@pytest.mark.parametrize(
    ("name", "text"), [("XPNN_BACKEND", " numpy "), ("XPNN_NUMERICS", "exact\t"), ("XPNN_NUMBA", " 0")]
)
def test_blanks_around_a_value_are_ignored(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    assert environment.value(name) == text.strip()
    NEEDS[name]()


def test_misspelt_variable_is_named_with_the_one_it_resembles(monkeypatch):
    monkeypatch.setenv("XPNN_BAKEND", "cupy")
    with pytest.raises(ValueError, match="XPNN_BAKEND is no variable of xpnn; did you mean XPNN_BACKEND"):
        environment.check()


def test_other_variables_are_ignored(monkeypatch):
    monkeypatch.setenv("XPNN_PLUGIN_FOLDER", "/x")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "no")
    environment.check()


def test_import_does_not_fail_on_wrong_variables():
    wrong = {name: text for name, (text, _) in WRONG.items()}
    done = subprocess.run(
        [sys.executable, "-c", "import xpnn, xpnn.cli.main, xpnn.backends.engines.cuda"],
        env={**os.environ, **wrong},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_variable_that_the_project_reads_is_in_the_table_and_in_the_docs():
    table = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    found = set()
    for folder in ("backends", "layers", "training", "interop", "testing", "scripts", "tests/helpers", "docs"):
        for path in (path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")):
            found |= set(re.findall(r"XPNN_[A-Z_]+", path.read_text(encoding="utf-8")))
    assert found == set(environment.VARIABLES)
    for name in environment.VARIABLES:
        assert f"| `{name}` |" in table
