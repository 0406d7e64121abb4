"""The one error of this floor: a backend that is known but can't compute here."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


class BackendUnavailable(RuntimeError):
    """A backend was asked for that does not work on this machine.

    Attributes
    ----------
    backend : str
        The name that was asked for, such as ``"cupy:0"``.
    cause : str
        Why it does not work, in words: no package, no driver, driver too old, no device.
    cure : str
        What to do about it, a command where there is one.
    """

    def __init__(self, backend: str, cause: str, cure: str) -> None:
        super().__init__(backend, cause, cure)
        self.backend = backend
        self.cause = cause
        self.cure = cure

    def __str__(self) -> str:
        return f"backend {self.backend!r} can't be used here: {self.cause}; {self.cure}"
