"""NumPy on the CPU: the reference that the other backends are compared with."""

import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ..common.types import Array, Device, Namespace
from .backend import Backend, P, R
from .cpu.contractions import NumpyContractions
from .cpu.elementwise import NumpyElementwise
from .cpu.execution import NumpyExecution
from .cpu.namespace import numpy_namespace
from .cpu.narrow import narrow_format
from .cpu.recorded_function import RecordedFunction
from .cpu.recorder import NumpyRecorder
from .cpu.storage import converted
from .engines import numba
from .errors import BackendUnavailable
from .inputs import is_plain_numpy
from .narrow import NarrowFormat
from .operations import Operations
from .recording.compiled_step import CompiledStep
from .recording.guards import CaptureError
from .sole_reference import ONE_REFERENCE, is_weakly_held


class NumpyOperations(NumpyExecution, NumpyContractions, NumpyElementwise, Operations):
    """Worker threads on blocks that stay in a core's cache, each with BLAS on one thread."""


class NumpyBackend(Backend):
    """The CPU, through NumPy and its BLAS."""

    operations = NumpyOperations

    @classmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        if device not in (None, "cpu"):
            raise BackendUnavailable(f"numpy:{device}", "NumPy has one device, the CPU", 'write "numpy"')
        return "numpy", numpy_namespace, "cpu"

    @classmethod
    def namespace(cls, namespace: Namespace, precision: str = "float32") -> Namespace:
        return numpy_namespace

    @classmethod
    def narrow_format(cls, name: str) -> NarrowFormat | None:
        return narrow_format(name)

    @classmethod
    def spec_of(cls, array: Array) -> str:
        return "numpy"

    @classmethod
    def version(cls) -> str:
        return np.__version__

    @classmethod
    def is_plain(cls, kind: type) -> bool:
        return is_plain_numpy(kind)

    @classmethod
    def is_sole_array(cls, array: Array) -> bool:
        # Views and exported buffers refer to the array that owns the memory, not to one another. An array that does not
        # own its memory may be the only view of one that nothing else refers to.
        if isinstance(array, np.generic):
            # What functions make of arrays without axes; nobody can write into it.
            return True
        if type(array) is not np.ndarray or is_weakly_held(array):
            return False
        if array.base is None:
            return bool(array.flags.owndata)
        return sys.getrefcount(array.base) == ONE_REFERENCE and cls.is_sole_array(array.base)

    def owns(self, array: Any) -> bool:
        return is_plain_numpy(type(array))

    @cached_property
    def _own(self) -> Any:
        return np.dtype(self.dtype_name)

    def accepts_directly(self, array: Any) -> bool:
        return type(array) is np.ndarray and array.dtype == self._own and self.numerics == "fast"

    def up(self, array: Array) -> Array:
        """As `Backend.up`, of a plain array: a memory map becomes one."""
        if type(array) is np.memmap:
            array = self.plain(array)
        return array if self.numerics == "fast" else super().up(array)

    def _widened(self, array: Array) -> Array:
        return converted(array, "widen", super()._widened)

    def _narrowed(self, array: Array) -> Array:
        return converted(array, "narrow", super()._narrowed)

    def plain(self, array: Array) -> Array:
        return array.view(np.ndarray) if type(array) is np.memmap else array

    def compile(self, step: Callable[P, R], *owners: Any) -> Callable[P, R]:
        """A `CompiledStep`: a list of calls for each form of its arguments and settings, from a form's third call on.

        The first call of a training step makes gradients and the optimizer's state, and is a form of its own. See
        `xpnn.backends.recording.compiled_step` for the rules, and for what raises a `CaptureError`. Array arguments
        must be of this backend; results are copies. In mixed precision it is the step itself.
        """
        if self.narrow is not None:
            return step
        return CompiledStep(step, owners, self._recorder)

    def recorded(self, function: Callable[[Array], Array], like: Array) -> Callable[[Array], Array | None] | None:
        if self.numerics != "fast" or self.narrow is not None or type(like) is not np.ndarray:
            return None
        try:
            return RecordedFunction(self._recorder, function, like)
        except CaptureError:
            return None

    @cached_property
    def _recorder(self) -> NumpyRecorder:
        """The recorder of this backend."""
        return NumpyRecorder(self)

    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        return host

    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def notes(self) -> str:
        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return f"BLAS {blas['name']} {blas['version']}; {numba.note()}"
