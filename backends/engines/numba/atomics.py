"""Instructions that Numba has no function for: atomic numbers, a pause, and calls of a function by its address.

An address is an int64. All atomic operations are sequentially consistent.
"""

import ctypes
import sys
from platform import machine
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from .compiler import instruction

cgutils: Any = untyped
WORD = ir.IntType(64)
# LLVM's name of the instruction on each kind of processor, and its arguments; others spin without one.
_X86, _ARM = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
_PAUSES: dict[str, tuple[str, tuple[int, ...]]] = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, WORD.as_pointer())


@instruction
def atomic_load(context: Any, address: Any) -> Any:
    """The int64 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(builder, arguments[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@instruction
def atomic_store(context: Any, address: Any, value: Any) -> Any:
    """Write an int64 to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def atomic_add(context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an address; returns what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, arguments[0]), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@instruction
def pause(context: Any) -> Any:
    """Wait a few cycles, so that a loop of looks at a number does not slow down the other threads of the core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        name, numbers = _PAUSES.get(machine().lower(), ("", ()))
        if name:
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(numbers))
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            builder.call(function, [ir.Constant(ir.IntType(32), number) for number in numbers])
        return context.get_dummy_value()

    return types.void(), generate


@instruction
def call_job(context: Any, function: Any, item: Any, arguments: Any) -> Any:
    """Call the job at the address ``function`` with an item and the address of its arguments."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [WORD, WORD])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@instruction
def call_without_arguments(context: Any, function: Any) -> Any:
    """Call the C function ``int f(void)`` at an address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def address_of_yield() -> int:
    """Address of the system's function that lets other threads run; 0 if there is none."""
    try:
        library: Any = ctypes.CDLL("kernel32") if sys.platform == "win32" else ctypes.CDLL(None)
        function = library.SwitchToThread if sys.platform == "win32" else library.sched_yield
    except (OSError, AttributeError):
        return 0
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
