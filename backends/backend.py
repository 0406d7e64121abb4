"""The `Backend`: a namespace on a device, with a default dtype and a kind of numerics.

A backend is a value: nothing is global, so two models can use two backends in one process. All array work of the
library goes through ``backend.xp``.

Data is transferred by two methods only, `Backend.asarray` to the device and `Backend.to_numpy` to the host. Both count
calls and bytes, on a CPU too, so that a test without a GPU can show that a training step copies its batch to the device
and nothing back.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, ParamSpec, Self, TypeAlias, TypeVar

import numpy as np

from ..common.checks import alternatives, shown
from ..common.types import Array, Device, DType, Namespace, dtype_name
from .dlpack import SharesMemory
from .errors import BackendUnavailable, first_line
from .inputs import describe, host_data
from .origins import INPUT, record_maker, watch
from .recording.guards import require_repeatable
from .recording.traced import is_traced
from .transfers import TransferCounts
from .upload import Uploader

Settings: TypeAlias = tuple[str, str, str, str, int]
P = ParamSpec("P")
R = TypeVar("R")

FLOATS = ("float32", "float64")
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", *FLOATS)
NUMERICS = ("fast", "exact")
SLICE_PRODUCTS = (1, 2, 3)
# Smallest magnitude that exact numerics stores.
SMALLEST_STORED = 2.0**-125
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
ALGORITHMS = ("any", "direct")


@dataclass(frozen=True)
class Backend(SharesMemory):
    """A namespace on a device, with a default dtype and numerics. Made by `get_backend`.

    Attributes
    ----------
    spec : str
        Canonical name, for which `get_backend` returns this backend: ``"numpy"``, ``"cupy:0"``.
    dtype_name : str
        Name of the default floating dtype, ``"float32"`` or ``"float64"``.
    numerics : str
        ``"fast"``: each library's own kernels. ``"exact"``: float64 within a layer, float32 between layers, and the
        same bits on every backend.
    precision : str
        ``"float32"``, or ``"tf32"`` where a GPU may round the factors of matrix products to 10 bits; ``"float16"`` and
        ``"bfloat16"`` for mixed precision (`xpnn.backends.narrow`).
    algorithms : str
        ``"any"``, or ``"direct"`` for convolutions that are sums of products and nothing else, without algorithms whose
        rounding error is larger, such as Winograd's.
    slice_products : {1, 2, 3}
        In exact numerics, the number of float64 matrix products of slices that are added up to one matrix product:
        see `get_backend`.
    xp : namespace
        The Array API namespace, the only one that layers call.
    device : device
        The device of every array that this backend makes.
    """

    spec: str
    dtype_name: str = "float32"
    numerics: str = "fast"
    precision: str = "float32"
    algorithms: str = "any"
    slice_products: int = 2
    xp: Namespace = field(compare=False, repr=False, default=None)
    device: Device = field(compare=False, repr=False, default=None)
    counts: TransferCounts = field(compare=False, repr=False, default_factory=TransferCounts)

    #: Makes a backend from its settings, for copies and pickles. `xpnn.backends.registry` sets it.
    reopen: ClassVar[Callable[..., "Backend"]]

    @property
    def settings(self) -> Settings:
        """Dtype, numerics, precision, algorithms and slice products, in the order of `get_backend`'s arguments."""
        return self.dtype_name, self.numerics, self.precision, self.algorithms, self.slice_products

    @classmethod
    def open(
        cls,
        device: str | None,
        dtype: str,
        numerics: str,
        precision: str,
        algorithms: str = "any",
        slice_products: int = 2,
    ) -> Self:
        """Connect, and test that the device computes: transfer, add, multiply, transfer back."""
        spec, namespace, handle = cls.connect(device)
        settings = (dtype, numerics, precision, algorithms, slice_products)
        backend = cls(spec, *settings, cls.namespace(namespace, precision), handle)
        try:
            if numerics == "exact":
                backend = backend._exact()
            backend._probe()
        except BackendUnavailable:
            raise
        except Exception as error:
            # Missing libraries and kernels raise one of many exceptions, and only when the first is called.
            cause = f"the device was found but does not compute {dtype} ({first_line(error)})"
            raise BackendUnavailable(spec, cause, cls.cure) from error
        backend.counts.to_device = backend.counts.to_host = (0, 0)
        return backend

    def _exact(self) -> Self:
        """This backend with the exact namespace, after a test that the device computes as that requires."""
        from .exact.namespace import ExactNamespace
        from .exact.probe import require_exact

        with self.context():
            require_exact(self)
        watch()
        return replace(self, xp=ExactNamespace(self.xp, self.slice_products, self.is_host))

    def _probe(self) -> None:
        ones = self.asarray(np.ones((2, 2), dtype=self.dtype_name))
        with self.context():
            product = self.product_xp.matmul(ones + ones, ones)
        if self.to_numpy(product).tolist() != [[4.0, 4.0], [4.0, 4.0]]:
            raise ArithmeticError(f"{self.spec} computed a wrong 2x2 product")

    @property
    def dtype(self) -> DType:
        """The default floating dtype of the namespace."""
        return getattr(self.xp, self.dtype_name)

    @property
    def transfers(self) -> dict[str, tuple[int, int]]:
        """``{"to_device": (calls, bytes), "to_host": (calls, bytes)}`` since the backend was made."""
        return {"to_device": self.counts.to_device, "to_host": self.counts.to_host}

    def asarray(self, host: Any, dtype: DType | str | None = None) -> Array:
        """Host data as an array of this backend: a transfer to the device.

        Parameters
        ----------
        host : array_like
            A NumPy array (keeps its dtype), or numbers and nested sequences of them (floats get the backend's dtype).
            An array of this backend is returned without a transfer, in exact numerics with its subnormal numbers
            flushed as in any other array.
        dtype : dtype or str, optional
            The dtype to convert to.

        Raises
        ------
        TypeError
            For an array of another library (nothing is copied silently; the message has the call that converts it), for
            data that are not numbers, and for subclasses of NumPy's arrays, such as masked arrays and matrices, except
            `numpy.memmap`.
        """
        if (not isinstance(host, np.ndarray | np.generic) or is_traced(host)) and self.owns(host):
            with self.context():
                array = self._flushed(host if dtype is None else self.xp.astype(host, self._own_dtype(dtype)))
            # Integers are not copied, so other arrays may share the memory.
            return self._with_origin(array, whole=array is not host)
        require_repeatable(f"{self.spec}.asarray, a copy from the host")
        array = self.host_array(host, dtype)
        self.counts.count("to_device", array.nbytes)
        with self.context():
            own = self._put(array)
        if self.numerics == "exact" and own is host:
            # A copy, so that the record of its origin does not hold for the caller's array.
            own = host.copy()
        return self._with_origin(own)

    def uploader(self) -> Uploader:
        """An object that transfers batches to the device, while it computes if the device can do that."""
        return Uploader(self)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """An array of this backend as a NumPy array: a transfer to the host."""
        if not self.owns(array):
            raise TypeError(f"{self.spec}.to_numpy: the array must be one of {self.spec}, got {describe(array)}")
        require_repeatable(f"{self.spec}.to_numpy, a copy to the host")
        host = self._get(array)
        self.counts.count("to_host", host.nbytes)
        return host

    def _with_origin(self, array: Array, *, whole: bool = True) -> Array:
        """The array, after recording its origin in exact numerics."""
        if self.numerics == "exact":
            record_maker(array, self, INPUT, whole=whole)
        return array

    def up(self, array: Array) -> Array:
        """From the dtype of storage to that of computing, before a layer: in exact numerics float32 to float64.

        Magnitudes below 2**-125, and -0, become +0. An array that was not made by `asarray` or a layer may have such
        numbers, and kernels on some devices read them as zeros.
        """
        if self.numerics == "fast" or dtype_name(array.dtype) != "float32":
            return array
        return self._widened(array)

    def down(self, array: Array) -> Array:
        """From the dtype of computing to that of storage, after a layer: in exact numerics float64 to float32.

        Rounded once. Magnitudes below 2**-125 become +0: some devices flush subnormal numbers and others don't.
        """
        if self.numerics == "fast" or dtype_name(array.dtype) != "float64":
            return array
        return self._narrowed(array)

    def _widened(self, array: Array) -> Array:
        """float32 to float64, as exact numerics reads arrays."""
        return self.xp.astype(self._flushed(array), self.xp.float64)

    def _narrowed(self, array: Array) -> Array:
        """float64 to float32, as exact numerics stores arrays."""
        return self._flushed(self.xp.astype(array, self.xp.float32))

    def _flushed(self, array: Array) -> Array:
        """An array as exact numerics stores it: float32 with +0 for magnitudes below 2**-125 and for -0."""
        if self.numerics == "fast" or dtype_name(array.dtype) != "float32":
            return array
        return self.xp.where(self.xp.abs(array) < SMALLEST_STORED, 0.0, array)

    def require_stored(self, array: Array, what: str) -> None:
        """Raise `TypeError` in exact numerics for an array of float64, which they do not store."""
        if self.numerics == "exact" and dtype_name(array.dtype) == "float64":
            raise TypeError(
                f"{what} is float64; numerics='exact' stores float32: convert it with asarray(x, 'float32')"
            )

    def compile(self, step: Callable[P, R], *owners: Any) -> Callable[P, R]:
        """A training step, faster where it can be recorded and replayed (NumPy, CuPy); elsewhere the step itself.

        Parameters
        ----------
        step : callable
            Accepts and returns arrays of this backend.
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

    def recorded(self, function: Callable[[Array], Array], like: Array) -> Callable[[Array], Array | None] | None:
        """A function of one array, faster for arrays like this one; None where that gains nothing or is not possible.

        All other arrays that the function reads are constants from now on. For some arrays, and while another thread
        is calling it, the result is None, and the caller must call the function itself.
        """
        return None

    def _own_dtype(self, dtype: DType | str) -> DType:
        name = dtype_name(dtype) if isinstance(dtype, Hashable) else shown(dtype)
        if name not in DTYPES:
            raise TypeError(f"dtype must be {alternatives(DTYPES)}, got {name}")
        if not self.has(name):
            raise TypeError(f"backend {self.spec!r} has no dtype {name}; use another one")
        return getattr(self.xp, name)

    def host_array(self, host: Any, dtype: DType | str | None = None) -> np.ndarray[Any, Any]:
        """Host data as `asarray` copies it: checked, of its dtype, and flushed in exact numerics."""
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
            array = np.where(np.abs(array) < np.float32(SMALLEST_STORED), np.float32(0.0), array)
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).reopen, (self.spec, *self.settings)
