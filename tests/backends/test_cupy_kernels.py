"""CUDA kernels are compared with the array functions that they replace; the catalogue compares both with float64."""

import numpy as np
import pytest
from array_api_compat import array_namespace

import xpnn as nn
from xpnn import functional as F
from xpnn.backends import operations_of
from xpnn.backends.engines import cuda
from xpnn.backends.engines.cuda import compilation, cross_entropy, im2col, optimizer_steps, row_sums, winograd
from xpnn.testing import assert_match, cases
from xpnn.testing.compare import same_bits
from xpnn.testing.parity import Parity, run_host

SINGLE = [case.name for case in cases() if case.single]
CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def at(on_gpu):
    return on_gpu


@pytest.fixture
def array_path(monkeypatch):
    monkeypatch.setattr(cuda, "enabled", False)


@pytest.fixture(scope="module")
def truths():
    return {}


@pytest.mark.parametrize("start", range(8))
def test_the_array_path_matches_float64_and_numpy_too(at, array_path, truths, start):
    parity = Parity(at.backend)
    for name in SINGLE[start::8]:
        outcome = parity.judge(CASES[name], run_host(CASES[name], at.backend))
        assert outcome.passed, outcome.problem


def operations():
    """Each operation once, as a function of arrays ``(N, C, H, W)``, and its arguments."""
    g = np.random.default_rng(0)

    def draw(*shape):
        return g.normal(size=shape).astype("float32")

    classes = g.integers(0, 6, (3, 7, 5))
    return {
        "columns": (lambda x, w, b: F.conv(x, w, b, stride=2, padding=1), draw(3, 4, 7, 6), draw(6, 4, 3, 3), draw(6)),
        "columns, groups": (lambda x, w: F.conv(x, w, groups=2, padding=1), draw(3, 4, 7, 6), draw(6, 2, 3, 3)),
        "columns, one cell": (lambda x, w, b: F.conv(x, w, b), draw(3, 4, 7, 6), draw(6, 4, 1, 1), draw(6)),
        "columns, gradients": (
            lambda dy, x, w: F.conv_backward(dy, x, w, stride=2, padding=1),
            *(draw(3, 6, 4, 3), draw(3, 4, 7, 6), draw(6, 4, 3, 3)),
        ),
        "columns, gradients of groups": (
            lambda dy, x, w: F.conv_backward(dy, x, w, padding=1, groups=2),
            *(draw(3, 6, 7, 6), draw(3, 4, 7, 6), draw(6, 2, 3, 3)),
        ),
        "winograd": (lambda x, w, b: F.conv(x, w, b, padding=1), draw(4, 48, 14, 15), draw(64, 48, 3, 3), draw(64)),
        "winograd, gradients": (
            lambda dy, x, w: F.conv_backward(dy, x, w, padding=1),
            *(draw(4, 64, 14, 15), draw(4, 48, 14, 15), draw(64, 48, 3, 3)),
        ),
        "depthwise": (
            lambda x, w, b: F.conv(x, w, b, groups=4, padding=1),
            draw(3, 4, 7, 6),
            draw(8, 1, 3, 3),
            draw(8),
        ),
        "depthwise, gradients": (
            lambda dy, x, w: F.conv_backward(dy, x, w, groups=4, padding=1, stride=2),
            *(draw(3, 8, 4, 3), draw(3, 4, 7, 6), draw(8, 1, 3, 3)),
        ),
        "max pool": (lambda x: F.max_pool(x, 3, stride=2, padding=1, return_indices=True), draw(3, 4, 7, 6)),
        "max pool, gradient": (
            lambda dy, x: F.max_pool_backward(dy, x, 3, stride=2, padding=1),
            *(draw(3, 4, 4, 3), draw(3, 4, 7, 6)),
        ),
        "average pool": (lambda x: F.avg_pool(x, 3, stride=2, padding=1, count_include_pad=False), draw(3, 4, 7, 6)),
        "average pool, gradient": (
            lambda dy: F.avg_pool_backward(dy, (3, 4, 7, 6), 3, stride=2, padding=1),
            draw(3, 4, 4, 3),
        ),
        "batch norm": (lambda x, w, b: F.batch_norm(x, w, b), draw(3, 4, 7, 6), draw(4), draw(4)),
        "batch norm, statistics": (
            lambda x, w, m, v: F.batch_norm(x, w, mean=m, var=v * v),
            *(draw(3, 4, 7, 6), draw(4), draw(4), draw(4)),
        ),
        "batch norm, gradients": (F.batch_norm_backward, draw(3, 4, 7, 6), draw(3, 4, 7, 6), draw(4)),
        "cross-entropy": (lambda x, y, w: F.cross_entropy(x, y, weight=w * w), draw(3, 6, 7, 5), classes, draw(6)),
        "cross-entropy, gradient": (
            lambda x, y, w: F.cross_entropy_backward(2.0, x, y, weight=w * w),
            *(draw(3, 6, 7, 5), classes, draw(6)),
        ),
        "sum of rows": (lambda x: operations_of(array_namespace(x)).sum_rows(x), draw(50, 33)),
        "sum of rows by index": (
            lambda x, index: operations_of(array_namespace(x)).sum_rows_at(x, index, 7),
            *(draw(300, 133), g.integers(-1, 9, 300)),
        ),
    }


OPERATIONS = operations()


def flat(results):
    return [results] if hasattr(results, "dtype") else [each for each in results if each is not None]


def are_near(found, expected):
    """Whether they differ by rounding only, which is larger for Winograd's tiles."""
    return np.allclose(found, expected, rtol=0.0, atol=1e-5 * np.abs(expected).max())


def spread_out(at, host):
    """The same values in a strided array, with NaN or values out of range between them."""
    wide = np.full(tuple(2 * n + 1 for n in host.shape), np.nan if host.dtype.kind == "f" else 99, host.dtype)
    place = (slice(1, None, 2),) * host.ndim
    wide[place] = host
    return at.put(wide)[place]


def turned(at, host):
    """The same values with the order of the axes in memory reversed."""
    return at.put(np.ascontiguousarray(host.T)).T


@pytest.mark.parametrize("arrange", [spread_out, turned])
@pytest.mark.parametrize("name", OPERATIONS)
def test_arrays_may_have_any_strides(at, arrange, name):
    function, *hosts = OPERATIONS[name]
    plain = flat(function(*map(at.put, hosts)))
    for found, expected in zip(flat(function(*(arrange(at, host) for host in hosts))), plain, strict=True):
        # For another layout another kind of product may be used, whose sums have another order.
        assert are_near(at.get(found), at.get(expected)), name


@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels_and_array_functions_agree(at, monkeypatch, name):
    function, *hosts = OPERATIONS[name]
    arrays = [at.put(host) for host in hosts]
    kernels = flat(function(*arrays))
    monkeypatch.setattr(cuda, "enabled", False)
    for found, expected in zip(kernels, flat(function(*arrays)), strict=True):
        assert found.shape == expected.shape and found.dtype == expected.dtype, name
        assert are_near(at.get(found), at.get(expected)), name


@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels_give_the_same_bits_again(at, name):
    function, *hosts = OPERATIONS[name]
    arrays = [at.put(host) for host in hosts]
    once, again = flat(function(*arrays)), flat(function(*arrays))
    assert all(same_bits(at.get(a), at.get(b)) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("module", [im2col, winograd])
def test_parts_of_a_batch_give_what_the_whole_gives(at, monkeypatch, module):
    g = np.random.default_rng(0)
    x, dy, w = (at.put(g.normal(size=s).astype("float32")) for s in ((5, 48, 14, 15), (5, 64, 14, 15), (64, 48, 3, 3)))
    options = {"padding": 1, "algorithms": "direct" if module is im2col else "any"}
    whole = [F.conv(x, w, **options), *F.conv_backward(dy, x, w, **options)]
    monkeypatch.setattr(module, "PART_BYTES", 1)
    parts = [F.conv(x, w, **options), *F.conv_backward(dy, x, w, **options)]
    for found, expected in zip(parts, whole, strict=True):
        assert_match(found, at.get(expected), level="reduction", terms=48 * 9 * 5, backend=at.backend)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 1024, 1025, 5000, 140_000])
def test_rows_are_summed_whatever_their_number(at, count):
    x = np.random.default_rng(count).integers(-99, 99, (count, 35)).astype("float32")
    assert np.array_equal(at.get(operations_of(at.xp).sum_rows(at.put(x))), x.sum(axis=0))


def test_rows_are_shared_by_blocks_that_cover_them_all():
    for count in [*range(1, 50), *range(1000, 1100), 131_071, 131_072, 131_073, 999_999]:
        parts, length = row_sums.split(count)
        assert (parts - 1) * length < count <= parts * length and parts <= row_sums.MOST_PARTS


@pytest.mark.parametrize("cells", [2, 17, 1000, 3000, 140_000])
@pytest.mark.parametrize("offset", [0.0, 1000.1])
def test_batch_statistics_of_any_number_of_cells(at, cells, offset):
    x = (np.random.default_rng(cells).normal(size=(cells, 3)) + offset).astype("float32")
    layer = nn.BatchNorm1d(3, backend=at.backend)
    layer(at.put(x))
    wide = x.astype("float64")
    var = at.get(layer.buffers["running_var"])
    assert np.allclose(at.get(layer.buffers["running_mean"]), 0.1 * wide.mean(axis=0), rtol=1e-6, atol=1e-7)
    assert np.allclose(var, 0.9 + 0.1 * wide.var(axis=0, ddof=1), rtol=1e-5)


def test_equal_values_are_normalised_to_the_bias(at):
    x = np.full((7, 3, 11, 5), 1000.1, np.float32)
    y = F.batch_norm(at.put(x), at.put(np.ones(3, np.float32)), at.put(np.array([0.5, -2.0, 0.0], np.float32)))
    assert np.array_equal(at.get(y), np.broadcast_to(np.float32([[[[0.5]], [[-2.0]], [[0.0]]]]), x.shape))


RULES = {
    "sgd": lambda model: nn.SGD(model, lr=0.1, weight_decay=0.1),
    "momentum": lambda model: nn.SGD(model, lr=0.1, momentum=0.9, dampening=0.2),
    "nesterov": lambda model: nn.SGD(model, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda model: nn.Adam(model, lr=0.01, weight_decay=0.1),
    "adam, capturable": lambda model: nn.Adam(model, lr=0.01, capturable=True),
    "adamw": lambda model: nn.AdamW(model, lr=0.01),
    "adamw, capturable": lambda model: nn.AdamW(model, lr=0.01, capturable=True),
    "rmsprop": lambda model: nn.RMSprop(model, lr=0.01, weight_decay=0.1),
    "rmsprop, centered": lambda model: nn.RMSprop(model, lr=0.01, centered=True, momentum=0.5),
    "rmsprop, momentum": lambda model: nn.RMSprop(model, lr=0.01, momentum=0.5),
    "adagrad": lambda model: nn.Adagrad(model, lr=0.1, initial_accumulator_value=0.1, weight_decay=0.1),
    "adagrad, capturable": lambda model: nn.Adagrad(model, lr=0.1, lr_decay=0.1, capturable=True),
    "amsgrad": lambda model: nn.Adam(model, lr=0.01, amsgrad=True, betas=(0.8, 0.6), weight_decay=0.1),
    "amsgrad, capturable": lambda model: nn.AdamW(model, lr=0.01, amsgrad=True, betas=(0.8, 0.6), capturable=True),
    "maximize": lambda model: nn.Adam(model, lr=0.01, maximize=True, weight_decay=0.1),
    "adadelta": lambda model: nn.Adadelta(model, eps=1e-3, weight_decay=0.1),
    "adamax": lambda model: nn.Adamax(model, lr=0.01, betas=(0.8, 0.6), weight_decay=0.1),
    "adamax, capturable": lambda model: nn.Adamax(model, lr=0.01, betas=(0.8, 0.6), capturable=True),
    "nadam": lambda model: nn.NAdam(model, lr=0.01, weight_decay=0.1, momentum_decay=0.1),
    "nadam, capturable": lambda model: nn.NAdam(model, lr=0.01, capturable=True),
    "radam": lambda model: nn.RAdam(model, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1),
    "radam, long": lambda model: nn.RAdam(model, lr=0.01, betas=(0.8, 0.75), weight_decay=0.1),
    "radam, capturable": lambda model: nn.RAdam(model, lr=0.01, betas=(0.8, 0.75), capturable=True),
    "lion": lambda model: nn.Lion(model, lr=0.01, weight_decay=0.1),
}


def steps(at, make, count=optimizer_steps.TABLE_ROWS + 3, dtype="float32"):
    """All values and states after some steps with many parameters, on the host."""
    g = np.random.default_rng(0)
    b = nn.get_backend(at.backend, dtype)
    shapes = [(3, 2), (5,), (2, 3, 2, 2), (700, 3)]
    parameters = {f"p{i}": nn.Parameter(b.asarray(g.normal(size=shapes[i % 4]).astype(dtype))) for i in range(count)}
    optimizer = make(parameters)
    for _ in range(4):
        for parameter in parameters.values():
            parameter.grad = b.asarray(g.normal(size=parameter.shape).astype(dtype))
        optimizer.step()
    state = optimizer.state_dict()["state"]
    found = {name: b.to_numpy(parameter.value) for name, parameter in parameters.items()}
    for name, remembered in state.items():
        for key, value in remembered.items():
            found[f"{name}.{key}"] = b.to_numpy(value) if hasattr(value, "dtype") else np.array(value)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_a_step_with_all_parameters_is_the_step_with_each(at, monkeypatch, rule, dtype):
    together = steps(at, RULES[rule], dtype=dtype)
    monkeypatch.setattr(cuda, "enabled", False)
    each = steps(at, RULES[rule], dtype=dtype)
    assert together.keys() == each.keys()
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-14}
    for name, array in each.items():
        assert together[name].dtype == array.dtype and np.allclose(together[name], array, **near), name


def test_parameters_that_a_kernel_does_not_accept_are_updated_too(at):
    b, g = at.backend, np.random.default_rng(0)
    hosts = [g.normal(size=(6, 4)).astype("float32") for _ in range(4)]
    parameters = [nn.Parameter(b.asarray(host)) for host in hosts[:2]]
    optimizer = nn.SGD(parameters, lr=0.5)
    parameters[0].grad, parameters[1].grad = b.asarray(hosts[2]), b.asarray(np.repeat(hosts[3], 2, axis=0))[::2]
    optimizer.step()
    # The value has the memory layout of its first gradient; the next gradient has another one.
    parameters[1].grad = b.asarray(np.ascontiguousarray(hosts[3].T)).T
    parameters[0].grad = None
    optimizer.step()
    assert np.allclose(at.get(parameters[0].value), hosts[0] - 0.5 * hosts[2], rtol=1e-6)
    assert np.allclose(at.get(parameters[1].value), hosts[1] - hosts[3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_the_first_step_of_a_parameter_that_a_kernel_does_not_accept(at, rule):
    host = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    found = []
    for gradient in (at.put(host), at.put(np.repeat(host, 2, axis=0))[::2]):
        parameter = nn.Parameter(at.put(np.ones((6, 4), np.float32)))
        optimizer = RULES[rule]([parameter])
        for _ in range(2):
            parameter.grad = gradient
            optimizer.step()
        found.append(at.get(parameter.value))
    assert np.allclose(*found, rtol=1e-5)


def test_a_subclass_with_its_own_step_is_not_computed_by_the_kernel(at):
    class Halved(nn.SGD):
        def _step(self, gradient, state, xp):
            return super()._step(gradient, state, xp) * 0.5

    parameter = nn.Parameter(at.put(np.zeros(3, np.float32)))
    parameter.grad = at.put(np.ones(3, np.float32))
    Halved([parameter], lr=1.0).step()
    assert at.get(parameter.value).tolist() == [-0.5] * 3


@pytest.mark.parametrize("capturable", [True, False])
def test_a_subclass_with_its_own_counts_is_not_computed_by_the_kernel(at, capturable):
    class Frozen(nn.Adam):
        def _advance(self, kept, b):
            return super()._advance(kept, b)[0], 0.0

    parameter = nn.Parameter(at.put(np.ones(3, np.float32)))
    parameter.grad = at.put(np.ones(3, np.float32))
    Frozen([parameter], lr=1.0, capturable=capturable).step()
    assert at.get(parameter.value).tolist() == [1.0] * 3


def test_a_kernel_refuses_arrays_that_are_not_contiguous(at):
    text = compilation.Source('extern "C" __global__ void touch(T* x, Index count) {}')
    with pytest.raises(ValueError, match="arrays of a kernel must be C-contiguous, got shape"):
        text.each("touch", "float32", 3, at.put(np.zeros((3, 3), np.float32))[:, 0])


def test_kernels_can_be_disabled(at, array_path):
    assert operations_of(at.xp).prepare("sum of rows", None, "float32") is None


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 40, 8, 8)])
def test_an_empty_batch_passes_and_has_zero_gradients(at, shape):
    model = nn.Sequential(
        nn.Conv2d(shape[1], 40, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Conv2d(40, 40, 1),
        backend=at.backend,
    )  # fmt: skip
    y = model(at.put(np.zeros(shape, np.float32)))
    dx = model.backward(at.put(np.zeros(tuple(y.shape), np.float32)))
    assert dx.shape == shape
    assert all(not at.get(p.grad).any() for _, p in model.named_parameters())


def backwards(at, host):
    """The same values, with a negative stride along each axis."""
    place = (slice(None, None, -1),) * host.ndim
    return at.put(np.ascontiguousarray(host[place]))[place]


def one_for_all(at, host):
    """One value, broadcast to the shape."""
    return at.xp.broadcast_to(at.put(host.ravel()[0]), host.shape)


def one_row(at, host):
    """One row of channels for all samples and cells."""
    row = host[(slice(1), slice(None), *(slice(1),) * (host.ndim - 2))]
    return at.xp.broadcast_to(at.put(row), host.shape)


@pytest.mark.parametrize("arrange", [backwards, one_for_all, one_row])
@pytest.mark.parametrize("name", OPERATIONS)
def test_arrays_may_have_negative_or_zero_strides(at, arrange, name):
    function, *hosts = OPERATIONS[name]
    arrays = [arrange(at, host) if host.ndim > 1 else at.put(host) for host in hosts]
    plain = flat(function(*(at.put(at.get(array)) for array in arrays)))
    for found, expected in zip(flat(function(*arrays)), plain, strict=True):
        assert np.allclose(at.get(found), at.get(expected), rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("arrange", [backwards, one_for_all, one_row])
def test_rows_of_one_channel_may_have_any_strides(at, arrange):
    x, dy = (np.random.default_rng(0).normal(size=(5, 1, 4, 3)).astype("float32") for _ in range(2))
    x, dy = arrange(at, x), arrange(at, dy)
    plain = [at.put(at.get(each)) for each in (dy, x)]
    for found, expected in zip(F.batch_norm_backward(dy, x), F.batch_norm_backward(*plain), strict=True):
        assert np.allclose(at.get(found), at.get(expected), rtol=1e-4, atol=1e-4)
    rows = dy[:, :, 0, 0]
    assert np.allclose(at.get(operations_of(at.xp).sum_rows(rows)), at.get(rows).sum(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_with_given_statistics_the_gradient_does_not_depend_on_the_input(at, odd):
    x, dy = (np.random.default_rng(0).normal(size=(4, 2, 3)).astype("float32") for _ in range(2))
    x[1, 1, 1] = odd
    mean, var = at.put(np.zeros(2, np.float32)), at.put(np.full(2, 0.25, np.float32))
    dx, _, dbias = F.batch_norm_backward(at.put(dy), at.put(x), mean=mean, var=var, eps=0.0)
    assert np.allclose(at.get(dx), 2 * dy, rtol=1e-6) and np.allclose(at.get(dbias), dy.sum(axis=(0, 2)), rtol=1e-5)


def test_an_upstream_gradient_may_be_a_number_of_numpy(at):
    g = np.random.default_rng(0)
    x, y = at.put(g.normal(size=(5, 3)).astype("float32")), at.put(g.integers(0, 3, 5))
    found, expected = (F.cross_entropy_backward(dy, x, y) for dy in (np.float64(0.5), 0.5))
    assert same_bits(at.get(found), at.get(expected))


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "uint64"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_batches_are_counted_in_the_dtype_in_which_they_were_loaded(at, dtype, momentum):
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    layer = nn.BatchNorm1d(3, momentum=momentum, backend=at.backend)
    state = {**layer.state_dict(), "num_batches_tracked": at.put(np.array(4, dtype))}
    layer.load_state_dict(state)
    layer(at.put(x))
    assert int(at.get(layer.buffers["num_batches_tracked"])) == 5
    share = momentum or 1 / 5
    assert np.allclose(at.get(layer.buffers["running_mean"]), share * x.mean(axis=0), rtol=1e-5, atol=1e-6)


def first_steps(at, make, gradient, **more):
    """The value after two steps with a gradient, whose memory layout may differ from that of the value."""
    parameter = nn.Parameter(at.put(np.ones((4, 3), np.float32)))
    parameter.adopt_value()
    optimizer = make([parameter], **more)
    for _ in range(2):
        parameter.grad = gradient
        optimizer.step()
    return at.get(parameter.value)


@pytest.mark.parametrize("rule", RULES)
def test_the_first_step_with_a_gradient_of_another_memory_layout(at, rule):
    host = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    found, expected = (first_steps(at, RULES[rule], given) for given in (turned(at, host), at.put(host)))
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_parameter_given_twice_is_updated_twice(at, monkeypatch, rule):
    def last():
        parameter = nn.Parameter(at.put(np.ones(3, np.float32)))
        optimizer = RULES[rule]({"one": parameter, "other": parameter})
        for _ in range(3):
            parameter.grad = at.put(np.ones(3, np.float32))
            optimizer.step()
        return at.get(parameter.value)

    found = last()
    monkeypatch.setattr(cuda, "enabled", False)
    assert np.allclose(found, last(), rtol=1e-6)


@pytest.mark.parametrize(("rule", "dtype"), [("adam", "float32"), ("adagrad", "int32"), ("adagrad", "float64")])
def test_counts_may_be_loaded_in_another_dtype(at, rule, dtype):
    def last(cast):
        parameter = nn.Parameter(at.put(np.ones(3, np.float32)))
        optimizer = RULES[f"{rule}, capturable"]([parameter])
        for _ in range(3):
            parameter.grad = at.put(np.ones(3, np.float32))
            optimizer.step()
            state = optimizer.state_dict()
            for key, value in state["state"]["0"].items():
                if not value.ndim and cast:
                    state["state"]["0"][key] = value.astype(dtype)
            optimizer.load_state_dict(state)
        return at.get(parameter.value)

    assert np.allclose(last(cast=True), last(cast=False), rtol=1e-5)


@pytest.mark.parametrize(
    "count",
    [
        1,
        255,
        256,
        257,
        cross_entropy.TARGETS_OF_BLOCK,
        cross_entropy.TARGETS_OF_BLOCK + 1,
        5 * cross_entropy.TARGETS_OF_BLOCK + 3,
    ],
)
def test_the_loss_of_any_number_of_targets(at, count):
    g = np.random.default_rng(count)
    logits, target = g.normal(size=(count, 3)), g.integers(0, 3, count)
    weight = np.array([0.5, 1.0, 2.0])
    ignored = np.arange(count) % 5 == 0
    shares = np.where(ignored, 0.0, weight[target])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    terms = -np.log(p[np.arange(count), target]) * shares
    slopes = (p - np.eye(3)[target]) * shares[:, None]
    arrays = [at.put(logits.astype("float32")), at.put(np.where(ignored, -100, target))]
    w = at.put(weight.astype("float32"))
    for reduction, by in (("sum", 1.0), ("mean", shares.sum() or np.nan)):
        value = F.cross_entropy(*arrays, weight=w, reduction=reduction)
        dx = F.cross_entropy_backward(1.0, *arrays, weight=w, reduction=reduction)
        assert np.allclose(at.get(value), terms.sum() / by, rtol=1e-5, equal_nan=True)
        assert np.allclose(at.get(dx), slopes / np.nan_to_num(by, nan=1.0), rtol=1e-5, atol=1e-6 * (1.0 / count))
