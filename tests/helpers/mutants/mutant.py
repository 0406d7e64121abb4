"""A mistake to plant in the library."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from planting import plant


@dataclass(frozen=True)
class Mutant:
    """A change of syntax in a named function, and the cases of the parity catalogue that must notice it.

    Attributes
    ----------
    words : str
        What is wrong with it.
    where : str
        Package and qualified name of the function, method, class or constant: ``"layers.pool:avg_pool"``.
    old, new : str
        Code in it and its replacement, as for `planting.plant`: names of variables don't matter.
    cases : str
        A regular expression matched at the start of the cases' names.
    dtype : str
        Of the cases; float64 shows a wrong digit that float32 is too coarse for.
    also : tuple of (where, old, new)
        Further changes that belong to the mistake.
    """

    words: str
    where: str
    old: str
    new: str
    cases: str
    dtype: str = "float32"
    also: tuple[tuple[str, str, str], ...] = ()

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Within the ``with`` block the library has the mistake."""
        with ExitStack() as stack:
            for where, old, new in ((self.where, self.old, self.new), *self.also):
                package, _, name = where.partition(":")
                stack.enter_context(plant(package, name, old, new))
            yield
