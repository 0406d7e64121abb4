"""Arrays of other libraries without a copy, by the DLPack protocol.

A producer's ``__dlpack_device__`` says where its memory is. If that is where a backend computes, the backend's library
makes an array of the same memory, and passes the producer its current stream, so that what the producer has queued is
done before the backend reads. The other way needs nothing here: what layers return are arrays of NumPy, CuPy or
PyTorch, which have ``__dlpack__`` themselves.

Source: https://dmlc.github.io/dlpack/latest/python_spec.html.
"""

from typing import Any

from ..common.types import Array, dtype_name
from .errors import first_line
from .inputs import describe
from .library import ArrayLibrary
from .recording.guards import require_repeatable

# Kinds of devices whose memory the host, or a CUDA device, reads: plain, pinned or managed memory.
_HOST, _CUDA = frozenset({1, 3}), frozenset({2, 13})
#: Numbers that arrays of a backend have.
DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float32",
    "float64",
)
_NAMES = {1: "the CPU", 2: "a CUDA device", 3: "pinned memory of the host", 13: "managed memory", 10: "a ROCm device"}


def device_of(array: Any) -> tuple[int, int] | None:
    """Kind and number of the device of a producer; None if it does not follow the protocol."""
    if not callable(getattr(array, "__dlpack__", None)) or not callable(getattr(array, "__dlpack_device__", None)):
        return None
    try:
        kind, number = array.__dlpack_device__()
        return int(kind), int(number)
    except (BufferError, RuntimeError, TypeError, ValueError):
        # A device of a test double, or an array that can't be exported.
        return None


def is_shareable(array: Any, b: Any) -> bool:
    """Whether the memory of a producer is where the arrays of a backend are."""
    theirs, ours = device_of(array), device_of(b.xp.empty(0, device=b.device))
    if theirs is None or ours is None:
        return False
    if ours[0] in _HOST:
        # Some test doubles of a device have their arrays on the host.
        return bool(b.is_host) and theirs[0] in _HOST
    return theirs == ours or (theirs[0] in _CUDA and ours[0] in _CUDA and theirs[1] == ours[1])


def place(array: Any) -> str:
    """Where the memory of a producer is, for an error."""
    found = device_of(array)
    return "an unknown device" if found is None else f"{_NAMES.get(found[0], f'device kind {found[0]}')}, {found[1]}"


class SharesMemory(ArrayLibrary):
    """Base of `Backend`: an array library that makes arrays of the memory of others."""

    def from_dlpack(self, array: Any) -> Array:
        """An array of another library as one of this backend with the same memory: no copy, and no transfer.

        What the other library has queued on a device is done before this backend reads the array. In exact numerics the
        result is a copy on the device, because subnormal numbers are flushed.

        Parameters
        ----------
        array : array
            With ``__dlpack__`` and ``__dlpack_device__``, on the device of this backend: a PyTorch tensor on the CPU
            for NumPy, one on the same GPU for CuPy. It must not change while layers use it.

        Raises
        ------
        TypeError
            For an object without these methods, or of numbers that layers do not have.
        ValueError
            For an array on another device, or one whose gradient PyTorch records.
        """
        b: Any = self
        return b._with_origin(_shared(b, array), whole=False)


def _shared(b: Any, array: Any) -> Array:
    """`SharesMemory.from_dlpack`, without the record of origins."""
    if device_of(array) is None:
        raise TypeError(
            f"{b.spec}.from_dlpack: the array must have __dlpack__ and __dlpack_device__, got {describe(array)}; use "
            "asarray for data on the host"
        )
    if getattr(array, "requires_grad", False):
        raise ValueError(
            f"{b.spec}.from_dlpack: PyTorch records gradients of the tensor; give x.detach(), or make a layer of the "
            "model with nn.as_torch_module"
        )
    require_repeatable(f"{b.spec}.from_dlpack, an array from outside")
    with b.context():
        if not is_shareable(array, b):
            raise ValueError(
                f"{b.spec}.from_dlpack: the array is on {place(array)}, where this backend does not compute; bring it "
                "to the host with its own library and copy it with asarray"
            )
        try:
            own = b.import_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"{b.spec}.from_dlpack: {describe(array)} can't be shared: {first_line(error)}") from error
        if dtype_name(own.dtype) not in DTYPES:
            raise TypeError(f"{b.spec}.from_dlpack: layers have no {dtype_name(own.dtype)}; convert the array first")
        found: Array = b._flushed(own)
        return found
