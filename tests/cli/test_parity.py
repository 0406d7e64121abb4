"""``xpnn parity``: the table, the verdict, the files and the exit status."""

import json
import re

import pytest

import xpnn as nn
from xpnn.backends.overrides import chosen
from xpnn.cli.main import main
from xpnn.cli.parity import case_selection, golden_check
from xpnn.layers import dense
from xpnn.layers.convolution import columns
from xpnn.testing import cases


def ran(capsys, *arguments):
    try:
        status = main(["parity", *map(str, arguments)])
    except SystemExit as exit:
        status = exit.code
    return status, *capsys.readouterr()


@pytest.fixture
def broken(monkeypatch):
    """A library whose dense layers, on any backend but NumPy, forget that the bias has a gradient for each sample."""
    right = dense._gradients

    def wrong(dy, x, weight, *options):
        dx, dweight, dbias = right(dy, x, weight, *options)
        is_right = dbias is None or type(dy).__module__ == "numpy"
        return dx, dweight, dbias if is_right else dbias * 1.001

    monkeypatch.setattr(dense, "_gradients", wrong)


def test_every_case_has_a_row_and_the_last_line_is_the_verdict(capsys):
    status, out, err = ran(capsys, "--backend", "strict", "--filter", "^dense/|tanh")
    wanted = [case.name for case in cases() if re.search("^dense/|tanh", case.name, re.I)]
    number = len(wanted)
    assert status == 0 and err == ""
    rows = [line for line in out.splitlines() if re.match(r"[A-Z]\w*/", line)]
    assert [row.partition("  ")[0] for row in rows] == wanted
    # Sums over a batch have another order on NumPy.
    same = sum("same" in row for row in rows)
    assert same >= number - sum(row.startswith("Dense") for row in rows)
    last = out.splitlines()[-1]
    assert re.fullmatch(
        rf"parity: {number} cases, {number} passed, 0 failed; worst forward [\d.]+ ULP \(.+\), "
        rf"worst gradient [\d.]+ ULP \(.+\); {same} with the same bits",
        last,
    )


def test_the_first_lines_name_both_backends(capsys):
    _, out, _ = ran(capsys, "--backend", "strict:device1", "--filter", "dense/plain")
    for word in ("0.1.0", "strict:device1 ", "device", "numpy ", "BLAS", "TF32 off", "numerics", "fast", "Python 3."):
        assert word in out.partition("case ")[0], word


def test_a_failure_is_in_its_row_and_ends_with_status_1(capsys, broken):
    status, out, err = ran(capsys, "--backend", "strict", "--filter", "dense/(plain|no bias)")
    assert status == 1 and err == ""
    assert "FAILED: dbias against float64: at (" in out and "dbias against numpy" in out
    assert out.splitlines()[-1].startswith("parity: 2 cases, 1 passed, 1 failed; worst forward")


def test_json_holds_every_figure(capsys, tmp_path, broken):
    target = tmp_path / "report.json"
    status, out, _ = ran(capsys, "--backend", "strict", "--filter", "dense/plain|dense/nan", "--json", target)
    report = json.loads(target.read_text())
    assert status == 1 and report["summary"] == out.splitlines()[-1]
    by_name = {case["name"]: case for case in report["cases"]}
    plain = by_name["Dense/plain"]
    assert plain["problem"].startswith("dbias against float64") and not plain["passed"]
    assert [array["name"] for array in plain["arrays"]] == ["y", "dx", "dweight", "dbias"]
    bias = plain["arrays"][3]
    assert bias["truth"]["ulps"] > 1000 and bias["truth"]["share"] > 1 and not bias["same_bits"]
    assert bias["truth"]["relative"] == pytest.approx(0.001, rel=0.01)
    assert sum(bias["truth"]["histogram"]) == 6 and len(report["histogram_edges_ulps"]) == 18
    assert plain["seconds"] > 0 and report["machine"]["numerics"] == "fast"


def test_the_page_needs_nothing_but_itself(capsys, tmp_path, broken):
    pytest.importorskip("matplotlib")
    target = tmp_path / "page.html"
    status, _, _ = ran(capsys, "--backend", "strict", "--filter", "dense|relu", "--html", target)
    text = target.read_text(encoding="utf-8")
    assert status == 1 and text.startswith("<!doctype html>") and text.count("<svg") == text.count("</svg>") == 2
    assert not re.search(r"(src|href)=\"(?!#)", text) and "@import" not in text and "url(http" not in text
    # On a phone tables and plots scroll, not the page; plots have a description.
    assert text.count('<div class="wide"') == 3 and text.count('<svg role="img" aria-label="For each operation') == 2
    assert "Dense/plain" in text and "dbias against float64" in text and 'class="verdict failed"' in text


def test_modes_are_reported_for_each_case_and_in_total(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    target, shown = tmp_path / "report.json", tmp_path / "page.html"
    some = r"^dense/plain$|^maxpool1d/corner kernel \(1,\), stride \(1,\), padding .*, ceil_mode False, dilation \(1,\)"
    status, out, _ = ran(capsys, "--modes", "--filter", some, "--json", target, "--html", shown)
    assert status == 0
    (dense,) = (line for line in out.splitlines() if line.startswith("Dense/plain"))
    report = json.loads(target.read_text())
    by_name = {case["name"]: case for case in report["cases"]}
    names = [mode["mode"] for mode in by_name["Dense/plain"]["modes"]]
    assert {"float64", "arrays", "small blocks", "strided", "exact", "exact, strided"} <= set(names)
    assert dense.endswith(f"in {len(names)} modes")
    (exact,) = (line for line in out.splitlines() if line.startswith("exact "))
    assert exact.split()[1] == str(len(by_name)) and exact.split()[3] == "0"
    assert {total["mode"]: total["failed"] for total in report["modes"]}["exact"] == 0
    # A window of one cell gives the same with any padding.
    refused = [line for line in out.splitlines() if "refused, as it has to be, in" in line]
    assert len(refused) == 3 and not any("padding ((0, 0),)" in line for line in refused)
    assert out.splitlines()[-1].endswith("modes")
    page = shown.read_text(encoding="utf-8")
    assert "<h2>Modes</h2>" in page and f"<summary>{len(names)}</summary>" in page and "exact, strided" in page


def test_a_failure_in_one_mode_is_reported_with_the_mode(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    usual = columns.forward
    monkeypatch.setattr(columns, "forward", lambda *given: usual(*given) * (1.001 if chosen().convolution else 1.0))
    target, shown = tmp_path / "report.json", tmp_path / "page.html"
    status, out, _ = ran(capsys, "--modes", "--filter", "^conv1d/valid$", "--json", target, "--html", shown)
    assert status == 1 and "FAILED: in mode 'adjoint': y against the truth: at (" in out
    assert "; in mode 'columns': y against the truth: at (" in out and "in mode 'arrays'" not in out
    failed = {total["mode"] for total in json.loads(target.read_text())["modes"] if total["failed"]}
    assert failed >= {"columns", "adjoint"} and "arrays" not in failed
    assert '<tr class="failed"><td>columns</td>' in shown.read_text(encoding="utf-8")


def test_numerics_come_from_the_option_or_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("XPNN_NUMERICS", "exact")
    _, out, _ = ran(capsys, "--backend", "strict", "--filter", "dense/")
    assert "numerics   exact" in out and "exact numerics stores float32" in out
    assert out.splitlines()[-1].endswith("12 with the same bits")
    _, out, _ = ran(capsys, "--backend", "strict", "--filter", "dense/plain", "--numerics", "fast")
    assert "numerics   fast" in out


def test_a_run_in_exact_numerics_ends_with_the_golden_runs(capsys, monkeypatch):
    monkeypatch.setattr(case_selection, "cases", lambda: cases()[:1])
    monkeypatch.setattr(golden_check, "golden_run", lambda backend, name: golden_check.GOLDEN[name])
    status, out, _ = ran(capsys, "--backend", "strict", "--numerics", "exact")
    assert status == 0 and out.count("as committed") == 2
    monkeypatch.setattr(golden_check, "golden_run", lambda backend, name: "0" * 64)
    status, out, _ = ran(capsys, "--backend", "strict", "--numerics", "exact")
    assert status == 1 and out.count("DIFFERS from the committed") == 2 and "1 passed, 0 failed" in out


def not_to_be_had(backend, name):
    raise ValueError("the digits come with scikit-learn, which is not installed")


@pytest.mark.parametrize(
    "golden, status, ending, box",
    [
        (lambda backend, name: golden_check.GOLDEN[name], 0, "golden runs: 2 passed", '"verdict "'),
        (lambda backend, name: "0" * 64, 1, "golden runs: 2 failed", '"verdict failed"'),
        (not_to_be_had, 3, "golden runs: 2 not run", '"verdict unknown"'),
    ],
    ids=["passed", "failed", "not run"],
)
def test_golden_runs_count_in_verdict_status_and_files(capsys, monkeypatch, tmp_path, golden, status, ending, box):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(case_selection, "cases", lambda: cases()[:1])
    monkeypatch.setattr(golden_check, "golden_run", golden)
    page, figures = tmp_path / "page.html", tmp_path / "all.json"
    files = ("--html", page, "--json", figures)
    found, out, _ = ran(capsys, "--backend", "strict", "--numerics", "exact", *files)
    assert found == status and out.splitlines()[-1].endswith(ending)
    assert f"<p class={box}>parity: 1 cases, 1 passed" in page.read_text()
    report = json.loads(figures.read_text())
    assert report["summary"].endswith(ending)
    assert {run["status"] for run in report["golden"]} == {ending.partition("2 ")[2]}


def test_cases_that_were_left_out_are_counted_separately(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    page, figures = tmp_path / "page.html", tmp_path / "all.json"
    files = ("--html", page, "--json", figures)
    status, out, _ = ran(capsys, "--backend", "strict:no_float64", "--filter", "dense/(plain|float64)", *files)
    assert status == 0 and "1 cases, 1 passed, 0 failed, 1 left out" in out.splitlines()[-1]
    why = "1 cases in float64: strict:no_float64 has no float64"
    assert f'"verdict unknown">Left out: {why}<' in page.read_text()
    report = json.loads(figures.read_text())
    assert report["left_out"] == ["Dense/float64"] and report["why_left_out"] == why


def test_cases_are_listed(capsys):
    status, out, _ = ran(capsys, "--list")
    assert status == 0 and out.splitlines() == [case.name for case in cases()]


def test_a_device_without_float64_leaves_those_cases_out_and_says_so(capsys):
    status, out, _ = ran(capsys, "--backend", "strict:no_float64", "--filter", "dense/(plain|float64)")
    assert status == 0 and "left out   1 cases in float64: strict:no_float64 has no float64" in out
    assert "parity: 1 cases, 1 passed" in out


def test_the_default_backend_is_that_of_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("XPNN_BACKEND", "strict:device2")
    _, out, _ = ran(capsys, "--filter", "dense/plain")
    assert "backend    strict:device2" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "abacus"], "got 'abacus'"),
        (["--backend", "strict:nowhere"], "no device 'nowhere'"),
        (["--reference", "abacus"], "got 'abacus'"),
        (["--numerics", "sloppy"], "numerics must be 'fast' or 'exact', got 'sloppy'"),
        (["--filter", "("], "is not a regular expression"),
        (["--filter", "no such case"], "finds none of the"),
        (["--filter", "dense/float64", "--backend", "strict:no_float64"], "none of the chosen cases runs"),
        (["--json", "no/such/folder/a.json"], "no folder"),
        (["--html", "."], "is a folder"),
        (["--what"], "unknown argument '--what'"),
    ],
)
def test_a_bad_call_is_one_line_and_status_2(capsys, arguments, message):
    status, out, err = ran(capsys, *arguments)
    assert status == 2 and out == "" and len(err.splitlines()) == 1
    assert err.startswith("xpnn parity: ") and message in err


def test_a_page_without_matplotlib_is_refused_before_anything_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    status, out, err = ran(capsys, "--filter", "dense/plain", "--html", tmp_path / "a.html")
    assert status == 2 and out == "" and "pip install 'matplotlib>=3.8'" in err
    assert not (tmp_path / "a.html").exists()


def test_parity_is_part_of_the_library_too():
    from xpnn.testing.parity import Parity

    outcomes = Parity("numpy").run_all(nn.testing.cases()[:3])
    assert [outcome.passed for outcome in outcomes] == [True] * 3
