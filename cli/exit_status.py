"""How every command and script ends: with an exit status, and with one line where the program itself is not at fault.

====== ===============================================================================================================
status meaning
====== ===============================================================================================================
0      done
1      what was checked is wrong, or the work failed half-way: the disk is full, memory ran out, the loss is NaN, the
       reader of a pipe is gone; also a fault of the program itself, which shows its traceback
2      a mistake in the call, or in what it names; nothing was written
3      nothing failed, but not everything that was requested could be run or measured
130    Ctrl-C (SIGINT)
143    SIGTERM
====== ===============================================================================================================

``XPNN_TRACEBACK=1`` shows the traceback of every error.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..backends import BackendUnavailable
from ..common import environment
from ..training.checkpoint_file import CheckpointError
from ..training.nan_check import NonFiniteError
from .errors import Failure, UsageError, one_line
from .standalone import process


def program(name: str, run: Callable[[], object]) -> int:
    """Run a program of that name; returns its exit status, or raises `SystemExit` where ``run`` does."""
    process.prepare()
    try:
        with process.terminated():
            status = _run(name, run)
    finally:
        process.silence()
    return status


# What ends a program in one line: a mistake in the call, errors of the system, and errors that training explains.
FAULTS = (UsageError, OSError, MemoryError, BackendUnavailable, CheckpointError, NonFiniteError)


class Ended(SystemExit):
    """The program ends with this status and has printed why."""


@contextmanager
def reported(name: str) -> Iterator[None]:
    """Within the ``with`` block an error that is not the program's fault is printed in one line and raises `Ended`."""
    try:
        yield
    except Failure as error:
        _trace(error)
        raise Ended(error.status) from error
    except BrokenPipeError:
        raise
    except FAULTS as error:
        raise Ended(_end(name, error, one_line(error), 2 if isinstance(error, UsageError) else 1)) from error
    except Warning as error:
        text = f"{type(error).__name__}: {error} (warnings are errors, by PYTHONWARNINGS or -W)"
        raise Ended(_end(name, error, text, 1)) from error


def _run(name: str, run: Callable[[], object]) -> int:
    found: object = None
    try:
        try:
            with reported(name):
                found = run()
        finally:
            # Printed text may still be in the buffer; that the disk has no space for it is reported too.
            with reported(name):
                sys.stdout.flush()
    except BrokenPipeError as error:
        # The reader of the pipe wants no more.
        _trace(error)
        return 1
    except Ended as error:
        return int(str(error))
    except KeyboardInterrupt as error:
        return _end(name, error, str(error) or "interrupted", process.status_of(error))
    return found if isinstance(found, int) else 0


def _end(name: str, error: BaseException, text: str, status: int) -> int:
    _trace(error)
    process.print_error(f"{name}: {' '.join(text.split())}")
    return status


def _trace(error: BaseException) -> None:
    """Print the traceback of an error if ``XPNN_TRACEBACK`` requests it."""
    with suppress(ValueError):
        if environment.switch(environment.TRACEBACK, unset=False):
            traceback.print_exception(error)
