"""The error for a backend that is known but can't compute on this machine."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


class BackendUnavailable(RuntimeError):
    """The requested backend does not work on this machine.

    Attributes
    ----------
    backend : str
        Its name, such as ``"cupy:0"``.
    cause : str
        Why it does not work: no package, no driver, driver too old, no device.
    cure : str
        What to do, as a command if possible.
    """

    def __init__(self, backend: str, cause: str, cure: str) -> None:
        super().__init__(backend, cause, cure)
        self.backend = backend
        self.cause = cause
        self.cure = cure

    def __str__(self) -> str:
        return f"backend {self.backend!r} can't be used here: {self.cause}; {self.cure}"
