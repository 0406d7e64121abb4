"""``xpnn bench`` measures, says what it measured, and checks that both sides computed the same."""

import json

import pytest

from xpnn.scripts import bench
from xpnn.scripts.main import main


@pytest.fixture
def quick(monkeypatch):
    """No rests, short samples, one small net."""
    monkeypatch.setattr(bench, "REST", 0.0)
    monkeypatch.setattr(bench, "SAMPLE", 0.0)
    monkeypatch.setattr(bench, "NETS", {"lenet": ((1, 8, 8), 4)})


def test_a_step_is_measured_beside_pytorch(quick, capsys, tmp_path):
    pytest.importorskip("torch")
    target = tmp_path / "rows.json"
    assert main(["bench", "--batch", "2", "--rounds", "1", "--json", str(target)]) == 0
    (row,) = json.loads(target.read_text())["rows"]
    assert (row["kind"], row["name"], row["phase"], row["batch"]) == ("net", "lenet5", "step", 2)
    assert row["ratio"] == pytest.approx(row["torch_ms"] / row["ours_ms"]) and row["relative_error"] < 1e-4
    assert "lenet5 step, batch 2: ours" in capsys.readouterr().out


def test_exact_numerics_is_measured_beside_fast(quick, capsys, tmp_path):
    target = tmp_path / "rows.json"
    assert main(["bench", "--numerics", "--rounds", "1", "--json", str(target)]) == 0
    (row,) = json.loads(target.read_text())["rows"]
    assert (row["name"], row["batch"]) == ("lenet", 4)
    assert row["ratio"] == pytest.approx(row["exact_ms"] / row["fast_ms"])
    assert "lenet step, batch 4: fast" in capsys.readouterr().out


def test_array_operations_are_counted_where_pytorch_is():
    pytest.importorskip("torch")
    fast, exact = (bench.count_operations(numerics, "lenet", (1, 8, 8)) for numerics in ("fast", "exact"))
    assert 200 < fast < exact < 10 * fast


def test_a_folder_that_is_not_there_is_refused(capsys):
    assert main(["bench", "--json", "no/such/folder/rows.json"]) == 2
    assert "no folder" in capsys.readouterr().err
