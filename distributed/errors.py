"""The error of a rank that can't go on because of another one."""


class RanksDiffer(ValueError):
    """The ranks were started with different programs, data or settings; all of them raise this."""


class RankError(RuntimeError):
    """Another rank died, hangs, raised an error or computes something else; the message names it.

    Attributes
    ----------
    rank : int or None
        The rank at fault; None if it is not known which one is.
    """

    def __init__(self, rank: int | None, text: str) -> None:
        super().__init__(text)
        self.rank = rank

    def __reduce__(self) -> tuple[type["RankError"], tuple[int | None, str]]:
        return type(self), (self.rank, str(self))
