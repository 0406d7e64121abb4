"""Being asked to stop: Ctrl-C, or a batch system's SIGTERM, becomes a wish that a loop grants between two steps."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop; ``number`` is which."""

    def __init__(self, text: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number

    @staticmethod
    def words(number: int) -> str:
        """What happened, for the person who reads it."""
        return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


class Interrupted(Stopped):
    """Training was asked to stop and has saved what it did; the message says where."""


class Interrupt:
    """While it is entered, the first signal is noted and the second one interrupts at once.

    Signals that this process was told to ignore, as in the background of a shell, stay ignored. Outside the main
    thread, where Python handles no signals, nothing is changed.

    Attributes
    ----------
    asked : bool
        Whether a signal came.
    number : int
        The first signal that came.
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
