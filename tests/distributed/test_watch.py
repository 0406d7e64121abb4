"""The hub, which judges what it hears of ranks, without MPI: ranks are connections of this process."""

import time

import numpy as np
import pytest

from xpnn.distributed.errors import RankError
from xpnn.distributed.group import Group
from xpnn.distributed.hub import Hub
from xpnn.distributed.process_team import ProcessTeam
from xpnn.distributed.single import SingleProcess
from xpnn.distributed.watch import Watch

TIMEOUT = 1.0


@pytest.fixture
def watches():
    hub = Hub(3, "secret", TIMEOUT)
    found = [Watch(rank, ["127.0.0.1"], hub.port, "secret", TIMEOUT) for rank in range(3)]
    yield found
    for watch in found:
        # So that no thread ends this process.
        watch._is_raised = True
        watch.leave()


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


def test_announced_work_does_not_count(watches):
    wait(watches[0])
    wait(watches[2])
    with watches[1].allowing(30.0):
        assert verdict_of(watches[0], 3.5) == "None"
        watches[0]._is_raised = False
    assert "rank 1" in verdict_of(watches[0])


def test_a_stranger_is_not_heard():
    hub = Hub(2, "secret", TIMEOUT)
    ranks = [Watch(rank, ["127.0.0.1"], hub.port, "secret", TIMEOUT) for rank in range(2)]
    stranger = Watch(1, ["127.0.0.1"], hub.port, "guess", TIMEOUT)
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
