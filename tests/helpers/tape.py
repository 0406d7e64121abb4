"""A CuPy whose streams capture, on a machine without a GPU: NumPy under CuPy's names, with a tape.

While a tape runs nothing is computed that anyone could see: each operation is noted with the addresses that it reads
and writes and the numbers that it was given, and what it makes is filled with NaN. Playing the tape does just that,
again and again, as a CUDA graph would. cuBLAS is played by a reader of raw addresses, in columns as the real one reads
them.
"""

import contextlib
import ctypes
import sys
from types import ModuleType, SimpleNamespace

import array_api_compat.numpy
import numpy as np

CAPTURING = "the current stream is capturing, so synchronous API calls are disallowed"


class Tape:
    """What is noted, and all arrays that it needs."""

    running: "Tape | None" = None

    def __init__(self) -> None:
        self.operations, self.kept = [], []

    def play(self) -> None:
        with np.errstate(all="ignore"):
            for operation in self.operations:
                operation()


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value


def _arrays(value):
    if isinstance(value, np.ndarray):
        return [value]
    return [array for each in value for array in _arrays(each)] if isinstance(value, tuple | list) else []


def _compute(function, arguments, keywords):
    """The result, or while a tape runs arrays of its form that hold nothing yet."""
    arguments, keywords = _plain(arguments), {name: _plain(value) for name, value in keywords.items()}
    tape = Tape.running
    with np.errstate(all="ignore") if tape else contextlib.nullcontext():
        result = function(*arguments, **keywords)
    several = isinstance(result, tuple | list)
    results = list(result) if several else [result]
    if not all(isinstance(each, np.ndarray | np.generic) for each in results):
        return result
    results = [np.asarray(each) for each in results]
    if tape:
        given = _arrays((*arguments, *keywords.values()))
        tape.kept += given
        views = [any(np.may_share_memory(each, array) for array in given) for each in results]
        if not all(views):
            results = [np.copy(each, order="K") for each in results]

            def again():
                made = function(*arguments, **keywords)
                for target, each in zip(results, made if several else [made], strict=True):
                    target[...] = each

            tape.operations.append(again)
            tape.kept += results
            for each in results:
                if each.dtype.kind == "f":
                    each[...] = np.nan
    results = [each.view(TapeArray) for each in results]
    return type(result)(results) if several else results[0]


class TapeArray(np.ndarray):
    """CuPy's array, as far as this library uses it."""

    device = None

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **keywords):
        call = getattr(ufunc, method)
        if out is None:
            return _compute(call, inputs, keywords)
        (target,), inputs = out, _plain(inputs)
        self._note(lambda: call(*inputs, out=_plain(target), **keywords), target, *_arrays(inputs))
        return target

    def __setitem__(self, index, value):
        target, index, value = _plain(self), _plain(index), _plain(value)
        self._note(lambda: target.__setitem__(index, value), target, *_arrays((value,)))

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        whole = index if any(each is Ellipsis for each in index) else (*index, Ellipsis)
        return _compute(lambda array, at: array[at], (self, whole), {})

    def copy(self, order="C"):
        return _compute(np.copy, (self,), {"order": order})

    def fill(self, value):
        self[...] = value

    def __bool__(self):
        return bool(self.item())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def item(self, *at):
        if Tape.running:
            raise RuntimeError(CAPTURING)
        return np.ndarray.item(self, *at)

    @staticmethod
    def _note(operation, *kept):
        if Tape.running:
            Tape.running.operations.append(operation)
            Tape.running.kept += kept
        else:
            operation()


def wrapped(function):
    def call(*arguments, **keywords):
        keywords.pop("device", None)
        return _compute(function, arguments, keywords)

    return call


def namespace(module) -> ModuleType:
    """``array_api_compat.cupy``: the standard's functions on tape arrays; products go to CuPy's own."""
    made = ModuleType("array_api_compat.cupy")
    for name, value in vars(array_api_compat.numpy).items():
        if not name.startswith("__"):
            is_type = isinstance(value, type) or not callable(value)
            made.__dict__[name] = value if is_type else wrapped(value)
    made.matmul = lambda a, b, **keywords: module.matmul(a, b, **keywords)
    return made


class Stream:
    """A stream; ``launched`` counts graphs."""

    count = 0

    def __init__(self, non_blocking: bool = False) -> None:
        Stream.count += 1
        self.ptr, self.non_blocking = Stream.count, non_blocking

    def __enter__(self):
        _streams.append(self)
        return self

    def __exit__(self, *_):
        assert _streams.pop() is self

    def record(self):
        assert Tape.running is None, "an event of a capture can't be asked afterwards"
        return self

    def wait_event(self, event):
        assert isinstance(event, Stream)

    def begin_capture(self):
        assert self.non_blocking and _streams[-1] is self and Tape.running is None
        Tape.running = Tape()

    def end_capture(self):
        tape, Tape.running = Tape.running, None
        return SimpleNamespace(launch=lambda stream: tape.play())


_streams = [Stream()]


def usual_matmul(a, b, **keywords):
    if Tape.running:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    return _compute(np.matmul, (a, b), keywords)


class Cublas:
    """cuBLAS, on addresses of the host; ``products`` counts what it was asked for, ``compute`` in which precision."""

    def __init__(self) -> None:
        self.products, self.compute = 0, None
        for name in ("cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2"):
            setattr(self, name, lambda *_: 0)

    def cublasGemmStridedBatchedEx(self, _handle, ta, tb, m, n, k, alpha, a, kind, lda, sa, b, kind_b, ldb, sb, *rest):  # noqa: N802
        beta, c, kind_c, ldc, sc, count, self.compute, _ = rest
        assert kind == kind_b == kind_c and (alpha._obj.value, beta._obj.value) == (1.0, 0.0)
        assert lda >= max(1, k if ta else m) and ldb >= max(1, n if tb else k) and ldc >= max(1, m)
        self.products += 1
        dtype = (np.float32, np.float64)[kind]

        def matrix(pointer, leading, apart, i, rows, columns):
            """Column-major ``rows x columns``."""
            size = np.dtype(dtype).itemsize
            length = leading * (columns - 1) + rows
            at = pointer.value + i * apart.value * size
            flat = np.frombuffer((ctypes.c_char * (length * size)).from_address(at), dtype)
            return np.lib.stride_tricks.as_strided(flat, (rows, columns), (size, leading * size))

        def multiply():
            for i in range(count):
                left = matrix(a, lda, sa, i, k, m).T if ta else matrix(a, lda, sa, i, m, k)
                right = matrix(b, ldb, sb, i, n, k).T if tb else matrix(b, ldb, sb, i, k, n)
                matrix(c, ldc, sc, i, m, n)[...] = (right.T @ left.T).T

        TapeArray._note(multiply)
        return 0


def install(fake, monkeypatch) -> Cublas:
    """Let the fake CuPy of a test capture."""
    from xpnn.backends import cuda_graph
    from xpnn.backends import cupy as backend
    from xpnn.layers.losses import nll

    cublas, module = Cublas(), fake.module
    TapeArray.device = fake.module.cuda.Device(0)
    module.ndarray = module.generic = TapeArray
    module.array = lambda host: np.array(host).view(TapeArray)
    module.matmul = usual_matmul
    module.broadcast_shapes = np.broadcast_shapes
    for name in ("empty", "ascontiguousarray", "broadcast_to"):
        setattr(module, name, wrapped(getattr(np, name)))
    pool = SimpleNamespace(malloc=lambda size: size)
    module.get_default_pinned_memory_pool = lambda: pool
    fake.pinned = pool.malloc
    module.cuda.__dict__.update(
        Stream=Stream,
        MemoryPool=lambda: pool,
        alloc=lambda size: SimpleNamespace(ptr=0),
        using_allocator=lambda allocator: contextlib.nullcontext(),
        set_pinned_memory_allocator=lambda allocator: setattr(fake, "pinned", allocator),
        get_current_stream=lambda: _streams[-1],
    )
    tricks = ModuleType("cupy.lib.stride_tricks")
    tricks.as_strided = lambda x, shape, strides: _compute(
        np.lib.stride_tricks.as_strided, (x,), {"shape": shape, "strides": strides}
    )
    for made in (tricks, namespace(module)):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(cuda_graph, "load", lambda version: cublas)
    # NumPy's arrays are what these are to whoever asks; a loss reads its targets where NumPy has them.
    monkeypatch.setattr(nll, "backend_of", lambda array: SimpleNamespace(is_host=False))
    backend._recorder.cache_clear()
    return cublas
