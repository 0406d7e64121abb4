"""The array object of the chaos namespace: a class of its own, whose operators are the namespace's functions."""

import numpy as np

#: The kinds of dtype that a Python number goes with.
TAKEN = {bool: "b", int: "if", float: "f"}


def arrays_in(values):
    """The NumPy arrays among values and lists of values."""
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, list | tuple):
            yield from arrays_in(value)


def agree(name, arrays, operands):
    """Raise for operands that the standard does not promote: integers with floats, booleans with numbers, and so on."""
    arrays = list(arrays)
    kinds = [x.dtype.kind.replace("u", "i") for x in arrays]
    if len(set(kinds)) > 1 or (arrays and np.result_type(*arrays).kind.replace("u", "i") != kinds[0]):
        raise TypeError(f"{name} of {', '.join(map(str, (x.dtype for x in arrays)))}: the standard has no common dtype")
    for value in operands:
        if isinstance(value, bool | int | float) and kinds and kinds[0] not in TAKEN[type(value)]:
            raise TypeError(f"{name} of {arrays[0].dtype} and a Python {type(value).__name__}")


class ChaosArray:
    """An array of a `Chaos` namespace: the standard's array object around a NumPy array."""

    __slots__ = ("_data", "_xp")
    __hash__ = None
    __iter__ = None
    device = "cpu"

    def __init__(self, xp, data):
        self._xp, self._data = xp, data

    def __array_namespace__(self, *, api_version=None):
        return self._xp

    def __array__(self, dtype=None, copy=None):
        raise TypeError("an array of chaos does not turn into a NumPy array unasked; use backend.to_numpy")

    def __getitem__(self, key):
        return self._xp._wrap(self._xp._view_or_copy(np.asarray(self._data[self._key(key)])))

    def __setitem__(self, key, value):
        value = self._xp._unwrap(value)
        agree("assignment", (x for x in (self._data, value) if isinstance(x, np.ndarray)), (value,))
        self._data[self._key(key)] = value

    def _key(self, key):
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, int | slice | ChaosArray | type(None) | type(...)) for part in parts):
            raise IndexError(f"an index is made of integers, slices, None, ... and arrays, got {key!r}")
        mask = len(parts) == 1 and getattr(key, "dtype", None) == np.bool_
        given = sum(part is not None for part in parts)
        if given < self.ndim and not mask and not any(part is ... for part in parts):
            raise IndexError(f"the standard wants an index for each of {self.ndim} axes, or ..., got {key!r}")
        return self._xp._unwrap(key)

    dtype = property(lambda self: self._data.dtype)
    shape = property(lambda self: self._data.shape)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    mT = property(lambda self: self._xp.matrix_transpose(self))  # noqa: N815 - the standard's name

    @property
    def T(self):  # noqa: N802 - the standard's name
        if self.ndim != 2:
            raise ValueError(f"T is for 2 axes, got {self.ndim}")
        return self.mT

    def to_device(self, device, /, *, stream=None):
        if device != self.device:
            raise ValueError(f"chaos has one device, {self.device!r}, got {device!r}")
        return self

    def _scalar(self, kind):
        if self.ndim:
            raise TypeError(f"only a 0-d array is a Python number, got shape {self.shape}")
        return kind(self._data[()])

    def __bool__(self):
        return self._scalar(bool)

    def __int__(self):
        return self._scalar(int)

    def __float__(self):
        return self._scalar(float)

    def __index__(self):
        return self._scalar(lambda value: value.__index__())

    def __repr__(self):
        return f"ChaosArray({self._data!r})"


def add_operators():
    """Python's operators, as the functions of the standard that they stand for."""
    binary = {
        "add": "add",
        "sub": "subtract",
        "mul": "multiply",
        "truediv": "divide",
        "floordiv": "floor_divide",
        "mod": "remainder",
        "pow": "pow",
        "matmul": "matmul",
        "and": "bitwise_and",
        "or": "bitwise_or",
        "xor": "bitwise_xor",
        "lshift": "bitwise_left_shift",
        "rshift": "bitwise_right_shift",
    }

    def operator(name, reflected=False, in_place=False):
        def compute(self, other):
            if not isinstance(other, ChaosArray | bool | int | float):
                raise TypeError(f"{name} of an array of chaos and {type(other).__name__}")
            result = getattr(self._xp, name)(*((other, self) if reflected else (self, other)))
            if not in_place:
                return result
            if (result.shape, result.dtype) != (self.shape, self.dtype):
                raise TypeError(f"{name} in place: {self.dtype} {self.shape} would be {result.dtype} {result.shape}")
            self._data[...] = result._data
            return self

        return compute

    for python, name in binary.items():
        setattr(ChaosArray, f"__{python}__", operator(name))
        setattr(ChaosArray, f"__r{python}__", operator(name, reflected=True))
        setattr(ChaosArray, f"__i{python}__", operator(name, in_place=True))
    comparisons = {
        "eq": "equal",
        "ne": "not_equal",
        "lt": "less",
        "le": "less_equal",
        "gt": "greater",
        "ge": "greater_equal",
    }
    for python, name in comparisons.items():
        setattr(ChaosArray, f"__{python}__", operator(name))
    unary = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "bitwise_invert"}
    for python, name in unary.items():
        setattr(ChaosArray, f"__{python}__", lambda self, name=name: getattr(self._xp, name)(self))


add_operators()
