"""The Backend value: who computes.

A backend is a namespace, a device, a default dtype and a kind of numerics, bound together once and then
passed by value; nothing here is global, so two models on two backends live in one process. All array work
of the library goes through ``backend.xp``. Data crosses between host and device at two doors only,
`Backend.asarray` and `Backend.to_numpy`, and both count: a test can prove that a training step copies its
batch in and nothing out. On a CPU the doors cost nothing and count all the same, which is what lets a
machine without a GPU prove it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import numpy as np

from ..common.checks import alternatives, shown
from ..common.host_memory import host_capacity, host_memory, reset_host_peak
from ..common.types import Array, Device, DType, Namespace, dtype_name
from . import origins
from .errors import BackendUnavailable, first_line
from .inputs import describe, host_data
from .memory_order import axes_in_memory
from .operations import Operations
from .recording.guards import require_repeatable
from .upload import Uploader

P = ParamSpec("P")
R = TypeVar("R")

FLOATS = ("float32", "float64")
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", *FLOATS)
NUMERICS = ("fast", "exact")
PRODUCTS = (2, 3)
# Smallest magnitude that exact numerics stores.
SMALLEST = 2.0**-125
# The context of a device that needs none.
NOWHERE_ELSE = nullcontext()
PRECISIONS = ("float32", "tf32", "direct")


@dataclass
class Ledger:
    """Calls and bytes through the doors of one backend, counted since it was made."""

    to_device: tuple[int, int] = (0, 0)
    to_host: tuple[int, int] = (0, 0)

    def count(self, door: str, nbytes: int) -> None:
        """Note one call through a door."""
        calls, total = getattr(self, door)
        setattr(self, door, (calls + 1, total + nbytes))


@dataclass(frozen=True)
class Backend(ABC):
    """A namespace on a device, with a default dtype and numerics. Made by `get_backend`.

    Attributes
    ----------
    spec : str
        Canonical name, which gives this backend back from `get_backend`: ``"numpy"``, ``"cupy:0"``.
    dtype_name : str
        Name of the default floating dtype, ``"float32"`` or ``"float64"``.
    numerics : str
        ``"fast"``: each library's own kernels. ``"exact"``: float64 within a layer, float32 between layers, and the
        same bits on every backend.
    precision : str
        ``"float32"``; ``"tf32"`` where a GPU may round the factors of matrix products to 10 bits; ``"direct"`` for
        convolutions that are sums of products and nothing else.
    products : int
        In exact numerics the number of float64 products behind a contraction: 2, or 3 for more accuracy.
    xp : namespace
        The Array API namespace; the only one that layers call.
    device : device
        Where every array that this backend makes lives.
    """

    spec: str
    dtype_name: str = "float32"
    numerics: str = "fast"
    precision: str = "float32"
    products: int = 2
    xp: Namespace = field(compare=False, repr=False, default=None)
    device: Device = field(compare=False, repr=False, default=None)
    ledger: Ledger = field(compare=False, repr=False, default_factory=Ledger)

    #: What layers need of this library beyond the functions of the standard.
    operations: ClassVar[type[Operations]] = Operations
    #: Root module of the array library; "" where it is the backend's own name.
    library: ClassVar[str] = ""
    #: What to try where the library is there and does not work.
    cure: ClassVar[str] = "install it again, or use another backend"
    #: What makes a backend from its settings, for copies and pickles; the registry, which is above, puts it here.
    reopen: ClassVar[Callable[..., "Backend"]]

    @property
    def is_host(self) -> bool:
        """Whether reading a value on the host is free: the device is the CPU."""
        return True

    @classmethod
    @abstractmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        """Load the library and reach the device: canonical spec, namespace, device.

        Raises `BackendUnavailable` with cause and cure where that fails.
        """

    @classmethod
    def namespace(cls, namespace: Namespace, precision: str = "float32") -> Namespace:
        """The namespace that this backend computes with, given that of its library's arrays; here the same."""
        return namespace

    @classmethod
    @abstractmethod
    def spec_of(cls, array: Array) -> str:
        """The spec of the backend that an array of this library lives on."""

    @classmethod
    def is_plain(cls, kind: type) -> bool:
        """Whether a class of this library's arrays has the library's own operators; a subclass may have others."""
        return True

    @classmethod
    def is_dense(cls, array: Array) -> bool:
        """Whether an array of this library has all its entries in memory."""
        return True

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Version of the library behind this backend."""

    @classmethod
    def open(cls, device: str | None, dtype: str, numerics: str, precision: str, products: int = 2) -> Self:
        """Connect, and prove that the device computes: put, add, multiply, read back."""
        spec, namespace, handle = cls.connect(device)
        backend = cls(spec, dtype, numerics, precision, products, cls.namespace(namespace, precision), handle)
        try:
            if numerics == "exact":
                backend = backend._exact()
            backend._probe()
        except BackendUnavailable:
            raise
        except Exception as error:
            # Missing libraries and kernels show only when the first of them is called, as one of many exceptions.
            cause = f"the device is there but does not compute {dtype} ({first_line(error)})"
            raise BackendUnavailable(spec, cause, cls.cure) from error
        backend.ledger.to_device = backend.ledger.to_host = (0, 0)
        return backend

    def _exact(self) -> Self:
        """This backend with the exact namespace, once it is sure that the machine keeps to what that relies on."""
        from .exact.namespace import ExactNamespace
        from .exact.probe import require_exact

        with self.context():
            require_exact(self)
        origins.watch()
        return replace(self, xp=ExactNamespace(self.xp, self.products, self.is_host))

    def _probe(self) -> None:
        ones = self.asarray(np.ones((2, 2), dtype=self.dtype_name))
        with self.context():
            product = self.xp.matmul(ones + ones, ones)
        if self.to_numpy(product).tolist() != [[4.0, 4.0], [4.0, 4.0]]:
            raise ArithmeticError(f"{self.spec} computed a wrong 2x2 product")

    @property
    def dtype(self) -> DType:
        """The default floating dtype, in the namespace's own terms."""
        return getattr(self.xp, self.dtype_name)

    @property
    def transfers(self) -> dict[str, tuple[int, int]]:
        """``{"to_device": (calls, bytes), "to_host": (calls, bytes)}`` since the backend was made."""
        return {"to_device": self.ledger.to_device, "to_host": self.ledger.to_host}

    def asarray(self, host: Any, dtype: DType | str | None = None) -> Array:
        """The door in: host data as an array of this backend.

        Parameters
        ----------
        host : array_like
            A NumPy array (keeps its dtype), or numbers and nested sequences of them (floats get the
            backend's dtype). An array that already lives here is returned without a transfer, in exact numerics
            with its subnormal numbers flushed like any other's.
        dtype : dtype or str, optional
            The dtype to convert to.

        Raises
        ------
        TypeError
            For an array of another library (nothing is copied silently; the message has the call that converts it), for
            what is not numbers, and for subclasses of NumPy's arrays, such as masked arrays and matrices, but for
            `numpy.memmap`.
        """
        if not isinstance(host, np.ndarray | np.generic) and self.owns(host):
            with self.context():
                array = self._flushed(host if dtype is None else self.xp.astype(host, self._own_dtype(dtype)))
            # Integers are not copied, and may be anyone's.
            return self._made(array, whole=array is not host)
        require_repeatable(f"{self.spec}.asarray, a copy from the host")
        array = self.host_array(host, dtype)
        self.ledger.count("to_device", array.nbytes)
        with self.context():
            own = self._put(array)
        if self.numerics == "exact" and own is host:
            # What is remembered of the copy must not count for the caller's array.
            own = host.copy()
        return self._made(own)

    def uploader(self) -> Uploader:
        """What takes batches to the device, one after another; where the device can, while it computes."""
        return Uploader(self)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """The door out: an array of this backend as a NumPy array on the host."""
        if not self.owns(array):
            raise TypeError(f"{self.spec}.to_numpy: the array must be one of {self.spec}, got {describe(array)}")
        require_repeatable(f"{self.spec}.to_numpy, a copy to the host")
        host = self._get(array)
        self.ledger.count("to_host", host.nbytes)
        return host

    def _made(self, array: Array, *, whole: bool = True) -> Array:
        """The array, remembered as one of exact numerics where these are."""
        if self.numerics == "exact":
            origins.made(array, self, origins.INPUT, whole=whole)
        return array

    @classmethod
    def memory_of(cls, array: Array) -> Any:
        """What arrays that share memory have in common: an object that lives as long as one of them."""
        while hasattr(base := getattr(array, "base", None), "dtype"):
            array = base
        return array

    def memory_order(self, array: Array) -> tuple[int, ...]:
        """Its axes from the one with the longest step in memory to the one with the shortest.

        A copy on the host, laid out so, comes back through `asarray` lying as this array does.
        """
        return axes_in_memory(self._steps(array))

    def _steps(self, array: Array) -> tuple[int, ...]:
        """Distance in memory from an entry to the next, along each axis."""
        return tuple(array.strides)

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """Whether an array is of this library and on this device."""

    @abstractmethod
    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        """Copy a host array to the device, its axes in the same order in memory."""

    @abstractmethod
    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy an array of the device to the host, its axes in the same order in memory."""

    def context(self) -> AbstractContextManager[None]:
        """What must be entered for work on this device; layers enter it."""
        return NOWHERE_ELSE

    def unwarned(self) -> AbstractContextManager[None]:
        """What keeps NumPy from warning of overflow and NaN, where it computes, for who looks for these himself."""
        return np.errstate(divide="ignore", over="ignore", invalid="ignore") if self.is_host else NOWHERE_ELSE

    def up(self, array: Array) -> Array:
        """Storage to computing, on the way into a layer: in exact numerics float32 to float64.

        What is below 2**-125, and -0, counts as +0: an array that did not come through `asarray` or out of a layer may
        hold such numbers, which kernels on some devices read as zeros.
        """
        if self.numerics == "fast" or dtype_name(array.dtype) != "float32":
            return array
        return self._widened(array)

    def plain(self, array: Array) -> Array:
        """The array without what its library adds to it: a file, or a graph (`xpnn.backends.without_autograd`)."""
        return array

    def down(self, array: Array) -> Array:
        """Computing to storage, on the way out of a layer: in exact numerics float64 to float32, rounded once.

        What is below 2**-125 becomes +0: some devices flush subnormal numbers and others don't.
        """
        if self.numerics == "fast" or dtype_name(array.dtype) != "float64":
            return array
        return self._narrowed(array)

    def _widened(self, array: Array) -> Array:
        """float32 to float64, as exact numerics reads it."""
        return self.xp.astype(self._flushed(array), self.xp.float64)

    def _narrowed(self, array: Array) -> Array:
        """float64 to float32, as exact numerics stores it."""
        return self._flushed(self.xp.astype(array, self.xp.float32))

    def _flushed(self, array: Array) -> Array:
        """What exact numerics stores of an array: float32 without what is below 2**-125, and without -0."""
        if self.numerics == "fast" or dtype_name(array.dtype) != "float32":
            return array
        return self.xp.where(self.xp.abs(array) < SMALLEST, 0.0, array)

    def require_stored(self, array: Array, what: str) -> None:
        """Raise `TypeError` for floats of a dtype that these numerics do not store."""
        if self.numerics == "exact" and dtype_name(array.dtype) == "float64":
            raise TypeError(
                f"{what} is float64; numerics='exact' stores float32: convert it with asarray(x, 'float32')"
            )

    def synchronize(self) -> None:  # noqa: B027 - a CPU has nothing to wait for
        """Wait until the device has done all that was asked of it."""

    def compile(self, step: Callable[P, R], *owners: Any) -> Callable[P, R]:
        """A training step, made faster where the device can record and replay it; elsewhere the step itself.

        Parameters
        ----------
        step : callable
            Takes and returns arrays of this backend.
        *owners : Layer, Optimizer or Generator
            All that the step changes or adds gradients to, and streams of random numbers that it draws from itself.

        Examples
        --------
        >>> import xpnn as nn
        >>> model = nn.Dense(3, 2)
        >>> optimizer, loss = nn.SGD(model, lr=0.1), nn.CrossEntropy()
        >>> def step(x, y):
        ...     optimizer.zero_grad()
        ...     value = loss(model(x), y)
        ...     model.backward(loss.backward(), input_grad=False)
        ...     optimizer.step()
        ...     return value
        >>> step = model.backend.compile(step, model, optimizer)
        """
        return step

    def memory(self, limit: int | None = None) -> dict[str, int]:
        """Bytes: ``in_use`` now, ``peak`` since the start or `reset_peak`, ``pool`` held for reuse.

        On a CPU they are those of the whole process: the libraries and all that was loaded count. ``limit`` sets the
        most bytes that the device's pool may hold, where there is a pool.
        """
        if limit is not None:
            raise ValueError(f"backend {self.spec!r} has no memory pool to limit")
        return host_memory()

    def reset_peak(self) -> bool:
        """Start a new ``peak`` for `memory`; False where the system keeps the old one.

        On a CPU the peak is that of the whole process, and Linux alone starts a new one.
        """
        return reset_host_peak()

    def capacity(self) -> tuple[int, int]:
        """Bytes of memory that this device has, and those in use, by whomever; zeros where the system does not tell.

        On a CPU it is the machine's memory, or what this process may address (``ulimit -v``) if that is less.
        """
        return host_capacity()

    def free_memory(self) -> None:  # noqa: B027 - a CPU's allocator keeps little
        """Give memory back to the device that the library holds for reuse and no array lies in."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error of the library says that there is no memory left for an array."""
        return isinstance(error, MemoryError)

    def notes(self) -> str:
        """One line about settings that change results or speed, for `xpnn info`."""
        return ""

    def has(self, dtype: str) -> bool:
        """Whether the device computes with a dtype of that name."""
        return hasattr(self.xp, dtype)

    def _own_dtype(self, dtype: DType | str) -> DType:
        name = dtype_name(dtype) if isinstance(dtype, Hashable) else shown(dtype)
        if name not in DTYPES:
            raise TypeError(f"dtype must be {alternatives(DTYPES)}, got {name}")
        if not self.has(name):
            raise TypeError(f"backend {self.spec!r} has no dtype {name}; ask for another one")
        return getattr(self.xp, name)

    def host_array(self, host: Any, dtype: DType | str | None = None) -> np.ndarray[Any, Any]:
        """Host data as `asarray` would copy it: checked, of its dtype, and flushed in exact numerics."""
        array = host_data(host, f"{self.spec}.asarray: the data")
        if dtype is None and not isinstance(host, np.ndarray | np.generic) and array.dtype == np.float64:
            dtype = self.dtype_name
        wanted = array.dtype.name if dtype is None else dtype_name(self._own_dtype(dtype))
        if wanted not in DTYPES:
            raise TypeError(
                f"{self.spec}.asarray: dtype must be {alternatives(DTYPES)}, got {wanted}; convert it with "
                f"asarray(x, 'float32')"
            )
        self._own_dtype(wanted)
        array = array.astype(np.dtype(wanted), copy=False)
        if self.numerics == "exact" and wanted == "float32":
            array = np.where(np.abs(array) < np.float32(SMALLEST), np.float32(0.0), array)
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).reopen, (self.spec, self.dtype_name, self.numerics, self.precision, self.products)
