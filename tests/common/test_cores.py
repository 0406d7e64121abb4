"""The count of cores: affinity and the quota of the control group, and that all callers agree."""

from pathlib import Path

import pytest

import xpnn as nn
from xpnn.backends.execution import thread_count as threads
from xpnn.cli.bench.machine import describe_machine
from xpnn.cli.main import main
from xpnn.common import cores
from xpnn.common.cores import available_cores
from xpnn.scripts.gpu import plan


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


V2 = "sys/fs/cgroup/cpu.max"
QUOTA, PERIOD = "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 8),
        ({V2: "max 100000\n"}, 8),
        ({V2: "300000 100000\n"}, 3),
        ({V2: "250000 100000\n"}, 3),
        ({V2: "10000 100000\n"}, 1),
        ({V2: "1600000 100000\n"}, 8),
        ({QUOTA: "-1\n", PERIOD: "100000\n"}, 8),
        ({QUOTA: "200000\n", PERIOD: "100000\n"}, 2),
        ({QUOTA: "50000\n", PERIOD: "50000\n"}, 1),
        ({QUOTA: "200000\n"}, 8),
        ({V2: "max 100000\n", QUOTA: "400000\n", PERIOD: "100000\n"}, 4),
        ({V2: ""}, 8),
        ({V2: "100000\n"}, 8),
        ({V2: "100000 0\n"}, 8),
        ({V2: "100000 max\n"}, 8),
        ({V2: "nonsense of three\n"}, 8),
    ],
)
def test_cores_are_those_of_the_control_group_s_quota(monkeypatch, tmp_path, files, count):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_cores(written(tmp_path, files)) == count


def test_cores_are_those_of_the_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert available_cores(written(tmp_path, {V2: "600000 100000"})) == 2


def test_cores_are_all_if_the_system_has_no_affinity(monkeypatch, tmp_path):
    monkeypatch.delattr(cores.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 6)
    assert available_cores(tmp_path) == 6
    monkeypatch.setattr(cores.os, "cpu_count", lambda: None)
    assert available_cores(tmp_path) == 1


def test_threads_info_and_benchmarks_count_the_cores_of_the_quota(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("XPNN_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(available_cores, "__defaults__", (written(tmp_path, {V2: "300000 100000\n"}),))
    threads._given.cache_clear()
    try:
        assert threads.thread_count() == 3
        assert describe_machine(nn.get_backend("numpy"))["cores"] == 3
        assert main(["info"]) == 0 and ", 3 cores" in capsys.readouterr().out
    finally:
        threads._given.cache_clear()


def test_gpu_check_counts_the_same_cores():
    assert plan.available_cores() == available_cores()
