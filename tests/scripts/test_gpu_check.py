"""``scripts/gpu_check.py`` runs everything, survives what fails, and keeps to its time and size."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xpnn.scripts import gpu_check

SCRIPT = Path(gpu_check.__file__)
TESTS = Path(__file__).parents[1]


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """One backend that works and one that does not, and a suite of one file."""
    folder = tmp_path_factory.mktemp("gpu") / "made" / "here"
    found = run(
        folder,
        *("--backends", "strict,strict:nowhere", "--require", "strict", "--filter", "dense/plain"),
        *("--tests", TESTS / "layers" / "test_geometry.py", "--seconds", "120", "--rounds", "1", "--net", "mlp"),
    )
    return folder, found


def test_a_part_that_fails_does_not_stop_the_others(checked):
    folder, found = checked
    parts = {part["name"]: part for part in json.loads((folder / "results.json").read_text())["parts"]}
    assert found.returncode == 1, found.stderr
    assert list(parts) == [
        "info",
        "parity strict fast",
        "parity strict:nowhere fast",
        "parity strict exact",
        "parity strict:nowhere exact",
        "bench strict",
        "bench strict:nowhere",
        "suite",
    ]
    for name, part in parts.items():
        assert part["status"] == ("failed, exit 2" if "nowhere" in name else "passed"), part["output"]
    for name in ("info", "parity strict fast", "parity strict exact", "bench strict", "suite"):
        assert parts[name]["status"] == "passed", parts[name]["output"]
    assert parts["parity strict fast"]["result"]["cases"][0]["name"] == "Dense/plain"
    assert parts["bench strict"]["result"]["rows"][0]["name"] == "mlp"
    assert parts["suite"]["environment"] == {"XPNN_REQUIRE_BACKENDS": "strict"}


def test_the_summary_is_short_and_comes_last(checked):
    folder, found = checked
    summary = (folder / "summary.txt").read_text().splitlines()
    assert 10 < len(summary) <= 40 and max(map(len, summary)) <= gpu_check.LINE_WIDTH
    assert found.stdout.splitlines()[-len(summary) :] == summary
    text = "\n".join(summary)
    for word in ("gpu ", "numpy ", "parity: 1 cases, 1 passed", "no device 'nowhere'", "mlp step", " passed"):
        assert word in text, word


def test_what_comes_back_is_three_files_below_10_mib(checked):
    folder, _ = checked
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "results.json", "summary.txt"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10 * 2**20
    assert "== suite: " in (folder / "log.txt").read_text()


def test_a_part_that_hangs_is_stopped_with_its_children():
    part = gpu_check.Part(
        "hang", "info", [sys.executable, "-c", "import os, time; os.fork(); print('in', flush=True); time.sleep(99)"]
    )
    started = time.monotonic()
    gpu_check.run(part, 1.0)
    assert time.monotonic() - started < 20
    assert part.status == "stopped after 1 s" and part.output.startswith("in")


def test_a_command_that_is_not_there_is_a_failure_like_others():
    part = gpu_check.Part("absent", "info", ["/no/such/program"])
    gpu_check.run(part, 5.0)
    assert part.status.startswith("failed to start")


def test_a_run_out_of_time_leaves_the_rest_and_says_so(tmp_path):
    found = run(tmp_path, "--backends", "strict", "--filter", "dense/plain", "--seconds", "4")
    assert found.returncode == 1 and "not run" in found.stdout
    assert json.loads((tmp_path / "results.json").read_text())["parts"][-1]["status"] == "not run"


def test_long_logs_keep_their_ends():
    text = "a" * gpu_check.LOG_BYTES + "b" * gpu_check.LOG_BYTES
    short = gpu_check.shortened(text)
    assert len(short) < gpu_check.LOG_BYTES + 100 and short.startswith("aaa") and short.endswith("bbb")
    assert gpu_check.shortened("abc") == "abc"


def test_many_failures_share_the_room_of_the_summary():
    parts = [
        gpu_check.Part(f"part {i}", "info", ["x"], status="failed, exit 1", output="FAILED a\n" * 50) for i in range(3)
    ]
    lines = gpu_check.summarise({"gpu": "none"}, parts)
    assert len(lines) == 40 and all(sum(f"part {i}: FAILED" in line for line in lines) == 12 for i in range(3))


def test_a_folder_that_cannot_be_written_is_a_bad_call(tmp_path):
    (tmp_path / "file").write_text("")
    found = run(tmp_path / "file")
    assert found.returncode == 2 and "can't write" in found.stderr


def test_it_imports_the_standard_library_alone():
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import gpu_check; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_gpu_is_measured_in_parts_of_their_own():
    parts = gpu_check.measurements("cupy:1", 3, Path("scratch"))
    assert [part.name for part in parts] == ["captured cupy:1", "nets cupy:1"] == [part.stage for part in parts]
    for part in parts:
        assert part.stage.partition(" ")[0] in gpu_check.SECONDS
        assert part.command[-4:] == ["--backend", "cupy:1", "--json", part.report]


def test_figures_leave_out_what_a_row_does_not_tell():
    row = {"name": "lenet5", "phase": "step", "batch": 64, "ours_ms": 0.25, "torch_ms": None, "ratio": None}
    rows = [row, {**row, "plain_ms": 1.0, "gain": 4.0}, {**row, "launches": 80}, {"fast_ms": 1.0}, "odd"]
    told = gpu_check.figures(gpu_check.Part("captured cupy", "captured cupy", ["x"], result={"rows": rows}))
    assert len(told) == 3 and "ours 0.25 ms" in told[0] and told[1].endswith("plain 1 ms, gain 4.00")
    assert told[2].endswith("launches 80")
