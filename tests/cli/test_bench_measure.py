"""Sides are timed in turn, and samples that other processes disturb are repeated."""

import sys
from types import SimpleNamespace

import pytest

from xpnn.backends.execution import thread_count
from xpnn.cli.bench import measure, other_processes, same_threads
from xpnn.cli.bench.measure import Side
from xpnn.cli.bench.other_processes import Watch
from xpnn.common.cores import available_cores


class Machine:
    """A simulated machine of two cores: its clock and its /proc/stat are set by the test."""

    def __init__(self, tmp_path, monkeypatch):
        self.seconds = self.own = self.others = 0.0
        self.stat = tmp_path / "stat"
        monkeypatch.setattr(other_processes, "STAT", self.stat)
        clock = SimpleNamespace(
            perf_counter=lambda: self.seconds, process_time=lambda: self.own, sleep=lambda s: self.spend(s)
        )
        monkeypatch.setattr(other_processes, "time", clock)
        monkeypatch.setattr(other_processes.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
        monkeypatch.setattr(other_processes.os, "sysconf", lambda name: 100, raising=False)
        self.write()

    def spend(self, seconds, own=0.0, others=0.0):
        self.seconds += seconds
        self.own += own
        self.others += others
        self.write()

    def write(self):
        half = round((self.own + self.others) * 50)
        line = f"{half} 0 0 7 0 0 0 0 0 0"
        self.stat.write_text(f"cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 {line}\ncpu1 {line}\ncpu2 99 9 9 9 9 9 9 9 9 9\nintr 5\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_sides_take_turns_with_a_rest_in_between(machine):
    log = []

    def side(name, seconds):
        def call():
            log.append(name)
            machine.spend(seconds, own=seconds)

        return Side(call)

    machine_sleep = other_processes.time.sleep
    other_processes.time.sleep = lambda s: (log.append("rest"), machine_sleep(s))
    found = measure.measure({"a": side("a", 0.2), "b": side("b", 0.4)}, 3, Watch(), 0.0)
    assert log[-12:] == ["rest", "a", "rest", "b"] * 3
    assert found.medians == pytest.approx({"a": 200.0, "b": 400.0})
    assert (found.samples, found.discarded, found.disturbed, found.note) == (3, 0, False, "")


def test_short_calls_are_repeated_until_a_sample_is_long_enough(machine):
    calls = []
    call = Side(lambda: (calls.append(machine.seconds), machine.spend(0.001, own=0.001)))
    found = measure.measure({"a": call}, 1, Watch(), 0.0)
    assert found.medians["a"] == pytest.approx(1.0)
    assert sum(at > calls[-1] - measure.SAMPLE for at in calls) >= measure.SAMPLE / 0.001 - 2


def test_waiting_for_a_device_belongs_to_the_sample(machine):
    found = measure.measure({"a": Side(lambda: None, lambda: machine.spend(0.3))}, 1, Watch(), 0.0)
    assert found.medians["a"] == pytest.approx(300.0)


def disturbed(machine, samples):
    """A side whose samples with these numbers, counted after three calls of warming up, other processes slow down."""
    calls = []

    def call():
        calls.append(None)
        late = len(calls) - 4 in samples
        machine.spend(0.5 if late else 0.2, own=0.2, others=0.3 if late else 0.0)

    return Side(call)


def test_disturbed_samples_are_discarded_and_repeated(machine):
    found = measure.measure({"a": disturbed(machine, {0, 2})}, 3, Watch(), 0.0)
    assert found.medians["a"] == pytest.approx(200.0)
    assert (found.samples, found.discarded, found.disturbed) == (3, 2, False)


def test_a_machine_that_stays_busy_is_reported_as_disturbed(machine):
    found = measure.measure({"a": disturbed(machine, set(range(1, 99)))}, 2, Watch(), 0.0)
    assert (found.samples, found.disturbed) == (2, True)
    assert found.discarded == measure.PATIENCE * 2 - 2


def test_own_threads_are_no_disturbance(machine):
    found = measure.measure({"a": Side(lambda: machine.spend(0.2, own=0.4))}, 2, Watch(), 0.0)
    assert (found.discarded, found.disturbed) == (0, False)


def test_without_proc_the_load_is_unknown(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(other_processes, "STAT", tmp_path / "absent")
    found = measure.measure({"a": Side(lambda: machine.spend(0.2))}, 2, Watch(), 20.0)
    assert (found.samples, found.discarded, found.disturbed) == (2, 0, None)
    assert "can't tell" in found.note


def test_a_row_waits_for_a_quiet_machine(machine):
    busy_until = 3.0
    other_processes.time.sleep = lambda s: machine.spend(s, others=2.0 * s * (machine.seconds < busy_until))
    assert Watch().wait_until_quiet(20.0) == ""
    assert busy_until <= machine.seconds < busy_until + 1.0


def test_waiting_ends_and_says_so(machine):
    other_processes.time.sleep = lambda s: machine.spend(s, others=s)
    note = Watch().wait_until_quiet(5.0)
    assert 5.0 <= machine.seconds < 6.0
    assert note.startswith("the machine is not idle after 5 s: other processes use ")


def test_only_cores_of_this_process_count(machine):
    before = Watch().load()
    machine.spend(1.0, own=0.5, others=0.3)
    assert Watch().foreign(before) == pytest.approx(0.15)


def test_a_slower_call_has_the_larger_median(monkeypatch):
    monkeypatch.setattr(measure, "REST", 0.0)
    monkeypatch.setattr(measure, "SAMPLE", 0.0)
    sides = {"a": Side(lambda: None), "b": Side(lambda: sum(range(20000)))}
    found = measure.measure(sides, 3, Watch(), 0.0).medians
    assert 0.0 < found["a"] < found["b"]


def test_threads_come_from_the_environment_or_the_cores(monkeypatch):
    monkeypatch.delenv(thread_count.VARIABLE, raising=False)
    assert thread_count.thread_count() == available_cores()
    monkeypatch.setenv(thread_count.VARIABLE, "3")
    assert thread_count.thread_count() == 3
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv(thread_count.VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"XPNN_NUM_THREADS must be an integer >= 1, got '{wrong}'"):
            thread_count.thread_count()


@pytest.mark.parametrize("present", [True, False])
def test_threads_of_pytorch_are_restored(monkeypatch, present):
    torch = pytest.importorskip("torch")
    if not present:
        monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    before = torch.get_num_threads()
    with pytest.raises(KeyError), same_threads.same_threads(before + 2, torch):
        assert torch.get_num_threads() == before + 2
        raise KeyError
    assert torch.get_num_threads() == before
