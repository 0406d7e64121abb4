"""The error for a part of a model that a conversion has nothing for."""


class Unsupported(ValueError):
    """A layer, module or operator without a counterpart, or a value of one of its arguments.

    A conversion collects these, and raises one error with all of them and their places.
    """
