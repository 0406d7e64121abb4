"""``python -m xpnn.scripts.captured`` measures what it can and says why of the rest."""

import json

import pytest

from xpnn.scripts import captured


def test_rows_come_out_in_words_and_as_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(captured, "CALLS", 1)
    target = tmp_path / "rows.json"
    assert captured.main(["--backend", "numpy", "--batch", "2", "--rounds", "1", "--json", str(target)]) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [row["name"] for row in rows] == ["lenet5 sgd compiled", "lenet5 adam compiled"]
    for row in rows:
        assert row["gain"] == pytest.approx(row["plain_ms"] / row["ours_ms"]) and row["recorded"] == 0
    assert "lenet5 adam compiled, batch 2" in capsys.readouterr().out


def test_a_case_that_fails_says_why_and_the_next_one_runs(capsys, monkeypatch):
    monkeypatch.setattr(captured, "CALLS", 1)
    monkeypatch.setitem(captured.OPTIMIZERS, "sgd", lambda model: 1 / 0)
    assert captured.main(["--backend", "numpy", "--batch", "2", "--rounds", "1"]) == 1
    out = capsys.readouterr().out
    assert "lenet5 sgd compiled: failed: ZeroDivisionError" in out and "lenet5 adam compiled, batch 2" in out


def test_a_backend_that_is_not_there_is_named(capsys):
    assert captured.main(["--backend", "strict:nowhere"]) == 1
    assert "no device 'nowhere'" in capsys.readouterr().out
