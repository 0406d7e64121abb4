"""The table that jobs of optimizer steps read: one row of addresses for each parameter."""

from typing import Any

from .compiler import helper
from .jobs import NUMBER, read, write
from .vectors import vector_at

# Columns of the table: addresses of the value, of up to three arrays of state, of the gradient and of two counters.
VALUE, STATE, GRADIENT, COUNTER = 0, 1, 4, 5
STATES, COUNTERS, NUMBERS, COLUMNS = 3, 2, 4, 7

#: The arguments of all jobs: pieces ``(parameter, first entry, size)``, the first piece of each item, the table, the
#: rule's settings, numbers of each parameter, and any number of the dtype.
KINDS = (read(2, "int64"), read(1, "int64"), read(2, "int64"), read(1, "float64"), write(2, "float64"), NUMBER)


@helper
def arrays_at(table: Any, row: Any, first: Any, size: Any, zero: Any) -> Any:
    """A piece of a parameter: value, gradient, and the first two arrays of state, of which a rule may have fewer."""
    return (
        vector_at(table[row, VALUE], first, size, zero),
        vector_at(table[row, GRADIENT], first, size, zero),
        vector_at(table[row, STATE], first, size, zero),
        vector_at(table[row, STATE + 1], first, size, zero),
    )
