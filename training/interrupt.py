"""Ctrl-C and SIGTERM (sent by a batch system) as a flag that the training loop reads between two steps."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The program was stopped by the signal ``number``."""

    def __init__(self, text: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number

    @staticmethod
    def words(number: int) -> str:
        """``interrupted``, or ``stopped by SIGTERM``."""
        return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


class Interrupted(Stopped):
    """Training was stopped by a signal and saved its state first; the message says where."""


class Interrupt:
    """Context manager in which the first signal sets ``received`` and the second raises `Stopped` immediately.

    Signals that this process ignores, as in the background of a shell, stay ignored. Nothing is changed outside the
    main thread, because Python handles signals only there.

    Attributes
    ----------
    received : bool
        Whether a signal was received.
    number : int
        The first signal that was received.
    """

    def __init__(self) -> None:
        self.received = False
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
        if self.received:
            raise Stopped(f"{Stopped.words(number)} before the step was saved", number)
        self.received, self.number = True, number
