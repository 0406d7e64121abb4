"""Products of CuPy's arrays: the arguments for cuBLAS, without a device, and the results, where CuPy has a device."""

import threading
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.cuda import cublas
from xpnn.backends.cuda.cublas import Library
from xpnn.backends.cuda.matmul import CublasMatmul
from xpnn.backends.cuda.matmul_plan import MatmulPlan

FACTORS = {
    "plain": ((5, 3), (3, 4), (0, 1), (0, 1)),
    "left transposed": ((3, 5), (3, 4), (1, 0), (0, 1)),
    "right transposed": ((5, 3), (4, 3), (0, 1), (1, 0)),
    "both transposed": ((3, 5), (4, 3), (1, 0), (1, 0)),
    "batch": ((2, 6, 5, 3), (2, 6, 3, 4), (0, 1, 2, 3), (0, 1, 2, 3)),
    "batch transposed": ((2, 6, 5, 3), (2, 6, 3, 4), (1, 0, 2, 3), (1, 0, 2, 3)),
    "groups in the middle": ((5, 2, 3), (2, 3, 4), (1, 0, 2), (0, 1, 2)),
    "channels outside": ((3, 2, 5), (2, 3, 4), (1, 2, 0), (0, 1, 2)),
    "one column": ((5, 1), (1, 4), (0, 1), (0, 1)),
    "one row": ((1, 3), (3, 1), (0, 1), (0, 1)),
    "vectors": ((3,), (3,), (0,), (0,)),
    "matrix and vector": ((5, 3), (3,), (0, 1), (0,)),
    "vector and batch": ((3,), (2, 3, 4), (0,), (0, 1, 2)),
    "shared left": ((5, 3), (2, 3, 4), (0, 1), (0, 1, 2)),
    "shared right": ((2, 5, 3), (3, 4), (0, 1, 2), (0, 1)),
    "broadcast": ((2, 1, 5, 3), (6, 3, 4), (0, 1, 2, 3), (0, 1, 2)),
    "no depth": ((5, 0), (0, 4), (0, 1), (0, 1)),
    "no rows": ((0, 3), (3, 4), (0, 1), (0, 1)),
    "empty batch": ((0, 5, 3), (0, 3, 4), (0, 1, 2), (0, 1, 2)),
}
# Orders of the axes of a batch of matrices in memory in which the rows or columns of each are contiguous.
ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 0, 1)]
# The order in memory of the axes of a result (B, M, N), and the number of further entries along each axis.
RESULTS = {
    "rows": ((0, 1, 2), (0, 0, 0)),
    "rows apart": ((0, 1, 2), (0, 0, 3)),
    "columns": ((0, 2, 1), (0, 0, 0)),
    "columns apart": ((0, 2, 1), (0, 3, 0)),
    "batch in the middle": ((1, 0, 2), (0, 0, 0)),
    "matrices apart": ((0, 1, 2), (0, 2, 0)),
}


def made(shape, order, more=(0, 0, 0), axes=3):
    """Zeros of a shape, with axes in another order in memory and ``more`` entries between them along each."""
    order = [axis for axis in order if axis < axes]
    whole = np.zeros([shape[axis] + more[axis] for axis in order], np.float32)
    return whole.transpose(np.argsort(order))[tuple(slice(n) for n in shape)]


def plan(a, b, y=None):
    return MatmulPlan.of("f", a.shape, a.strides, b.shape, b.strides, *(() if y is None else (y.shape, y.strides)))


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize(("left", "right"), list(product(ORDERS, repeat=2)))
def test_no_copy_of_matrices_stored_by_rows_or_columns_in_an_even_batch(left, right, result):
    a, b = made((7, 5, 3), left), made((7, 3, 4), right)
    found = plan(a, b, made((7, 5, 4), *RESULTS[result]))
    assert found.copied is None and found.direct


@pytest.mark.parametrize("result", ["rows apart", "columns apart"])
def test_no_copy_for_a_part_of_a_matrix(result):
    order, more = RESULTS[result]
    shape = made((5, 4), [axis - 1 for axis in order if axis], more[1:], axes=2)
    found = plan(made((5, 3), (0, 1), (0, 2), axes=2), made((3, 4), (1, 0), (2, 0), axes=2), shape)
    assert found.copied is None and found.direct and found.routine == "cublasGemmEx"


@pytest.mark.parametrize("shapes", [((1, 3), (3, 4)), ((5, 1), (1, 4)), ((1, 5, 3), (1, 3, 4)), ((1,), (1, 4))])
def test_an_axis_of_one_entry_may_have_any_step(shapes):
    a, b = (np.zeros(shape, "f")[tuple(slice(None, None, -1 if n == 1 else None) for n in shape)] for shape in shapes)
    found = plan(a, b)
    assert min(a.strides + b.strides) < 0 and found.copied is None and found.direct


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_copy_of_a_matrix_that_a_batch_shares(side):
    a, b = ((5, 3), (7, 3, 4)) if side == "left" else ((7, 5, 3), (3, 4))
    found = plan(np.zeros(a, "f"), np.zeros(b, "f"), made((7, 5, 4), *RESULTS["batch in the middle"]))
    assert found.copied is None and found.direct
    # A distance of 0 from matrix to matrix; for a result stored by rows the factors are exchanged.
    assert (found.right if side == "left" else found.left)[1] == 0


def test_a_batch_of_rows_times_one_matrix_is_one_product():
    found = plan(np.zeros((7, 5, 3), "f"), np.zeros((3, 4), "f"))
    assert found.routine == "cublasGemmEx" and found.sizes[2:] == (4, 35, 3)
    # But not if there is a gap between the matrices.
    assert plan(made((7, 5, 3), (0, 1, 2), (0, 2, 0)), np.zeros((3, 4), "f")).routine == "cublasGemmStridedBatchedEx"


@pytest.mark.parametrize("step", [(slice(None), slice(None, None, 2)), (slice(None, None, -1),)])
def test_only_factors_without_a_layout_for_cublas_are_copied(step):
    a = np.zeros((6, 8), "f")[step]
    found = plan(a, np.zeros((a.shape[1], 3), "f"))
    assert found.copied == (a.shape, None)


@pytest.mark.parametrize("reverse", [(np.s_[::-1],), (np.s_[:], np.s_[::-1])])
@pytest.mark.parametrize(("a", "b"), [((1, 3), (3, 4)), ((5, 1), (1, 4)), ((1, 1), (1, 1)), ((1, 5, 3), (1, 3, 4))])
def test_an_axis_of_one_entry_may_run_backwards(gpu, a, b, reverse):
    """As in a batch of one sample that was reversed."""
    g = np.random.default_rng(0)
    left, right = (g.integers(-4, 5, shape).astype("float32") for shape in (a, b))
    found = gpu.xp.matmul(gpu.asarray(left)[reverse], gpu.asarray(right)[reverse])
    assert np.array_equal(gpu.to_numpy(found), left[reverse] @ right[reverse])


def test_shapes_that_do_not_fit_are_in_the_error():
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(4, 2\) do not fit, 3 columns and 4 rows"):
        plan(np.zeros((5, 3), "f"), np.zeros((4, 2), "f"))
    with pytest.raises(ValueError, match=r"has shape \(5, 2\), and out has \(2, 5\)"):
        plan(np.zeros((5, 3), "f"), np.zeros((3, 2), "f"), np.zeros((2, 5), "f"))
    with pytest.raises(ValueError, match="too large for 32-bit sizes"):
        MatmulPlan.of("f", (2**31, 1), (4, 4), (1, 1), (4, 4))


def whole_numbers(cupy, shape, order, dtype):
    """Products and sums of whole numbers are exact in any order."""
    return cupy.asarray(np.random.default_rng(0).integers(-9, 9, shape).astype(dtype)).transpose(order)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FACTORS)
def test_products_of_any_factors(gpu, name, dtype):
    import cupy

    shape_a, shape_b, order_a, order_b = FACTORS[name]
    a, b = whole_numbers(cupy, shape_a, order_a, dtype), whole_numbers(cupy, shape_b, order_b, dtype)
    wanted = np.matmul(a.get(), b.get())
    for tf32 in (False, True):
        products = CublasMatmul(cupy, tf32)
        assert products.accepts(a, b)
        y = products.matmul(a, b)
        assert y.shape == wanted.shape and y.dtype == dtype and np.array_equal(y.get(), wanted)
        out = cupy.full(wanted.shape, np.nan, dtype)
        assert products.matmul(a, b, out) is out and np.array_equal(out.get(), wanted)


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_written_into_out_and_nowhere_else(gpu, name):
    import cupy

    a, b = whole_numbers(cupy, (7, 5, 3), (0, 1, 2), "f"), whole_numbers(cupy, (7, 3, 4), (0, 1, 2), "f")
    order, more = RESULTS[name]
    whole = cupy.full([(7, 5, 4)[axis] + more[axis] for axis in order], 99.0, "f")
    out = whole.transpose(np.argsort(order).tolist())[:7, :5, :4]
    assert gpu.xp.matmul(a, b, out=out) is out
    assert np.array_equal(out.get(), np.matmul(a.get(), b.get()))
    out[...] = 99.0
    assert bool((whole == 99.0).all())


def test_out_may_have_other_strides_or_another_dtype_or_share_memory(gpu, monkeypatch):
    import cupy

    usual = Library.call
    monkeypatch.setattr(
        Library, "call", lambda self, *arguments: (called.append(arguments), usual(self, *arguments))[1]
    )
    called = []
    a, b = whole_numbers(cupy, (4, 4), (0, 1), "f"), whole_numbers(cupy, (4, 4), (1, 0), "f")
    wanted = np.matmul(a.get(), b.get())
    odd = cupy.zeros((4, 8), "f")[:, ::2]
    assert np.array_equal(gpu.xp.matmul(a, b, out=odd).get(), wanted)
    wide = cupy.zeros((4, 4), "d")
    assert np.array_equal(gpu.xp.matmul(a, b, out=wide).get(), wanted)
    assert np.array_equal(gpu.xp.matmul(a, b, out=a).get(), wanted)
    # cuBLAS may write an entry before it has read all others.
    products = [arguments for arguments in called if "Gemm" in arguments[0]]
    assert products and all(arguments.count(a.data.ptr) <= 1 for arguments in products)


def test_operations_write_products_into_their_target(gpu, monkeypatch):
    import cupy

    ops = nn.backends.operations_of(gpu.xp)
    a, b, y = cupy.ones((6, 5, 3), "f"), cupy.ones((6, 3, 4), "f"), cupy.zeros((5, 6, 4), "f")
    monkeypatch.setattr(cupy, "empty", None)
    monkeypatch.setattr(cupy, "ascontiguousarray", None)
    ops.matmul(a, b, y.transpose(1, 0, 2))
    assert bool((y == 3.0).all())
    ops.matmul_into(y, (slice(0, 5), 2, slice(None)), cupy.full((5, 2), 2.0, "f"), cupy.ones((2, 4), "f"))
    assert bool((y[:, 2] == 4.0).all()) and bool((y[:, 3] == 3.0).all())


def test_factors_of_two_dtypes_are_multiplied_in_the_wider(gpu):
    import cupy

    y = gpu.xp.matmul(cupy.full((2, 2), 0.1, "f"), cupy.full((2, 2), 0.1, "d"))
    assert y.dtype == "float64" and np.array_equal(y.get(), np.matmul(np.full((2, 2), 0.1, "f"), np.full((2, 2), 0.1)))


def test_integers_are_multiplied_by_cupy(gpu):
    import cupy

    whole = cupy.full((2, 2), 3)
    assert not CublasMatmul(cupy).accepts(whole, whole)
    assert gpu.xp.matmul(whole, whole).get().tolist() == [[18, 18], [18, 18]]


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64)])
def test_tf32_holds_for_plain_and_compiled_products_of_one_matrix_and_many(gpu, shape):
    import cupy
    from cupy._core import get_compute_type

    if int(gpu.device.compute_capability) < 80:
        pytest.skip("this device has no TF32")
    before = get_compute_type("float32")
    x = cupy.full(shape, 1.0 + 2.0**-12, "f")
    sums = {}
    for precision in ("float32", "tf32"):
        b = nn.get_backend("cupy", precision=precision)
        compiled = b.compile(lambda a, b=b: b.xp.matmul(a, a))
        found = [compiled(x), compiled(x), compiled(x), b.xp.matmul(x, x), nn.backends.operations_of(b.xp).matmul(x, x)]
        assert compiled.replayed and len({each.get().tobytes() for each in found}) == 1
        sums[precision] = float(found[0].ravel()[0])
    assert sums["tf32"] == 64.0 < sums["float32"]
    assert get_compute_type("float32") == before, "CuPy's own setting, which is that of the process, is unchanged"


def test_a_status_of_cublas_is_an_error(monkeypatch):
    functions = SimpleNamespace(**{name: lambda *_: 0 for name in cublas._SIGNATURES})
    functions.cublasSetStream_v2 = lambda *_: 3
    stream = SimpleNamespace(ptr=7)
    device = SimpleNamespace(get_device_id=lambda: 0)
    cupy = SimpleNamespace(cuda=SimpleNamespace(device=device, get_current_stream=lambda: stream))
    with pytest.raises(RuntimeError, match="cublasSetStream_v2 failed with CUBLAS_STATUS_ALLOC_FAILED"):
        Library(cupy, functions).on_current_stream()


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_a_handle_belongs_to_one_thread_and_is_reused_after_it_ends(gpu):
    import cupy

    library = Library(cupy)
    mine = library.handle()
    assert library.handle() is mine
    other = in_thread(library.handle)
    assert other is not mine and in_thread(library.handle) is other


def test_no_two_streams_share_a_workspace_nor_do_recordings(gpu):
    import cupy

    library = Library(cupy)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(cublas.STREAMS + 2)]
    handle = library.handle()
    for stream in streams:
        with stream:
            library.on_current_stream()
    assert list(handle.workspaces) == [stream.ptr for stream in streams[-cublas.STREAMS :]]
    assert len({memory.ptr for memory in handle.workspaces.values()}) == cublas.STREAMS
    usual = {memory.ptr for memory in handle.workspaces.values()}
    with streams[-1]:
        with library.own_workspaces() as own:
            library.on_current_stream()
        assert len(own) == 1 and not usual & {memory.ptr for memory in own.values()}
        library.on_current_stream()
    assert {memory.ptr for memory in handle.workspaces.values()} == usual


def test_threads_multiply_at_once_each_on_its_stream(gpu):
    import cupy

    wrong, ready = [], threading.Barrier(3)

    def work(factor):
        stream = cupy.cuda.Stream(non_blocking=True)
        with gpu.context(), stream:
            ready.wait()
            for i in range(100):
                x = cupy.full((17, 17), float(factor + i % 3), "f")
                y = gpu.xp.matmul(x, x)
                if not bool((y == 17.0 * (factor + i % 3) ** 2).all()):
                    wrong.append((factor, i))

    threads = [threading.Thread(target=work, args=(10 * i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
