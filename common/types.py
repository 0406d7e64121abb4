"""Names for what the standard leaves to each library.

An array, its namespace, its device and its dtype have no common Python type, so they are `Any` to a
type checker; the names say which is meant.
"""

from functools import lru_cache
from typing import Any, TypeAlias

Array: TypeAlias = Any
Namespace: TypeAlias = Any
Device: TypeAlias = Any
DType: TypeAlias = Any


# Typed, because some libraries' dtypes compare with others' as they please.
@lru_cache(maxsize=256, typed=True)
def dtype_name(dtype: DType) -> str:
    """The standard's name of a dtype of any library: ``"float32"``, ``"int64"``, ``"bool"``."""
    name = getattr(dtype, "__name__", None) or str(dtype)
    name = name.rpartition(".")[2]
    return "bool" if name == "bool_" else name
