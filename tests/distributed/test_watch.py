"""The hub, which judges what it hears of ranks, without MPI: ranks are connections of this process."""

import json
import os
import re
import signal
import socket
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
from xpnn.distributed.watching.hub import STARTING, TOGETHER, start_hub
from xpnn.distributed.watching.watch import Watch

TIMEOUT = 1.0


@contextmanager
def connected(size=3, count=3):
    """The first ``count`` ranks of ``size``, and the number of the hub's process."""
    port, pid = start_hub(size, "secret", TIMEOUT)
    found = [Watch(rank, ["127.0.0.1"], port, "secret", TIMEOUT) for rank in range(count)]
    yield found, pid
    for watch in found:
        # So that no thread ends this process.
        watch._is_raised = True
        watch.leave()


@pytest.fixture
def watches():
    with connected() as (found, _):
        yield found


def end(watch, after_goodbye=False):
    """End a rank."""
    if after_goodbye:
        watch.leave()
    watch._has_left = True
    watch._connection.socket.shutdown(socket.SHUT_RDWR)


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
    assert verdict_of(watches[1]).startswith("the group: all ranks have waited")
    assert watches[1].failure.rank is None


def test_a_closed_connection_is_a_death(watches):
    end(watches[1])
    assert "rank 1 (" in verdict_of(watches[0]) and str(watches[0].failure).endswith(" died")


def test_an_error_is_passed_on(watches):
    watches[2].fail("raised ValueError: no")
    assert verdict_of(watches[0]).endswith("raised ValueError: no")
    with pytest.raises(RankError, match="rank 2"):
        watches[0].check()


def test_one_line_names_the_rank(capfd):
    with connected() as (watches, _):
        watches[1].advise("; go on with: this")
        watches[1].fail("raised ValueError: no")
        assert verdict_of(watches[0]).endswith("raised ValueError: no")
        watches[2].fail("raised ValueError: neither")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("xpnn: rank 1 (") and line.endswith(") raised ValueError: no; go on with: this")


def test_what_all_ranks_find_blames_none(watches):
    watches[1].fail("the ranks computed different sums", is_at_fault=False)
    assert verdict_of(watches[0]) == "the group: the ranks computed different sums"
    assert watches[0].failure.rank is None


def test_a_long_text_is_cut(watches):
    watches[1].fail("x" * 3_000_000)
    assert "rank 1 (" in verdict_of(watches[0]) and 4000 < len(str(watches[0].failure)) < 4200


def test_a_rank_that_leaves_early_is_named_where_its_launcher_ends_the_others(watches):
    end(watches[1], after_goodbye=True)
    end(watches[0])
    assert re.fullmatch(r"rank 1 \(.*\) ended before the others", verdict_of(watches[2]))


def test_a_rank_that_left_long_ago_is_not_blamed(watches):
    end(watches[1], after_goodbye=True)
    time.sleep(TOGETHER + 0.3)
    end(watches[0])
    assert re.fullmatch(r"rank 0 \(.*\) died", verdict_of(watches[2]))


def test_a_rank_that_ends_before_others_have_come_is_not_blamed():
    with connected(size=3, count=2) as (watches, _):
        end(watches[0])
        expected = "the group: a rank ended before all were connected"
        assert verdict_of(watches[1]) == expected
        port = watches[1]._connection.socket.getpeername()[1]
        assert verdict_of(Watch(2, ["127.0.0.1"], port, "secret", TIMEOUT)) == expected


RANK = """
import os, sys, time
from xpnn.distributed.watching.hub import start_hub
from xpnn.distributed.watching.watch import Watch
rank, port = map(int, sys.argv[1:])
port = port or start_hub(2, "secret", 10.0).port
watch = Watch(rank, ["127.0.0.1"], port, "secret", 10.0)
try:
    while True:
        os.wait()
except ChildProcessError:
    print(port, flush=True)
time.sleep(1000)
"""


def test_a_rank_that_died_is_named_where_a_launcher_kills_the_others():
    """As MPICH's does, before any rank can say anything. The hub ends with them: nobody has their output any more."""
    root = ranks.started([sys.executable, "-c", RANK, "0", "0"])
    # The hub is no child for which a program that waits for its children would wait.
    port = root.stdout.readline().strip()
    other = ranks.started([sys.executable, "-c", RANK, "1", port])
    other.stdout.readline()
    other.kill()
    ranks.end_of(other)
    root.kill()
    _, errors = ranks.end_of(root, 20)
    assert re.fullmatch(rf"xpnn: rank 1 \(.*, process {other.pid}\) died\n", errors)


def test_the_hub_ends_with_a_rank_that_waits_for_others_in_vain():
    root = ranks.started([sys.executable, "-c", RANK, "0", "0"])
    root.stdout.readline()
    root.kill()
    _, errors = ranks.end_of(root, STARTING / 2)
    assert errors == "xpnn: the group: a rank ended before all were connected\n"


def test_signals_that_let_ranks_save_do_not_end_the_hub():
    with connected() as (watches, hub):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(hub, number)
        assert verdict_of(watches[0], 0.5) == "None"
        watches[2].fail("raised ValueError: no")
        assert verdict_of(watches[0]).endswith("raised ValueError: no")


@pytest.mark.parametrize(
    ("number", "what"), [(signal.SIGKILL, "has died"), (signal.SIGSTOP, "is not heard of any more: rank 1 has waited")]
)
def test_ranks_do_not_wait_for_a_hub_that_is_gone(capfd, number, what):
    with connected() as (watches, hub):
        for watch in watches:
            wait(watch)
        os.kill(hub, number)
        try:
            for watch in watches:
                verdict_of(watch)
            assert what in str(watches[1].failure) and watches[1].failure.rank is None
            (line,) = capfd.readouterr().err.splitlines()
            assert line.startswith("xpnn: the process that watches the ranks, which rank 0 had started, ")
            assert what in line
        finally:
            with suppress(ProcessLookupError):
                os.kill(hub, signal.SIGKILL)


@pytest.mark.parametrize(
    ("executable", "message"),
    [
        (None, "needs a Python interpreter, and sys.executable is None"),
        ("", "needs a Python interpreter, and sys.executable is ''"),
        ("/bin/false", "/bin/false did not start the process that watches the ranks"),
        ("other", "other did not start the process that watches the ranks"),
        ("slow", "slow did not start the process that watches the ranks"),
    ],
)
def test_a_hub_that_does_not_start_is_an_error(monkeypatch, tmp_path, executable, message):
    monkeypatch.setattr("xpnn.distributed.watching.hub.STARTING", 0.5)
    for name, line in (("other", "echo this is no Python"), ("slow", "exec sleep 100")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    path = tmp_path / executable if executable in ("other", "slow") else executable
    monkeypatch.setattr(sys, "executable", path and str(path))
    with pytest.raises(OSError, match=message):
        start_hub(2, "secret", TIMEOUT)


def test_announced_work_does_not_count(watches):
    wait(watches[0])
    wait(watches[2])
    with watches[1].allowing(30.0):
        assert verdict_of(watches[0], 3.5) == "None"
        watches[0]._is_raised = False
    assert "rank 1" in verdict_of(watches[0])


def test_a_stranger_is_not_heard():
    with connected(size=2, count=2) as (watches, _):
        address = watches[0]._connection.socket.getpeername()
        with socket.create_connection(address) as link:
            for message in ({"hello": 1, "token": "guess", "where": "x"}, {"failed": "all", "is_at_fault": True}):
                link.sendall(json.dumps(message).encode() + b"\n")
            with pytest.raises(ConnectionError, match="is not the process that watches the ranks"):
                Watch(1, ["127.0.0.1"], address[1], "guess", TIMEOUT)
            assert verdict_of(watches[0], 1.5) == "None"


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
