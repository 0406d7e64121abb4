"""The rows that ``gpu_check`` reads: each is written as soon as it is known, failures included."""

import json
import os

import pytest

import xpnn as nn
from xpnn.distributed import start
from xpnn.scripts.gpu import nccl_checks, run_checks
from xpnn.testing import cases


def rows_of(tmp_path, *arguments, status=0):
    file = tmp_path / "rows.jsonl"
    assert run_checks.main([*arguments, "--lines", str(file)]) == status
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_parity_reports_the_total_and_then_each_case(tmp_path):
    first, *found = rows_of(tmp_path, "parity", "numpy", "--filter", "^dense/")
    assert first == {"total": len(found)} and len(found) == sum(case.name.startswith("Dense/") for case in cases())
    assert all(row["passed"] and row["arrays"][0]["truth"]["ulps"] >= 0 for row in found)


def test_a_case_that_fails_is_reported_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    from xpnn.layers import dense

    monkeypatch.setattr(dense, "_weighted_sums", lambda *arguments, **options: 1 / 0)
    _, *found = rows_of(tmp_path, "parity", "numpy", "--filter", "^dense/(plain|no bias)", status=1)
    assert [row["passed"] for row in found] == [False, False]
    assert "FAILED Dense/plain: ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize("count", [30, 60])
def test_few_cases_are_of_every_operation(count):
    few = run_checks.spread(cases(), count)
    assert len(few) == count and {case.op for case in few} == {case.op for case in cases()}
    assert [case.name for case in few] == [case.name for case in cases() if case in few]


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_parts_have_all_cases_between_them(parts):
    found = [case.name for i in range(parts) for case in run_checks.share(cases(), i, parts)]
    assert sorted(found) == sorted(case.name for case in cases())


def test_golden_runs_are_compared_with_the_committed_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(run_checks, "golden_run", lambda b, name: run_checks.GOLDEN["Adam"])
    first, *found = rows_of(tmp_path, "golden", "numpy", "--numerics", "exact", status=1)
    assert first == {"total": 2} and [row["passed"] for row in found] == [False, True]
    assert run_checks.GOLDEN["Adam"] in found[0]["problem"] and "200 steps" in found[1]["told"]


def test_each_golden_run_may_have_its_own_process(tmp_path, monkeypatch):
    monkeypatch.setattr(run_checks, "golden_run", lambda b, name: run_checks.GOLDEN[name])
    for part, name in (("1/2", "golden SGD with momentum"), ("2/2", "golden Adam")):
        (tmp_path / part[0]).mkdir()
        assert [row.get("name") for row in rows_of(tmp_path / part[0], "golden", "numpy", "--part", part)][1:] == [name]


def test_the_checks_of_a_device(at, tmp_path):
    if at.read_only:
        pytest.skip("the backend of numpy once more")
    first, *found = rows_of(tmp_path, "device", at.backend.spec)
    assert first == {"total": len(found)} and all(row["told"] for row in found), found
    names = [row["name"] for row in found]
    assert names == ["memory"] or at.name == "cupy"
    if at.name == "cupy":
        by_name = {row["name"]: row["told"] for row in found}
        assert by_name["captured step"].startswith("recorded 1, replayed 3")
        assert by_name["captured step, exact"].endswith("the bits of plain steps")
        assert by_name["memory limit"].endswith("refused: OutOfMemoryError")


def test_a_check_that_raises_is_a_row_and_the_next_one_runs(tmp_path, monkeypatch):
    def broken(b):
        raise RuntimeError("illegal address\nsecond line")

    monkeypatch.setattr(run_checks, "memory_in_use", broken)
    _, row = rows_of(tmp_path, "device", "numpy", status=1)
    assert not row["passed"] and row["problem"] == "RuntimeError: illegal address"


@pytest.mark.parametrize(("numerics", "status"), [("fast", "1e-05 from plain"), ("exact", None)])
def test_a_captured_step_must_be_near_the_plain_one_and_in_exact_numerics_equal(monkeypatch, numerics, status):
    real = run_checks._steps

    def off(b, compiled):
        step, arrays = real(b, compiled)
        return step, [array * (1.0 + 1e-5 * compiled) for array in arrays]

    monkeypatch.setattr(run_checks, "_steps", off)
    b = nn.get_backend("numpy", numerics=numerics)
    if status is None:
        with pytest.raises(ArithmeticError, match="the bits are not those"):
            run_checks.captured(b)
    else:
        assert "e-0" in run_checks.captured(b) and "from plain steps" in run_checks.captured(b)


def test_a_captured_step_that_computes_something_else_fails(monkeypatch):
    real = run_checks._steps
    monkeypatch.setattr(run_checks, "STEPS", 2)
    monkeypatch.setattr(run_checks, "_steps", lambda b, compiled: (None, [a + compiled for a in real(b, compiled)[1]]))
    with pytest.raises(ArithmeticError, match="is allowed"):
        run_checks.captured(nn.get_backend("numpy"))


def test_an_unusable_backend_is_one_line_and_status_2(tmp_path, capsys):
    assert rows_of(tmp_path, "device", "strict:nowhere", status=2) == []
    assert "no device 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b"])
def test_a_part_is_one_of_several(tmp_path, part, capsys):
    with pytest.raises(SystemExit):
        rows_of(tmp_path, "parity", "numpy", "--part", part)
    assert "the I-th of N parts" in capsys.readouterr().err


@pytest.fixture
def one_rank(gpu, monkeypatch):
    """NCCL's double in place of NCCL."""
    import nccl_double

    nccl_double.install(lambda *arguments: monkeypatch.setattr(*arguments, raising=False))
    # At the end of a program a group is closed, and its errors are reported: not at the end of the tests.
    monkeypatch.setattr(start, "_end_with_program", lambda group: None)
    return nccl_double


def test_nccl_is_checked_with_one_rank_and_is_really_called(tmp_path, one_rank, monkeypatch):
    monkeypatch.setattr(nccl_checks, "EXCHANGED", 1 << 16)
    monkeypatch.setattr(nccl_checks, "TIMES", 3)
    one_rank.calls.clear()
    first, *found = rows_of(tmp_path, "nccl", "cupy")
    assert first == {"total": 5} and all(row["passed"] for row in found), found
    names = ["init by torchrun's variables", "communicator of one rank", "all_reduce", "broadcast", "64 MiB"]
    assert [row["name"] for row in found] == [f"nccl {name}" for name in names]
    assert one_rank.calls == {"allReduce": 11 + 3 + 5, "broadcast": 1}
    assert "RANK" not in os.environ and found[0]["told"] == "NCCL 2.28.9"


def test_a_wrong_sum_of_nccl_is_found_and_the_next_check_runs(tmp_path, one_rank, monkeypatch):
    import nccl_double_root

    monkeypatch.setattr(nccl_checks, "EXCHANGED", 1 << 16)
    monkeypatch.setattr(nccl_double_root, "combined", lambda header, parts: bytes(len(parts[0])))
    _, *found = rows_of(tmp_path, "nccl", "cupy", status=1)
    assert [row["passed"] for row in found] == [True, True, False, False, True]
    assert "the sum of one rank's float32 is not what it gave" in found[2]["problem"]


def test_without_nccl_its_check_is_skipped_with_the_reason(tmp_path, monkeypatch):
    first, row = rows_of(tmp_path, "nccl", "numpy")
    assert first == {"total": 1} and row["skipped"] and row["told"] == "skipped: NCCL is for CuPy"
