"""One thing for each thread, and no more of them than threads that ever ran at once."""

import threading
from itertools import count

from xpnn.backends.execution.per_thread import PerThread


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_has_one_and_another_thread_another():
    things = PerThread(count().__next__)
    assert things.get() == things.get() == 0
    assert in_thread(lambda: (things.get(), things.get())) == (1, 1)


def test_the_thing_of_a_thread_that_ended_goes_to_the_next():
    things = PerThread(count().__next__)
    assert [in_thread(things.get) for _ in range(3)] == [0, 0, 0] and things.get() == 0


def test_no_two_threads_at_once_have_the_same():
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
