"""One object for each thread, and no more objects than threads that ran at the same time."""

import threading
from itertools import count

from xpnn.backends.execution.per_thread import PerThread


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_each_thread_has_its_own_object():
    things = PerThread(count().__next__)
    assert things.get() == things.get() == 0
    assert in_thread(lambda: (things.get(), things.get())) == (1, 1)


def test_the_object_of_a_thread_that_ended_is_reused():
    things = PerThread(count().__next__)
    assert [in_thread(things.get) for _ in range(3)] == [0, 0, 0] and things.get() == 0


def test_threads_that_run_at_the_same_time_share_no_object():
    things, ready, found = PerThread(count().__next__), threading.Barrier(8), []

    def work():
        mine = things.get()
        ready.wait()
        found.append((mine, things.get()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(i, i) for i in range(8)]
