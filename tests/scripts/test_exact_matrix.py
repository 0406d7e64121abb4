"""``scripts/exact_matrix.py`` finds one hash, and reports it if there are more."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xpnn.backends import registry
from xpnn.scripts import exact_matrix
from xpnn.scripts.exact_matrix import Configuration, configurations, row, run_task, verdict

SCRIPT = Path(exact_matrix.__file__)


def matrix(monkeypatch, *made):
    """Run these configurations, 5 steps each, instead of all."""
    monkeypatch.setattr(exact_matrix, "configurations", lambda backend, dispatched: iter(made))
    return exact_matrix.main(["--backends", "numpy", "--steps", "5"])


def result(setting, exact, fast="f", **options):
    return Configuration("numpy", setting, exact=exact, fast=fast, **options)


def test_two_environments_give_one_hash_in_exact_numerics(monkeypatch, capsys, tmp_path):
    two = (
        Configuration("numpy", "one thread", exact_matrix.threads(1)),
        Configuration("numpy", "parts", arguments={"shards": 3}),
    )
    monkeypatch.setattr(exact_matrix, "configurations", lambda backend, dispatched: iter(two))
    file = tmp_path / "matrix.json"
    assert exact_matrix.main(["--backends", "strict:nowhere,numpy", "--steps", "5", "--json", str(file)]) == 0
    header, unusable, first, second, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["backend", "setting", "exact", "fast", "seconds"]
    assert "can't be used" in unusable and "no device 'nowhere'" in unusable
    assert first.split()[3] == second.split()[2] and first.split()[4] != second.split()[3]
    assert last == "exact_matrix: 2 configurations, 1 hash in exact numerics, 2 in fast numerics"
    report = json.loads(file.read_text())
    assert [len(c["exact"]) for c in report["configurations"]] == [0, 64, 64] and report["steps"] == 5


def test_a_difference_is_exit_status_1_and_named(monkeypatch, capsys):
    """Another seed simulates different arithmetic."""
    odd = Configuration("numpy", "another seed", arguments={"seed": 2})
    usual = Configuration("numpy", "usual"), Configuration("numpy", "usual again")
    assert matrix(monkeypatch, *usual, odd) == 1
    *_, named, last = capsys.readouterr().out.splitlines()
    assert named == f"odd: numpy another seed: {odd.exact[:12]}, most have {usual[0].exact[:12]}"
    assert last == "exact_matrix: 3 configurations, 2 hashes in exact numerics, 2 in fast numerics"


@pytest.mark.parametrize(
    ("made", "status", "lines"),
    [
        ([result("a", "1"), result("b", "1", "g")], 0, 1),
        ([result("a", "1"), result("b", "", problem="not on this processor", skipped=True)], 0, 1),
        ([result("a", "1"), result("b", "", problem="failed, exit 1: boom")], 1, 2),
        ([result("a", "1"), result("b", "2"), result("c", "2")], 1, 2),
        ([result("a", "", problem="no package", skipped=True)], 1, 1),
        ([], 1, 1),
    ],
)
def test_the_verdict_counts_what_ran(made, status, lines):
    summary, code = verdict(made)
    assert code == status and len(summary) == lines
    assert summary[-1].startswith(f"exact_matrix: {sum(bool(c.exact) for c in made)} configurations")
    assert all(line.startswith(("odd: numpy a", "failed: numpy b: failed")) for line in summary[:-1])


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (
            f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})",
            {"skipped": True, "problem": "not on this processor"},
        ),
        ("raise SystemExit('boom')", {"problem": "failed, exit 1: boom"}),
        ("print('no json')", {"problem": "failed, exit 0: no message"}),
        ("print('warning'); print('{\"exact\": \"a\"}')", {"exact": "a"}),
        ("import time; time.sleep(60)", {"problem": "not done after 1 s"}),
    ],
)
def test_the_result_of_a_child_is_reported(code, answer, monkeypatch):
    run = subprocess.run
    monkeypatch.setattr(exact_matrix, "SECONDS", 1.0 if "sleep" in code else 20.0)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run([sys.executable, "-c", code], **options))
    assert run_task({}, {}) == answer


def test_an_environment_reaches_the_child(monkeypatch):
    code = "import json, os; print(json.dumps({'exact': os.environ['OMP_NUM_THREADS']}))"
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run([sys.executable, "-c", code], **options))
    assert run_task({}, exact_matrix.threads(7)) == {"exact": "7"}


def test_the_settings_are_those_of_the_backends_libraries():
    settings = [c.setting for c in configurations("numpy", ["X86_V3", "X86_V4"])]
    assert len(settings) == len(set(settings)) == 3 + len(exact_matrix.CORES) + 2
    assert settings[-2:] == ["NumPy without X86_V3 X86_V4", "NumPy without X86_V4"]
    assert [c.setting for c in configurations("strict", [])] == settings[:-2]
    torch = [c.setting for c in configurations("torch:cpu", ["X86_V3"])]
    assert "flush denormal" in torch and "ATEN_CPU_CAPABILITY=avx2" in torch
    assert not [name for name in torch if "OPENBLAS" in name or "NumPy" in name]


def test_a_row_has_hashes_or_the_reason():
    assert row(result("a", "1" * 64, "2" * 64)).split() == ["numpy", "a", "1" * 12, "2" * 12, "0.0", "s"]
    assert row(result("a", "", problem="not on this processor")).endswith(" not on this processor")


@pytest.mark.parametrize("call", [["--steps", "0"], ["--steps", "x"], ["--backends", ","], ["--json", "/no/such/file"]])
def test_a_bad_call_is_exit_status_2(call, capsys):
    try:
        status = exact_matrix.main(call)
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and capsys.readouterr().err


def test_the_backends_are_those_of_the_library():
    assert (*registry.names(), "auto") == exact_matrix.BACKENDS


def test_the_parent_imports_only_the_standard_library():
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import exact_matrix; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
