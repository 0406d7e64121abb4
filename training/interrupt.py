"""Ctrl-C or SIGTERM (of a batch system) as a flag that a training loop reads between two steps."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal, ``number``, has asked the program to stop."""

    def __init__(self, text: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number

    @staticmethod
    def words(number: int) -> str:
        """``interrupted``, or ``stopped by SIGTERM``."""
        return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


class Interrupted(Stopped):
    """Training has stopped on request, after it saved its state; the message says where."""


class Interrupt:
    """Context manager in which the first signal sets ``asked`` and the second one interrupts at once.

    Signals that this process ignores, as in the background of a shell, stay ignored. In other threads than the main
    one, where Python handles no signals, nothing is changed.

    Attributes
    ----------
    asked : bool
        Whether a signal was received.
    number : int
        The first signal that was received.
    """

    def __init__(self) -> None:
        self.asked = False
        self.number: int = signal.SIGINT
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, raised: BaseException | None, traceback: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        if isinstance(raised, Interrupted):
            raised.number = self.number

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise Stopped(f"{Stopped.words(number)} before the step was saved", number)
        self.asked, self.number = True, number
