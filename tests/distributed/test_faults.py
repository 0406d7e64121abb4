"""A rank that fails: all others stop, and name it."""

import os
import re
import signal
import subprocess
import time

import pytest
import ranks

from xpnn.distributed.errors import RankError

TIMEOUT = 3.0
WHAT = {
    "is killed": "died",
    "is frozen": "(?:is not heard of any more|hangs): other ranks have waited",
    "hangs": "hangs: other ranks have waited",
    "raises": "raised ValueError: bad ...",
    "lacks memory": "raised .*MemoryError: Unable to allocate",
    "leaves": "ended while other ranks wait for it",
}


@pytest.mark.parametrize("how", WHAT)
def test_others_stop_and_name_the_rank(how):
    started = time.monotonic()
    process = ranks.start(3, "fails", how, TIMEOUT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and not ranks.results_in(out)
    pid = re.search(r"PID (\d+)", out).group(1)
    named = re.findall(rf"xpnn: rank 1 \(.*, process {pid}\) {WHAT[how]}", errors)
    assert len(named) == 1, errors
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("what", "named"), [("data", "data"), ("layers", "layers"), ("settings", "settings"), ("epochs", "epochs")]
)
def test_ranks_that_train_something_else_are_refused(what, named):
    for text in ranks.run(2, "differs", what):
        assert text.startswith(f"all ranks must train the same: rank 1 differs from rank 0 in its {named}")


def cli(count, *arguments):
    options = ("-m", "xpnn", "train", "--distributed", "mpi", "--no-pictures")
    return ranks.started(ranks.command(count, *options, *arguments))


OPTIONS = (
    "--backend",
    "numpy",
    "--numerics",
    "exact",
    "--model",
    "mlp",
    "--batch",
    "16",
    "--epochs",
    "9",
    "--checkpoint-every",
    "5",
)


def test_ctrl_c_saves_once_and_the_run_goes_on_with_one_process(tmp_path):
    process = cli(2, "--out", tmp_path / "run", *OPTIONS)
    wait_for_checkpoint(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.count("which is saved in") == 1, errors
    assert f"continue with: xpnn train --resume {tmp_path / 'run'}" in errors
    resumed = cli(1, "--resume", tmp_path / "run", "--epochs", "3")
    out, errors = resumed.communicate(timeout=100)
    assert resumed.returncode == 0 and "held-out accuracy" in out, errors


def test_a_killed_rank_is_named_in_one_line_and_damages_no_checkpoint(tmp_path):
    process = cli(2, "--out", tmp_path / "run", *OPTIONS)
    wait_for_checkpoint(tmp_path / "run")
    found = subprocess.run(["pgrep", "-f", str(tmp_path / "run")], capture_output=True, text=True, check=True)
    last = max(int(pid) for pid in found.stdout.split() if int(pid) != process.pid)
    os.kill(last, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if line.startswith("xpnn: rank")]
    assert len(lines) == 1 and re.search(rf"rank [01] \(.*process {last}\) died|rank 0 died", lines[0]), errors
    resumed = cli(1, "--resume", tmp_path / "run", "--epochs", "3")
    out, errors = resumed.communicate(timeout=100)
    assert resumed.returncode == 0 and "held-out accuracy" in out, errors


def test_a_refused_call_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    process = cli(2, "--out", tmp_path / "file")
    _, errors = process.communicate(timeout=60)
    assert [line for line in errors.splitlines() if line.startswith("xpnn")] == [
        f"xpnn train: --out {tmp_path / 'file'} is a file; name a folder"
    ]
    assert process.returncode == 2


def wait_for_checkpoint(folder):
    end = time.monotonic() + 60
    while not list(folder.glob("checkpoints/step-*.json")):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_error_can_be_pickled():
    import pickle

    error = pickle.loads(pickle.dumps(RankError(2, "rank 2 died")))
    assert (error.rank, str(error)) == (2, "rank 2 died")
