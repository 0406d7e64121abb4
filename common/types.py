"""Type names for the objects of array libraries, and the names of dtypes.

Arrays, namespaces, devices and dtypes of different libraries have no common Python type, so all of them are `Any` for a
type checker; the aliases only document which is meant.
"""

from functools import lru_cache
from typing import Any, TypeAlias

Array: TypeAlias = Any
Namespace: TypeAlias = Any
Device: TypeAlias = Any
DType: TypeAlias = Any


# Typed, because dtypes of different libraries may compare equal.
@lru_cache(maxsize=256, typed=True)
def dtype_name(dtype: DType) -> str:
    """The Array API standard's name of a dtype of any library: ``"float32"``, ``"int64"``, ``"bool"``."""
    name = getattr(dtype, "__name__", None) or str(dtype)
    name = name.rpartition(".")[2]
    return "bool" if name == "bool_" else name


def is_integer_dtype(dtype: DType) -> bool:
    """Whether a dtype of any library holds integers, signed or unsigned; booleans are not integers."""
    return dtype_name(dtype).startswith(("int", "uint"))
