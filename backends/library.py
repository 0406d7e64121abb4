"""What a backend says about its array library and device.

A new backend must define the abstract methods. The others have defaults for a library that computes on the CPU.
"""

import importlib
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..common.host_memory import host_capacity, host_memory, reset_host_peak
from ..common.types import Array, Device, Namespace
from .memory_order import axes_in_memory
from .narrow import ROUNDOFF, NarrowFormat
from .operations import Operations

# For a device that needs no context.
NO_CONTEXT = nullcontext()


class ArrayLibrary(ABC):
    """An array library on one of its devices.

    Attributes
    ----------
    spec : str
        Canonical name of the backend.
    xp : namespace
    device : device
    """

    spec: str
    xp: Namespace
    device: Device
    precision: str
    algorithms: str

    #: What layers need of this library beyond the functions of the standard.
    operations: ClassVar[type[Operations]] = Operations
    #: Root module of the array library; "" if it is the backend's name.
    library: ClassVar[str] = ""
    #: What to try if the library is installed and does not work.
    cure: ClassVar[str] = "install it again, or use another backend"

    @classmethod
    @abstractmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        """Load the library and open the device; returns the canonical spec, the namespace and the device.

        Raises `BackendUnavailable` with cause and cure if that fails.
        """

    def import_dlpack(self, array: Any) -> Array:
        """An array of this library with the memory of another library's, by its ``from_dlpack``."""
        root = importlib.import_module(self.library or self.spec.partition(":")[0])
        return root.from_dlpack(array)

    @classmethod
    def namespace(cls, namespace: Namespace, precision: str = "float32") -> Namespace:
        """The namespace that this backend computes with, for the one of its library's arrays."""
        return namespace

    @classmethod
    def narrow_format(cls, name: str) -> NarrowFormat | None:
        """Conversion to the 16-bit floats of that name and back; None for a library without mixed precision."""
        return None

    @cached_property
    def narrow(self) -> NarrowFormat | None:
        """The 16-bit floats of mixed precision, None in others; a layer's saved arrays and factors are rounded to it.

        ``b.narrow.rounded(x)`` rounds a factor of a product of your own.
        """
        return self.narrow_format(self.precision) if self.precision in ROUNDOFF else None

    @cached_property
    def product_xp(self) -> Namespace:
        """The namespace for products of factors that are rounded to `narrow`, which may multiply them as 16 bits."""
        return self.xp

    @cached_property
    def product_algorithms(self) -> str:
        """`algorithms`; ``"direct"`` in mixed precision, because others would round sums of factors."""
        return "direct" if self.precision in ROUNDOFF else self.algorithms

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Version of the library behind this backend."""

    @classmethod
    @abstractmethod
    def spec_of(cls, array: Array) -> str:
        """The spec of the backend of an array of this library."""

    @classmethod
    def is_plain(cls, kind: type) -> bool:
        """Whether a class of arrays has the library's own operators; a subclass may have others."""
        return True

    @classmethod
    def is_dense(cls, array: Array) -> bool:
        """Whether an array of this library stores all of its entries."""
        return True

    @classmethod
    def memory_of(cls, array: Array) -> Any:
        """An object that is the same for arrays that share memory, and that lives as long as one of them."""
        while hasattr(base := getattr(array, "base", None), "dtype"):
            array = base
        return array

    @classmethod
    def is_sole_array(cls, array: Array) -> bool:
        """Whether nothing but this array object gives access to its memory: no view or buffer, no weak reference.

        Then only who has a reference to the object can write into the array. False for a library that can't tell.
        """
        return False

    @property
    def is_host(self) -> bool:
        """Whether the device is the CPU, so that reading a value on the host is free."""
        return True

    def has(self, dtype: str) -> bool:
        """Whether the device computes with a dtype of that name."""
        return hasattr(self.xp, dtype)

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """Whether an array is of this library and on this device."""

    @abstractmethod
    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        """Copy a host array to the device, its axes in the same order in memory."""

    @abstractmethod
    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy an array of the device to the host, its axes in the same order in memory."""

    def _strides(self, array: Array) -> tuple[int, ...]:
        """The distance in memory from an entry to the next along each axis, in any unit."""
        return tuple(array.strides)

    def memory_order(self, array: Array) -> tuple[int, ...]:
        """Its axes from the longest stride in memory to the shortest.

        `Backend.asarray` and `Backend.to_numpy` keep this order.
        """
        return axes_in_memory(self._strides(array))

    def plain(self, array: Array) -> Array:
        """The array without a file or an autograd graph of its library (`xpnn.backends.without_autograd`)."""
        return array

    def accepts_directly(self, array: Any) -> bool:
        """Whether it is known at once that layers can compute with an array as it is.

        That is an array of this backend and its dtype, if numerics are fast and no context is needed. A layer checks
        and converts any other array.
        """
        return False

    def context(self) -> AbstractContextManager[None]:
        """The context for work on this device, which layers enter."""
        return NO_CONTEXT

    def unwarned(self) -> AbstractContextManager[None]:
        """A context without NumPy's warnings of overflow and NaN, for code that checks for these itself."""
        return np.errstate(divide="ignore", over="ignore", invalid="ignore") if self.is_host else NO_CONTEXT

    def synchronize(self) -> None:  # noqa: B027 - a CPU has nothing to wait for
        """Wait until the device has done all work that was queued."""

    def memory(self, limit: int | None = None) -> dict[str, int]:
        """Bytes: ``in_use`` now, ``peak`` since the start or `reset_peak`, ``pool`` with what is kept for reuse.

        On a CPU they are those of the whole process, loaded libraries included. ``limit`` sets the largest size of the
        device's pool, if it has one.
        """
        if limit is not None:
            raise ValueError(f"backend {self.spec!r} has no memory pool to limit")
        return host_memory()

    def reset_peak(self) -> bool:
        """Start a new ``peak`` for `memory`; False if the system keeps the old one.

        On a CPU the peak is that of the whole process, and only Linux can start a new one.
        """
        return reset_host_peak()

    def capacity(self) -> tuple[int, int]:
        """Bytes of memory of this device, and bytes in use by all processes; zeros if the system does not report them.

        On a CPU it is the machine's memory, or what this process may address (``ulimit -v``) if that is less.
        """
        return host_capacity()

    def free_memory(self) -> None:  # noqa: B027 - a CPU's allocator keeps little
        """Return memory to the device that the library keeps for reuse and no array uses."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error of the library says that there is too little memory for an array."""
        return isinstance(error, MemoryError)

    def notes(self) -> str:
        """One line about settings that change results or speed, for `xpnn info`."""
        return ""
