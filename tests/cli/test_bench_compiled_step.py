"""``xpnn bench compiled-step`` times all cases that work and says why others fail."""

import json

import pytest

from xpnn.cli.bench import compiled_step, measure, other_processes
from xpnn.cli.main import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No rests, short samples, no check of other processes."""
    monkeypatch.setattr(measure, "REST", 0.0)
    monkeypatch.setattr(measure, "SAMPLE", 0.0)
    monkeypatch.setattr(other_processes.Watch, "wait_until_quiet", lambda self, seconds: "")
    monkeypatch.setattr(other_processes.Watch, "foreign", lambda self, since: 0.0)


def run(*arguments):
    return main(["bench", "compiled-step", "--backend", "numpy", "--batch", "2", "--rounds", "1", *map(str, arguments)])


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rows_are_printed_and_written_as_json_and_line_by_line(tmp_path, capsys):
    whole, each = tmp_path / "rows.json", tmp_path / "rows.jsonl"
    assert run("--json", whole, "--lines", each) == 0
    rows = json.loads(whole.read_text())["rows"]
    assert rows == lines(each)
    assert [row["name"] for row in rows] == ["lenet5 sgd compiled", "lenet5 adam compiled"]
    for row in rows:
        assert row["gain"] == pytest.approx(row["plain_ms"] / row["ours_ms"]) and row["recorded"] == 1
        assert row["relative_error"] == 0.0 and not row["wrong"]
    assert "lenet5 adam compiled, batch 2" in capsys.readouterr().out


def test_a_row_that_other_processes_disturbed_is_not_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(other_processes.Watch, "foreign", lambda self, since: 0.9)
    each = tmp_path / "rows.jsonl"
    assert run("--net", "mlp", "--optimizer", "sgd", "--lines", each) == 3
    assert "NOT MEASURED: disturbed by other processes" in capsys.readouterr().out
    assert [row["disturbed"] for row in lines(each)] == [True]


def test_nets_are_chosen_by_name_and_measured_in_that_order(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_step, "STEPS", 1)
    each = tmp_path / "rows.jsonl"
    assert run("--net", "resnet18", "mlp", "--optimizer", "sgd", "--lines", each) == 0
    assert [row["name"] for row in lines(each)] == ["resnet18 sgd compiled", "mlp sgd compiled"]


def test_every_net_of_the_benchmark_can_be_chosen(capsys):
    with pytest.raises(SystemExit):
        run("--net", "alexnet")
    err = capsys.readouterr().err
    assert all(name in err for name in ("resnet18", "vgg11_bn", "lenet5"))


def test_a_case_that_fails_says_why_and_the_next_one_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(compiled_step.OPTIMIZERS, "sgd", lambda model: 1 / 0)
    each = tmp_path / "rows.jsonl"
    assert run("--lines", each) == 1
    out = capsys.readouterr().out
    assert "lenet5 sgd compiled: failed: ZeroDivisionError" in out and "lenet5 adam compiled, batch 2" in out
    first, second = lines(each)
    assert first["passed"] is False and "ZeroDivisionError" in first["problem"] and second["ours_ms"] > 0


def test_rows_are_written_as_they_come(tmp_path, monkeypatch):
    whole, each = tmp_path / "rows.json", tmp_path / "rows.jsonl"

    def die(model):
        raise KeyboardInterrupt

    monkeypatch.setitem(compiled_step.OPTIMIZERS, "adam", die)
    assert run("--json", whole, "--lines", each) == 130
    assert len(lines(each)) == 1 and len(json.loads(whole.read_text())["rows"]) == 1


def test_a_compiled_step_with_other_results_is_wrong(capsys, monkeypatch):
    real = compiled_step.Step.losses
    factors = iter([1.0, 2.0] * 2)
    monkeypatch.setattr(compiled_step.Step, "losses", lambda self, steps: real(self, steps) * next(factors))
    assert run() == 1
    assert capsys.readouterr().out.count("WRONG") == 2


def test_pytorch_takes_the_same_step_beside_it(tmp_path):
    pytest.importorskip("torch")
    each = tmp_path / "rows.jsonl"
    assert run("--optimizer", "sgd", "--lines", each) == 0
    for row in lines(each):
        assert row["ratio"] == pytest.approx(row["torch_ms"] / row["ours_ms"])
        assert row["torch_format"] in ("contiguous_format", "channels_last")


def test_an_unusable_backend_is_named(capsys):
    assert main(["bench", "compiled-step", "--backend", "strict:nowhere"]) == 1
    assert "no device 'nowhere'" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    assert run("--json", tmp_path / "no" / "rows.json") == 2
    assert "there is no folder" in capsys.readouterr().err
