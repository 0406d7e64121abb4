"""The hub, which judges what it hears of ranks, without MPI: ranks are connections of this process."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import ranks

from xpnn.distributed.errors import RankError
from xpnn.distributed.group import Group
from xpnn.distributed.process_team import ProcessTeam
from xpnn.distributed.single import SingleProcess
from xpnn.distributed.watching.hub import start_hub
from xpnn.distributed.watching.watch import Watch

TIMEOUT = 1.0


@contextmanager
def connected():
    port = start_hub(3, "secret", TIMEOUT)
    found = [Watch(rank, ["127.0.0.1"], port, "secret", TIMEOUT) for rank in range(3)]
    yield found
    for watch in found:
        # So that no thread ends this process.
        watch._is_raised = True
        watch.leave()


@pytest.fixture
def watches():
    with connected() as found:
        yield found


def verdict_of(watch, seconds=8.0):
    end = time.monotonic() + seconds
    while watch.failure is None and time.monotonic() < end:
        time.sleep(0.02)
    watch._is_raised = True
    return str(watch.failure)


def wait(watch, exchanges=1):
    watch.exchanges, watch.waits = exchanges, True


def test_a_rank_that_others_wait_for_hangs(watches):
    wait(watches[0])
    wait(watches[2])
    for watch in watches:
        assert "rank 1 (" in verdict_of(watch) and "hangs: other ranks have waited" in str(watch.failure)
        assert watch.failure.rank == 1


def test_the_rank_that_is_furthest_behind_is_named(watches):
    wait(watches[0], 5)
    wait(watches[1], 4)
    wait(watches[2], 3)
    assert "rank 2 (" in verdict_of(watches[0])


def test_ranks_that_all_wait_in_one_exchange_are_not_blamed(watches):
    for watch in watches:
        wait(watch, 7)
    assert verdict_of(watches[1]).startswith("the group all ranks have waited")
    assert watches[1].failure.rank is None


def test_a_closed_connection_is_a_death(watches):
    watches[1]._has_left = True
    watches[1]._connection.socket.shutdown(2)
    assert "rank 1 (" in verdict_of(watches[0]) and str(watches[0].failure).endswith(" died")


def test_an_error_is_passed_on(watches):
    watches[2].fail("raised ValueError: no")
    assert verdict_of(watches[0]).endswith("raised ValueError: no")
    with pytest.raises(RankError, match="rank 2"):
        watches[0].check()


def test_one_line_names_the_rank(capfd):
    with connected() as watches:
        watches[1].advise("; go on with: this")
        watches[1].fail("raised ValueError: no")
        assert verdict_of(watches[0]).endswith("raised ValueError: no")
        watches[2].fail("raised ValueError: neither")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("xpnn: rank 1 (") and line.endswith(") raised ValueError: no; go on with: this")


RANK = """
import sys, time
from xpnn.distributed.watching.hub import start_hub
from xpnn.distributed.watching.watch import Watch
rank, port = map(int, sys.argv[1:])
port = port or start_hub(2, "secret", 10.0)
watch = Watch(rank, ["127.0.0.1"], port, "secret", 10.0)
print(port, flush=True)
time.sleep(1000)
"""


def test_a_rank_that_died_is_named_where_a_launcher_kills_the_others():
    """As MPICH's does, before any rank can say anything. The hub ends with them: nobody has their output any more."""
    root = ranks.started([sys.executable, "-c", RANK, "0", "0"])
    port = root.stdout.readline().strip()
    other = ranks.started([sys.executable, "-c", RANK, "1", port])
    other.stdout.readline()
    other.kill()
    ranks.end_of(other)
    root.kill()
    _, errors = ranks.end_of(root, 20)
    assert re.fullmatch(rf"xpnn: rank 1 \(.*, process {other.pid}\) died\n", errors)


def hub():
    """The process that this one has started last."""
    return int(subprocess.run(["pgrep", "-n", "-P", str(os.getpid())], capture_output=True, check=True).stdout)


def test_signals_that_let_ranks_save_do_not_end_the_hub(watches):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(hub(), number)
    assert verdict_of(watches[0], 0.5) == "None"
    watches[2].fail("raised ValueError: no")
    assert verdict_of(watches[0]).endswith("raised ValueError: no")


@pytest.mark.parametrize(
    ("number", "what"), [(signal.SIGKILL, "has died"), (signal.SIGSTOP, "is not heard of any more: rank 1 has waited")]
)
def test_ranks_do_not_wait_for_a_hub_that_is_gone(capfd, watches, number, what):
    process = hub()
    for watch in watches:
        wait(watch)
    os.kill(process, number)
    try:
        for watch in watches:
            verdict_of(watch)
        assert what in str(watches[1].failure) and watches[1].failure.rank is None
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("xpnn: the process that watches the ranks, which rank 0 had started, ") and what in line
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_a_hub_that_does_not_start_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="the process that watches the ranks did not start"):
        start_hub(2, "secret", TIMEOUT)


def test_announced_work_does_not_count(watches):
    wait(watches[0])
    wait(watches[2])
    with watches[1].allowing(30.0):
        assert verdict_of(watches[0], 3.5) == "None"
        watches[0]._is_raised = False
    assert "rank 1" in verdict_of(watches[0])


def test_a_stranger_is_not_heard():
    port = start_hub(2, "secret", TIMEOUT)
    ranks = [Watch(rank, ["127.0.0.1"], port, "secret", TIMEOUT) for rank in range(2)]
    stranger = Watch(1, ["127.0.0.1"], port, "guess", TIMEOUT)
    stranger.fail("raised everything")
    assert verdict_of(ranks[0], 1.5) == "None"
    for each in (*ranks, stranger):
        each._is_raised = True
        each.leave()


def test_a_hub_that_can_not_be_reached_is_named():
    with pytest.raises(ConnectionError, match=r"rank 0 can.t be reached at port 1 "):
        Watch(1, ["127.0.0.1"], 1, "secret", TIMEOUT)


def test_a_group_of_one_exchanges_nothing():
    group = Group(SingleProcess())
    assert group.all_reduce(np.arange(3)).tolist() == [0, 1, 2]
    assert group.gather("x") == ["x"] and group.of_root("x") == "x" and group.agree(True, False) == [True, False]
    assert group.traffic == (0, 0, 0.0)


@pytest.mark.parametrize("rank, rows, place", [(0, 6, (0, 21)), (1, 6, (6, 21)), (2, 9, (12, 21))])
def test_rows_are_counted_without_an_exchange(rank, rows, place):
    class Alone(SingleProcess):
        size = 3

    group = Group(Alone())
    group.rank = rank
    team = ProcessTeam(group, [0, 2, 4, 7])
    assert team.slice(rows) == place and team.rows(rows) == 21
    with pytest.raises(ValueError, match="the same number of rows for each sample"):
        team.rows(rows + 1)
