"""Threads that share the items of compiled jobs without Python between them.

Handing an item to a Python worker takes 70 to 90 microseconds, mostly the interpreter lock. These threads are Python
threads too, but each is inside one compiled function that holds no lock: it looks at a *generation* number, and if that
says that a job is open it takes items from a common counter. After some thousands of looks without a job it returns
to Python and sleeps until it is woken.

No thread sleeps through a program: the caller first says that it *calls*, and then wakes the threads that sleep. A
thread first says that it sleeps, and does not if it then finds a call.

The generation is odd while no job is open. The caller writes the job, makes the generation even, takes items itself,
makes it odd again, and waits until no thread is active in the job. A thread that has added itself to the active ones
and still finds the same even generation may take items; otherwise the job is over, and what it read may be changing.

Which thread computes an item changes no result. No deadlock is possible: the caller needs no other thread. A caller
that finds the pool in use, by another thread or because it is in a worker of `xpnn.backends.execution.workers`,
computes all its items itself. A forked child makes new threads.
"""

import atexit
import os
import threading
from queue import SimpleQueue
from typing import Any

import numpy as np

from ...execution.one_blas_thread import one_blas_thread, setup_once
from ...execution.thread_count import thread_count
from ...recording.calls import current, record
from ...recording.traced import unwrapped
from .atomics import (
    address_of_yield,
    atomic_add,
    atomic_load,
    atomic_store,
    call_job,
    call_without_arguments,
    pause,
)
from .bound import Bound, address_of
from .compiler import INT, compiled

# Each number has a cache line of its own: bytes from the beginning of the state.
GENERATION, NEXT, ACTIVE, STOPPED, CALLS, ASLEEP = 0, 128, 256, 384, 640, 1024
# Written before the generation becomes even, read after: the job, and the number of threads that may help.
FUNCTION, ITEMS, ARGUMENTS, HELPERS = 512, 520, 528, 536
# One word for each thread that says whether it sleeps; threads beyond these are looked at by Python.
FLAGS = 128
STATE_BYTES = ASLEEP + 8 * FLAGS
# Looks without a job before a thread sleeps: some 0.2 ms. Between two operations of a step Python needs less.
LOOKS = 4000
# Looks after which a thread that waits lets others of the machine run.
LOOKS_BEFORE_YIELD = 1000


@compiled(INT, INT, INT, INT, INT)
def _run(state: Any, program: Any, jobs: Any, helpers: Any, let_others_run: Any) -> None:
    """Run jobs in order, each with the pool's threads."""
    if helpers > 0:
        atomic_store(state + HELPERS, helpers)
    for number in range(jobs):
        row = program + 24 * number
        function, items, arguments = atomic_load(row), atomic_load(row + 8), atomic_load(row + 16)
        if items <= 1 or helpers == 0:
            for item in range(items):
                call_job(function, item, arguments)
            continue
        atomic_store(state + FUNCTION, function)
        atomic_store(state + ITEMS, items)
        atomic_store(state + ARGUMENTS, arguments)
        atomic_store(state + NEXT, 0)
        atomic_add(state + GENERATION, 1)
        while True:
            item = atomic_add(state + NEXT, 1)
            if item >= items:
                break
            call_job(function, item, arguments)
        atomic_add(state + GENERATION, 1)
        looks = 0
        while atomic_load(state + ACTIVE) != 0:
            pause()
            looks += 1
            if looks % LOOKS_BEFORE_YIELD == 0 and let_others_run != 0:
                call_without_arguments(let_others_run)


@compiled(INT, INT, INT, INT, INT, result=INT)
def _run_if_awake(state: Any, program: Any, jobs: Any, helpers: Any, let_others_run: Any) -> Any:
    """Call the threads and run jobs in order; returns 0, and runs nothing, if a thread must be woken first.

    Then the call remains open.
    """
    atomic_store(state + CALLS, 1)
    if helpers > FLAGS:
        return 0
    for number in range(helpers):
        if atomic_load(state + ASLEEP + 8 * number) != 0:
            return 0
    _run(state, program, jobs, helpers, let_others_run)
    atomic_store(state + CALLS, 0)
    return 1


@compiled(INT, INT, INT, INT)
def _serve(state: Any, number: Any, most: Any, let_others_run: Any) -> None:
    """Take part in jobs until there was neither a job nor a call for ``most`` looks, or the pool has stopped."""
    looks, seen = 0, -1
    while looks < most and atomic_load(state + STOPPED) == 0:
        generation = atomic_load(state + GENERATION)
        if generation % 2 != 0 or generation == seen or number >= atomic_load(state + HELPERS):
            pause()
            looks += 1
            if looks == LOOKS_BEFORE_YIELD and atomic_load(state + CALLS) != 0:
                looks = 0
                if let_others_run != 0:
                    call_without_arguments(let_others_run)
            continue
        atomic_add(state + ACTIVE, 1)
        if atomic_load(state + GENERATION) == generation:
            function, items = atomic_load(state + FUNCTION), atomic_load(state + ITEMS)
            arguments = atomic_load(state + ARGUMENTS)
            while True:
                item = atomic_add(state + NEXT, 1)
                if item >= items:
                    break
                call_job(function, item, arguments)
            seen, looks = generation, 0
        atomic_add(state + ACTIVE, -1)


@compiled(INT, result=INT)
def _read(address: Any) -> Any:
    return atomic_load(address)


@compiled(INT, INT)
def _write(address: Any, value: Any) -> None:
    atomic_store(address, value)


class _Helper:
    """A thread of the pool, which sleeps when there has been no job for a while."""

    def __init__(self, number: int, state: int, memory: Any, let_others_run: int) -> None:
        self._arguments, self._state, self._memory = (state, number, LOOKS, let_others_run), state, memory
        # A token too many wakes the thread for nothing, once.
        self._tokens: SimpleQueue[None] = SimpleQueue()
        # Threads beyond the flags have a word of their own.
        self._own = np.zeros(1, np.int64)
        self._asleep = state + ASLEEP + 8 * number if number < FLAGS else address_of(self._own)
        self.thread = threading.Thread(target=self._work, name="xpnn compiled worker", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        stopped, calls = self._state + STOPPED, self._state + CALLS
        while not _read(stopped):
            _serve(*self._arguments)
            _write(self._asleep, 1)
            if _read(stopped) or _read(calls):
                _write(self._asleep, 0)
            else:
                self._tokens.get()

    @property
    def _is_asleep(self) -> bool:
        return bool(_read(self._asleep))

    def wake(self) -> None:
        """Let it look for jobs again."""
        if self._is_asleep:
            _write(self._asleep, 0)
            self._tokens.put(None)


class Pool:
    """Threads that take part in jobs; one set for the process."""

    def __init__(self) -> None:
        self._let_others_run = address_of_yield()
        self._reset()

    def _reset(self) -> None:
        self._busy = threading.Lock()
        self._memory = np.zeros(STATE_BYTES + 128, np.uint8)
        self._state = -(-address_of(self._memory) // 128) * 128
        # Odd: no job is open.
        _write(self._state + GENERATION, 1)
        self._helpers: list[_Helper] = []

    def run(self, bound: Bound) -> None:
        """Run the jobs in order, the items of each on several threads."""
        self.run_program(bound.address, len(bound.rows), bound.is_shared)

    def run_program(self, program: int, jobs: int, is_shared: bool) -> None:
        """Run the jobs of the program at an address in order, the items of each on several threads if it is shared."""
        helpers = thread_count() - 1 if is_shared else 0
        if helpers < 1 or not self._busy.acquire(blocking=False):
            _run(0, program, jobs, 0, 0)
            return
        try:
            if len(self._helpers) >= helpers and _run_if_awake(
                self._state, program, jobs, helpers, self._let_others_run
            ):
                return
            calls = self._state + CALLS
            try:
                _write(calls, 1)
                _run(self._state, program, jobs, self._awake(helpers), self._let_others_run)
            finally:
                _write(calls, 0)
        finally:
            self._busy.release()

    def _awake(self, count: int) -> int:
        """Start or wake threads; returns how many of ``count`` there are."""
        try:
            while len(self._helpers) < count:
                self._helpers.append(_Helper(len(self._helpers), self._state, self._memory, self._let_others_run))
        except RuntimeError:
            # The system has no more threads, or the program is ending.
            count = len(self._helpers)
        for helper in self._helpers[:count]:
            helper.wake()
        return count

    def stop(self) -> None:
        """End all threads: at the end of the process, before compiled code is freed."""
        with self._busy:
            _write(self._state + STOPPED, 1)
            for helper in self._helpers:
                helper.wake()
            for helper in self._helpers:
                helper.thread.join(1.0)
            self._reset()

    def after_fork(self) -> None:
        """Reset: a child process has none of the threads."""
        self._reset()


pool = Pool()
atexit.register(pool.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.after_fork)


def perform(bound: Bound) -> None:
    """Run bound jobs, in order."""
    _perform(bound)
    if current() is not None:
        record(RecordedProgram(bound))


def _perform(bound: Bound) -> None:
    if bound.uses_blas and not setup_once.entered:
        with one_blas_thread:
            pool.run(bound)
    else:
        pool.run(bound)


def run_program(program: int, jobs: int, is_shared: bool, uses_blas: bool) -> None:
    """Run the jobs of the program at an address, in order; see `Bound` for what the rest means."""
    if uses_blas and not setup_once.entered:
        with one_blas_thread:
            pool.run_program(program, jobs, is_shared)
    else:
        pool.run_program(program, jobs, is_shared)


class RecordedProgram:
    """The call of a recording that runs bound jobs.

    Until it is made, the bound jobs hold the recording's arrays, whose memory is not used for others as long.
    """

    def __init__(self, bound: Bound) -> None:
        bound.keep = unwrapped(bound.keep)
        self.bound = bound

    @property
    def signature(self) -> Any:
        """What must be the same whenever the step is run."""
        return self.bound.signature

    @property
    def needs_no_settings(self) -> bool:
        """Whether the matrix library is left alone."""
        return not self.bound.uses_blas

    def __call__(self) -> None:
        """Run them."""
        _perform(self.bound)

    def merged(self, following: Any) -> "RecordedProgram | None":
        """One call for this and the following one, if that runs bound jobs too."""
        if not isinstance(following, RecordedProgram):
            return None
        return RecordedProgram(Bound.join([self.bound, following.bound]))
