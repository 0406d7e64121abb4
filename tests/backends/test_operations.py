"""The operations of every backend agree with those in functions of the standard."""

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import operations_of
from xpnn.backends.contractions.windows import Windows
from xpnn.backends.exact.operations import ExactOperations
from xpnn.backends.operations import Operations


def windows(kernel, stride, dilation, spatial) -> Windows:
    count = tuple(
        max(0, (n - d * (k - 1) - 1) // s + 1) for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True)
    )
    return Windows(kernel, stride, dilation, count)


# spatial, kernel, stride, dilation
GEOMETRIES = [
    ((7,), (3,), (1,), (1,)),
    ((9,), (2,), (3,), (2,)),
    ((5, 6), (3, 2), (1, 1), (1, 1)),
    ((8, 7), (3, 3), (2, 1), (1, 2)),
    ((6, 6), (1, 1), (2, 3), (1, 1)),
    ((4, 5), (4, 5), (1, 1), (1, 1)),
    ((4, 5, 4), (2, 3, 2), (2, 1, 1), (1, 1, 2)),
]


@pytest.fixture(params=GEOMETRIES, ids=lambda g: "x".join(map(str, g[0])) + "-k" + "x".join(map(str, g[1])))
def geometry(request):
    spatial, *rest = request.param
    return spatial, windows(*rest, spatial)


def cut_by_hand(x: np.ndarray, w: Windows) -> np.ndarray:
    """Window by window, cell by cell, from the definition."""
    out = np.empty((x.shape[0], *w.count, *w.kernel, x.shape[-1]), x.dtype)
    for o in np.ndindex(w.count):
        for k in np.ndindex(w.kernel):
            cell = tuple(a * s + b * d for a, s, b, d in zip(o, w.stride, k, w.dilation, strict=True))
            out[(slice(None), *o, *k)] = x[(slice(None), *cell)]
    return out


@pytest.mark.parametrize("n", [0, 1, 3])
def test_windows_are_those_of_the_standard_functions(at, rng, geometry, n):
    spatial, w = geometry
    host = rng.standard_normal((n, *spatial, 2)).astype("float32")
    x = at.put(host)
    cut = at.get(operations_of(at.xp).windows(x, w))
    assert np.array_equal(cut, at.get(Operations(at.xp).windows(x, w)))
    assert np.array_equal(cut, cut_by_hand(host, w))


def test_windows_of_views(at, rng, geometry):
    spatial, w = geometry
    host = rng.standard_normal((5, 2, *(n + 1 for n in spatial))).astype("float32")
    inside = (slice(1, 4), slice(None), *(slice(1, None) for _ in spatial))
    last = (0, *range(2, host.ndim), 1)
    x = at.xp.permute_dims(at.put(host)[inside], last)
    assert np.array_equal(at.get(operations_of(at.xp).windows(x, w)), cut_by_hand(host[inside].transpose(last), w))


def operands(at, rng, geometry, groups, n=3, channels=2, features=3):
    spatial, w = geometry
    x = rng.standard_normal((n, *spatial, groups * channels))
    matrix = rng.standard_normal((groups, w.cells * channels, features))
    y = rng.standard_normal((n, *w.count, groups * features))
    return w, tuple(at.put(a) for a in (x, matrix, y)), (x, matrix, y)


def contract_by_hand(x, matrix, w: Windows):
    groups = matrix.shape[0]
    cut = cut_by_hand(x, w).reshape(x.shape[0], *w.count, w.cells, groups, -1)
    cells = matrix.reshape(groups, w.cells, -1, matrix.shape[-1])
    return np.einsum("...kgc,gkcf->...gf", cut, cells).reshape(x.shape[0], *w.count, -1)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_contract_is_the_sum_in_its_formula(at, rng, geometry, groups):
    w, (x, matrix, _), (hx, hm, _) = operands(at, rng, geometry, groups)
    y = operations_of(at.xp).contract(x, matrix, w)
    nn.testing.assert_match(y, contract_by_hand(hx, hm, w), level="reduction", terms=2 * w.cells)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("standard", [False, True], ids=["own", "standard"])
def test_gradients_are_the_adjoints_of_contract(at, rng, geometry, groups, standard):
    w, (x, matrix, y), (hx, hm, hy) = operands(at, rng, geometry, groups)
    p = Operations(at.xp) if standard else operations_of(at.xp)
    dx = p.contract_input_gradient(y, matrix, w, tuple(x.shape))
    dw = p.contract_weight_gradient(x, y, w, groups)
    assert tuple(dx.shape) == hx.shape and tuple(dw.shape) == hm.shape
    forward = np.vdot(at.get(p.contract(x, matrix, w)), hy)
    bound = 1e-13 * np.vdot(contract_by_hand(abs(hx), abs(hm), w), abs(hy))
    assert abs(forward - np.vdot(hx, at.get(dx))) < bound
    assert abs(forward - np.vdot(hm, at.get(dw))) < bound


def test_cells_that_no_window_reads_get_no_gradient(at, rng):
    w = windows((2,), (3,), (1,), (9,))
    dy = at.put(rng.standard_normal((2, *w.count, 1)))
    dx = at.get(operations_of(at.xp).contract_input_gradient(dy, at.put(np.ones((1, 2, 1))), w, (2, 9, 1)))
    assert (dx[:, [2, 5, 8]] == 0).all() and (dx[:, [0, 1, 3, 4, 6, 7]] != 0).all()


def test_an_empty_batch_contracts_to_an_empty_batch(at, rng, geometry):
    spatial, w = geometry
    _, (x, matrix, y), _ = operands(at, rng, geometry, groups=2, n=0)
    p = operations_of(at.xp)
    assert tuple(p.contract(x, matrix, w).shape) == (0, *w.count, 6)
    assert tuple(p.contract_input_gradient(y, matrix, w, tuple(x.shape)).shape) == (0, *spatial, 4)
    dw = p.contract_weight_gradient(x, y, w, 2)
    assert at.get(dw).tolist() == np.zeros(matrix.shape).tolist()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("block_bytes", [1, 1 << 10, 1 << 13])
def test_block_sizes_change_nothing_but_rounding(at, rng, monkeypatch, block_bytes, groups):
    geometry = ((5, 6), windows((3, 2), (1, 1), (1, 1), (5, 6)))
    w, (x, matrix, y), _ = operands(at, rng, geometry, groups, n=7, channels=4 // groups)
    p = operations_of(at.xp)

    def all_three():
        return (
            p.contract(x, matrix, w),
            p.contract_input_gradient(y, matrix, w, tuple(x.shape)),
            p.contract_weight_gradient(x, y, w, groups),
        )

    whole = all_three()
    monkeypatch.setattr(p, "block_bytes", block_bytes, raising=False)
    blocks = p.blocks(x.shape[0], w.count[0], 4 * x.shape[-1] * w.cells * np.prod(w.count[1:], dtype=int), x)
    assert len(blocks) > 1 and blocks[0].samples.start == 0 and blocks[-1].samples.stop == 7
    for blocked, once in zip(all_three(), whole, strict=True):
        nn.testing.assert_match(blocked, once, level="reduction", terms=7 * 12 * 12)


def test_extent_is_what_the_windows_reach():
    w = Windows((3,), (2,), (2,), (3,))
    assert w.extent == (9,) and w.cells == 3
    assert Windows((3,), (2,), (2,), (0,)).extent == (0,)


def test_a_known_namespace_gets_its_backends_operations(at):
    assert type(operations_of(at.xp)) is at.backend.operations
    assert operations_of(at.xp) is operations_of(at.xp)


class Nameless:
    """A namespace need not be a module."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(np, name)


@pytest.mark.parametrize("namespace", [ModuleType("jax.numpy"), Nameless()], ids=["module", "object"])
def test_an_unknown_namespace_gets_the_standard_operations(fresh_registry, namespace):
    assert type(operations_of(namespace)) is Operations


def tensor_on(kind):
    """A stand-in for a PyTorch tensor on a device, which tests without a GPU don't have."""
    return SimpleNamespace(device=SimpleNamespace(type=kind))


def test_blocks_on_a_gpu_are_large_for_cupy_and_pytorch_alike():
    from xpnn.backends.cupy import CupyOperations
    from xpnn.backends.torch import TorchOperations

    torch, cupy = TorchOperations(None), CupyOperations(None)
    assert torch.bytes_of_block(tensor_on("cpu")) == Operations.block_bytes
    assert torch.bytes_of_block(tensor_on("cuda")) == cupy.bytes_of_block(None) == 1 << 28
    assert len(torch.blocks(64, 1, 1 << 20, tensor_on("cpu"))) == 16
    assert len(torch.blocks(64, 1, 1 << 20, tensor_on("cuda"))) == 1


def test_blocks_of_exact_numerics_are_as_large_as_the_librarys_on_a_gpu():
    from xpnn.backends.torch import TorchOperations

    raw = TorchOperations(None)
    exact = ExactOperations(SimpleNamespace(contractions=None), raw)
    assert exact.bytes_of_block(tensor_on("cpu")) == Operations.block_bytes
    assert exact.bytes_of_block(tensor_on("cuda")) == 1 << 28


def test_a_constant_is_made_once_for_each_device(at):
    ops, made = Operations(at.xp), []
    like = at.put(np.ones(2, np.float32))

    def make():
        made.append(at.put(np.arange(3, dtype=np.float32)))
        return made[-1]

    first = ops.constant(make, like, "points", 3)
    assert ops.constant(make, like, "points", 3) is first
    assert ops.constant(make, like, "points", 4) is not first
    ops.clear_constants()
    assert ops.constant(make, like, "points", 3) is not first
    assert len(made) == 3


def test_constants_of_two_devices_are_two():
    first, second = (nn.get_backend(spec) for spec in ("strict", "strict:device1"))
    ops = Operations(first.xp)
    for b in (first, second, first):
        constant = ops.constant(lambda b=b: b.asarray(np.ones(3, np.float32)), b.asarray([1.0]), "ones")
        assert b.owns(constant)
