"""How every command and script ends: with a status, and in one line where the program itself is not at fault.

====== ===============================================================================================================
status meaning
====== ===============================================================================================================
0      done
1      what was checked is not as it should be, or the work failed on the way: a full disk, memory, NaN, a reader that
       is gone; also a fault of the program itself, which shows its traceback
2      a mistake in the call, or in what it names; nothing was written
130    Ctrl-C (SIGINT)
143    SIGTERM
====== ===============================================================================================================

``XPNN_TRACEBACK=1`` shows the traceback of every error.
"""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..backends import BackendUnavailable, environment
from ..training.interrupt import Stopped
from . import streams
from .errors import Failure, UsageError, told


def program(name: str, run: Callable[[], object]) -> int:
    """Run a program of that name; returns its exit status, or raises `SystemExit` where ``run`` does."""
    streams.prepare()
    try:
        with _terminated():
            status = _run(name, run)
    finally:
        streams.silence()
    return status


def _run(name: str, run: Callable[[], object]) -> int:
    try:
        run()
        sys.stdout.flush()
    except Failure as error:
        _trace(error)
        return 1
    except UsageError as error:
        return _end(name, error, str(error), 2)
    except BrokenPipeError as error:
        # Whoever read what is printed has seen enough.
        _trace(error)
        return 1
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        return _end(name, error, str(error) or Stopped.words(number), 128 + number)
    except Warning as error:
        return _end(name, error, f"{type(error).__name__}: {error} (warnings are errors, by PYTHONWARNINGS or -W)", 1)
    except (OSError, MemoryError, BackendUnavailable) as error:
        return _end(name, error, told(error), 1)
    return 0


def _end(name: str, error: BaseException, text: str, status: int) -> int:
    _trace(error)
    streams.tell(f"{name}: {' '.join(text.split())}")
    return status


def _trace(error: BaseException) -> None:
    """Show where an error comes from, if the person wants to see it."""
    with suppress(ValueError):
        if environment.switch(environment.TRACEBACK, unset=False):
            traceback.print_exception(error)


@contextmanager
def _terminated() -> Iterator[None]:
    """Within the ``with`` block SIGTERM raises `Stopped`, so that files are closed and nothing is left half written."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(Stopped.words(number), number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
