"""Threads, barriers, warps and memory in kernels, and launches that are refused. This holds on a GPU too."""

import numpy as np
import pytest


@pytest.fixture
def cp(gpu):
    import cupy

    return cupy


def kernel(cp, text, name="f"):
    return cp.RawModule(code=text, options=("-std=c++17",)).get_function(name)


def test_each_thread_has_its_place(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(int* out) {
            int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
            int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
            int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
            out[i] = i;
        }
        """,
    )
    out = cp.full(2 * 3 * 4 * 5 * 6 * 2, -1, "int32")
    f((2, 3, 4), (5, 6, 2), (out,))
    assert np.array_equal(out.get(), np.arange(out.size))


def test_a_barrier_separates_writes_from_reads(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(float* x, int rounds) {
            __shared__ float shared[96];
            for (int k = 0; k < rounds; k++) {
                shared[threadIdx.x] = x[threadIdx.x];
                __syncthreads();
                x[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x] + 1;
                __syncthreads();
            }
        }
        """,
    )
    x = cp.arange(96, dtype="float32")
    f((1,), (96,), (x, np.int32(5)))
    assert np.array_equal(x.get(), np.roll(np.arange(96), -5) + 5)


def test_threads_that_returned_are_not_waited_for(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(int* x) {
            __shared__ int sum;
            if (threadIdx.x == 0) sum = 0;
            __syncthreads();
            if (threadIdx.x >= 40) return;
            atomicAdd(&sum, 1);
            __syncthreads();
            x[threadIdx.x] = sum;
        }
        """,
    )
    x = cp.zeros(64, "int32")
    f((1,), (64,), (x,))
    assert x.get().tolist() == [40] * 40 + [0] * 24


def test_dynamic_shared_memory_of_any_type_has_the_size_of_the_launch(cp):
    f = kernel(
        cp,
        """
        extern __shared__ double values[];
        extern "C" __global__ void f(double* x) {
            values[threadIdx.x] = x[threadIdx.x];
            __syncthreads();
            x[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
        }
        """,
    )
    x = cp.arange(512, dtype="float64")
    f((1,), (512,), (x,), shared_mem=512 * 8)
    assert np.array_equal(x.get(), np.arange(512)[::-1])


def test_lanes_of_a_warp_exchange_values(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(double* x, int* y) {
            int i = threadIdx.x;
            double v = i;
            x[i] = __shfl_sync(~0u, v, 3);
            x[64 + i] = __shfl_up_sync(~0u, v, 2);
            x[128 + i] = __shfl_down_sync(~0u, v, 5);
            x[192 + i] = __shfl_xor_sync(~0u, v, 9);
            x[256 + i] = __shfl_down_sync(~0u, v, 1, 8);
            y[i] = __ballot_sync(~0u, i % 3 == 0);
            y[64 + i] = __any_sync(~0u, i == 40) * 2 + __all_sync(~0u, i < 32);
        }
        """,
    )
    x, y = cp.zeros(320), cp.zeros(128, "int32")
    f((1,), (64,), (x, y))
    i = np.arange(64)
    lane, first = i % 32, i // 32 * 32
    wanted = [
        first + 3,
        np.where(lane >= 2, i - 2, i),
        np.where(lane + 5 < 32, i + 5, i),
        first + (lane ^ 9),
        np.where(i % 8 < 7, i + 1, i),
    ]
    assert np.array_equal(x.get().reshape(5, 64), wanted)
    ballots = [sum(1 << k for k in range(32) if (base + k) % 3 == 0) for base in (0, 32)]
    assert np.array_equal(y.get()[:64].view("uint32"), np.repeat(ballots, 32))
    assert y.get()[64:].tolist() == [1] * 32 + [2] * 32


def test_parts_of_a_warp_exchange_values_among_themselves(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(int* x) {
            int i = threadIdx.x;
            if (i < 16) x[i] = __shfl_xor_sync(0xffffu, i, 1);
            else x[i] = __shfl_xor_sync(0xffff0000u, i, 2);
        }
        """,
    )
    x = cp.zeros(32, "int32")
    f((1,), (32,), (x,))
    i = np.arange(32)
    assert np.array_equal(x.get(), np.where(i < 16, i ^ 1, i ^ 2))


@pytest.mark.parametrize("kind", ["int", "unsigned int", "unsigned long long", "float", "double"])
def test_atomic_sums(cp, kind):
    f = kernel(cp, f'extern "C" __global__ void f({kind}* x) {{ atomicAdd(x, ({kind})2); }}')
    dtypes = {"int": "int32", "unsigned int": "uint32", "unsigned long long": "uint64", "float": "float32"}
    x = cp.zeros(1, dtypes.get(kind, kind))
    f((7,), (100,), (x,))
    assert float(x[0]) == 1400


def test_other_atomics(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(int* x) {
            int i = threadIdx.x;
            atomicMin(x, i - 5);
            atomicMax(x + 1, i);
            atomicAnd(x + 2, ~(1 << i));
            atomicOr(x + 3, 1 << i);
            atomicXor(x + 4, i);
            atomicSub(x + 5, i);
            int old, wanted;
            do { old = x[6]; wanted = old + 3; } while (atomicCAS(x + 6, old, wanted) != old);
        }
        """,
    )
    x = cp.asarray([0, 0, -1, 0, 0, 0, 0], "int32")
    f((1,), (20,), (x,))
    xor = 0
    for i in range(20):
        xor ^= i
    assert x.get().tolist() == [-5, 19, -1 ^ (1 << 20) - 1, (1 << 20) - 1, xor, -190, 60]


def test_templates_are_launched_by_their_expressions(cp):
    module = cp.RawModule(
        code="template <class T, int n> __global__ void f(T* x) { for (int i = 0; i < n; i++) x[i] = i / (T)2; }",
        options=("-std=c++17",),
        name_expressions=["f<float, 3>", "f<int, 4>"],
    )
    x, y = cp.zeros(4, "float32"), cp.zeros(4, "int32")
    module.get_function("f<float, 3>")((1,), (1,), (x,))
    module.get_function("f<int, 4>")((1,), (1,), (y,))
    assert x.get().tolist() == [0, 0.5, 1, 0] and y.get().tolist() == [0, 0, 1, 1]


def test_structs_are_passed_by_value(cp):
    f = kernel(
        cp,
        """
        struct Pair { double a; int b[3]; };
        extern "C" __global__ void f(const Pair p, char c, double* x) { x[0] = p.a + p.b[2] + c; }
        """,
    )
    pair = np.array((0.5, [1, 2, 3]), dtype=np.dtype([("a", "f8"), ("b", "i4", 3)], align=True))
    x = cp.zeros(1)
    f((1,), (1,), (pair, np.int8(7), x))
    assert float(x[0]) == 10.5


def test_constant_memory_is_written_by_its_name(cp):
    module = cp.RawModule(
        code='__constant__ float scale[2]; extern "C" __global__ void f(float* x) { x[0] *= scale[1]; }',
        options=("-std=c++17",),
    )
    cp.ndarray((2,), "float32", module.get_global("scale"))[...] = cp.asarray([3, 4], "float32")
    x = cp.ones(1, "float32")
    module.get_function("f")((1,), (1,), (x,))
    assert float(x[0]) == 4


def test_subnormal_floats_are_flushed_and_doubles_are_not(cp):
    for dtype, tiny, wanted in (("float32", 1e-40, 0), ("float64", 1e-310, 1e-310)):
        x = cp.asarray(np.array([tiny], dtype))
        assert float((x * cp.asarray(1, dtype)).get()[0]) == wanted


def test_doubles_by_another_name_are_not_flushed(cp):
    f = kernel(cp, 'typedef double T; extern "C" __global__ void f(T* x) { x[0] *= 2; }')
    x = cp.asarray([1e-310])
    f((1,), (1,), (x,))
    assert float(x.get()[0]) == 2e-310


def test_a_kernel_that_is_declared_first_is_launched(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(int* x);
        extern "C" __global__ void g(int* x) { *x = 1; }
        extern "C" __global__ void f(int* x) { *x = 2; }
        """,
    )
    x = cp.zeros(1, "int32")
    f((1,), (1,), (x,))
    assert int(x[0]) == 2


def test_functions_that_round_by_themselves_are_not_fused(cp):
    f = kernel(
        cp,
        """
        extern "C" __global__ void f(float* x) {
            x[2] = __fadd_rn(__fmul_rn(x[0], x[0]), x[1]);
            x[3] = __fmaf_rn(x[0], x[0], x[1]);
        }
        """,
    )
    a = np.float32(1 + 2**-12)
    x = cp.asarray([a, -(a * a), 0, 0], "float32")
    f((1,), (1,), (x,))
    assert float(x[2]) == 0 and float(x[3]) == 2**-24


def test_a_source_that_does_not_compile_says_where(cp):
    with pytest.raises(cp.cuda.compiler.CompileException, match="undeclared_name"):
        kernel(cp, 'extern "C" __global__ void f(int* x) { *x = undeclared_name; }')


def test_a_kernel_that_is_not_there_is_refused(cp):
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="NOT_FOUND"):
        kernel(cp, 'extern "C" __global__ void f(int* x) {}', "g")


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((1,), (1025,), 0), ((1,), (32, 64), 0), ((1,), (1, 1, 65), 0), ((1, 65536), (1,), 0), ((1,), (1,), 64 << 10)],
)
def test_launches_beyond_the_limits_are_refused(cp, grid, block, shared):
    f = kernel(cp, 'extern "C" __global__ void f(int* x) {}')
    with pytest.raises(cp.cuda.driver.CUDADriverError, match="INVALID_VALUE"):
        f(grid, block, (cp.zeros(1, "int32"),), shared_mem=shared)


def test_more_shared_memory_is_allowed_when_asked_for(cp):
    f = kernel(cp, 'extern "C" __global__ void f(int* x) { extern __shared__ int s[]; s[16000] = 3; *x = s[16000]; }')
    f.max_dynamic_shared_size_bytes = 64 << 10
    x = cp.zeros(1, "int32")
    f((1,), (1,), (x,), shared_mem=64 << 10)
    assert int(x[0]) == 3


def test_an_early_return_in_an_elementwise_kernel_is_that_of_one_thread(cp):
    f = cp.ElementwiseKernel("float32 x", "float32 y", "if (x < 0) { y = 7; return; } y = x", "returns_early")
    x = cp.asarray([1, -1, 2, -2, 3], "float32")
    assert f(x).get().tolist() == [1, 7, 2, 7, 3]
