"""What is nearly an array: right numbers, or one error that says what to do."""

import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arguments import TABLE

import xpnn as nn
from xpnn import augment, testing
from xpnn.backends import origins, to_host
from xpnn.layers import functional

X = np.array([[0.5, 0.25, 0.75], [0.125, 0.5, 0.25], [0.75, 0.5, 0.125]], np.float32)
CLASSES = np.array([0, 2, 1])
HOST = nn.get_backend("numpy")


class Sub(np.ndarray):
    """Another package's subclass, such as one with units."""


class Foreign:
    """As strict as `jax.Array`: no operator and no item takes it for NumPy's, and nothing writes to it."""

    def __init__(self, host):
        self._host = host

    dtype = property(lambda self: self._host.dtype)
    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        return type(self)(self._host[index])

    def __setitem__(self, index, value):
        raise TypeError("arrays are immutable")

    def __bool__(self):
        raise TypeError("no array is true or false")


class JaxLike(Foreign):
    def __array_namespace__(self, api_version=None):
        raise ImportError("this namespace has none of NumPy's functions")

    def devices(self):
        return {"cpu:0"}

    def __array__(self, dtype=None, copy=None):
        return np.array(self._host, dtype)

    def __dlpack__(self, **options):
        return self._host.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._host.__dlpack_device__()


class DaskLike(Foreign):
    def __array_namespace__(self, api_version=None):
        raise ImportError("nothing is computed yet")

    def __array__(self, dtype=None, copy=None):
        return np.array(self._host, dtype)

    def compute(self):
        return self._host


class SparseLike(Foreign):
    """As `sparse.COO`: its ``__array__`` refuses, because the dense form may be large."""

    def __array_namespace__(self, api_version=None):
        raise ImportError("sparse")

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Cannot convert a sparse array to dense automatically.")

    def todense(self):
        return self._host


class OnlyArray:
    """As a tensor of TensorFlow: NumPy can have it, and it is of no standard."""

    def __init__(self, host):
        self._host = host

    def __array__(self, dtype=None, copy=None):
        return np.array(self._host, dtype)


class OnlyDLPack:
    def __init__(self, host):
        self._host = host

    def __dlpack__(self, **options):
        return self._host.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._host.__dlpack_device__()


def masked(x):
    return np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) % 2 == 0)


def structured(x):
    return np.zeros(x.shape, dtype=[("a", "f4")])


def sparse(x):
    return pytest.importorskip("scipy.sparse").csr_array(x)


# What to make of an array, and what the error must say.
REFUSED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "matrix": (np.asmatrix, r"np\.asarray\(x\)"),
    "masked": (masked, r"masked array.*x\.filled\(value\)"),
    "nothing masked": (lambda x: np.ma.masked_array(x), r"masked array.*x\.filled\(value\)"),
    "recarray": (lambda x: x.view(np.recarray), r"np\.asarray\(x\)"),
    "subclass": (lambda x: x.view(Sub), r"np\.asarray\(x\)"),
    "scipy.sparse": (sparse, r"x\.toarray\(\)"),
    "sparse": (SparseLike, r"x\.todense\(\)"),
    "complex": (lambda x: x.astype(complex), r"x\.real"),
    "objects": (lambda x: np.array([[None, "a", 1]] * len(x), object), "float32"),
    "text": (lambda x: np.full(x.shape, "a"), "float32"),
    "structured": (structured, r"x\['a'\]"),
    "dates": (lambda x: np.full(x.shape, "2020-01-01", "datetime64[D]"), "float32"),
}
# Taken where data comes from the host, for NumPy can have it; elsewhere the error says how to convert it.
CONVERTED = {
    "jax": (JaxLike, r"np\.asarray\(x\).*from_dlpack\(x\)"),
    "dask": (DaskLike, r"np\.asarray\(x\)"),
    "array alone": (OnlyArray, r"np\.asarray\(x\)"),
}
DLPACK = {"dlpack alone": (OnlyDLPack, r"from_dlpack\(x\)")}
# Another dtype that host data may have: converted there, refused by what computes.
DTYPES = {
    "float16": (lambda x: x.astype(np.float16), r"asarray\(x, 'float32'\)"),
    "longdouble": (lambda x: x.astype(np.longdouble), r"asarray\(x, 'float32'\)"),
    "other byte order": (lambda x: x.astype(x.dtype.newbyteorder()), r"asarray\(x, 'float32'\)"),
}


def dense():
    return nn.Dense(3, 3, seed=1)


def stepped(gradient):
    layer = dense()
    layer.parameters["weight"].grad = gradient
    nn.SGD(layer, lr=0.5).step()
    return layer.parameters["weight"].value


def clipped(gradient, clip=nn.clip_grad_norm):
    layer = dense()
    layer.parameters["weight"].grad = gradient
    clip(layer, 0.5)


def set_value(x):
    dense().parameters["weight"].value = x


def set_buffer(x):
    nn.BatchNorm1d(3).buffers["running_mean"] = x


def backward(x):
    layer = dense()
    layer(X)
    layer.backward(x)


def loss_backward(x):
    loss = nn.MSE("none")
    loss(X, X)
    loss.backward(x)


# Where arrays to compute with come in.
COMPUTE: dict[str, Callable[[Any], Any]] = {
    "layer": lambda x: nn.ReLU()(x),
    "layer with weights": lambda x: dense()(x),
    "model": lambda x: nn.Sequential(dense(), nn.Residual(nn.Tanh()))(x),
    "Layer.backward": backward,
    "prediction": lambda x: nn.MSE()(x, X),
    "target": lambda x: nn.MSE()(X, x),
    "target of probabilities": lambda x: nn.CrossEntropy()(X, x),
    "Loss.backward": loss_backward,
    "layer_outputs": lambda x: nn.layer_outputs(nn.Sequential(nn.ReLU()), x),
    "Parameter": lambda x: nn.Parameter(x),
    "Parameter.value": set_value,
    "gradient": stepped,
    "clip_grad_norm": clipped,
    "clip_grad_value": lambda x: clipped(x, nn.clip_grad_value),
    "buffer": set_buffer,
}
# Where data comes in from the host; each gives what it made of the data.
DATA: dict[str, Callable[[Any], Any]] = {
    "DataLoader x": lambda x: next(iter(nn.DataLoader(x, CLASSES, 3, shuffle=False)))[0],
    "DataLoader y": lambda x: next(iter(nn.DataLoader(X, x, 3, shuffle=False)))[1],
    "predict": lambda x: nn.predict(nn.Identity(), x),
    "evaluate": lambda x: nn.evaluate(nn.Identity(), (x, CLASSES)) and None,
    "fit": lambda x: nn.fit(dense(), (x, CLASSES), epochs=1, progress=False) and None,
    "weight of a loss": lambda x: nn.CrossEntropy(weight=x).weight.on(HOST, np.float32),
    "pos_weight of a loss": lambda x: nn.BinaryCrossEntropyWithLogits(pos_weight=x).pos_weight.on(HOST, np.float32),
    "to_host": lambda x: to_host(x),
    "load_state_dict": lambda x: loaded(x),
    "assert_match desired": lambda x: testing.assert_match(X, x, dtype="float32"),
    "ulp_distance": lambda x: _distance(x),
    "gradcheck": lambda x: testing.gradcheck(nn.Tanh(dtype="float64"), x),
    "first_difference": lambda x: testing.first_difference(nn.Tanh(), nn.Tanh(), x),
}


def _distance(x):
    assert not testing.ulp_distance(x, X).any()


def loaded(x):
    layer = dense()
    layer.load_state_dict({"weight": x, "bias": X[0]})
    return layer.parameters["weight"].value


def chosen(*tables):
    return [pytest.param(*row, id=name) for table in tables for name, row in table.items()]


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning of NumPy that a mask or an imaginary part is dropped is no error, and would be lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield


@pytest.mark.parametrize("use", [pytest.param(use, id=name) for name, use in COMPUTE.items()])
@pytest.mark.parametrize(("make", "hint"), chosen(REFUSED, CONVERTED, DLPACK))
def test_what_is_nearly_an_array_is_one_error_that_says_what_to_do(use, make, hint):
    with pytest.raises(TypeError, match=hint):
        use(make(X))


@pytest.mark.parametrize("use", [pytest.param(use, id=name) for name, use in COMPUTE.items() if "grad" not in name])
@pytest.mark.parametrize(("make", "hint"), chosen(DTYPES))
def test_other_dtypes_are_refused_with_the_call_that_converts_them(use, make, hint):
    with pytest.raises((TypeError, ValueError)) as caught:
        use(make(X))
    said = str(caught.value)
    assert re.search(hint, said) or "the output was float32" in said, said


@pytest.mark.parametrize("use", [pytest.param(use, id=name) for name, use in DATA.items()])
@pytest.mark.parametrize(("make", "hint"), chosen(REFUSED))
def test_data_that_is_no_plain_array_is_refused(use, make, hint):
    with pytest.raises(TypeError, match=hint):
        use(make(X))


def takes(entrance, kind):
    """Whether data of that kind may come in there: two of the entrances take arrays of their own dtypes alone."""
    strict = "ulp_distance" in entrance or "load_state_dict" in entrance
    return not (strict and kind in ("float16", "longdouble"))


@pytest.mark.parametrize(
    ("use", "make"),
    [
        pytest.param(use, make, id=f"{kind}-{entrance}")
        for kind, (make, _) in (CONVERTED | DTYPES).items()
        for entrance, use in DATA.items()
        if takes(entrance, kind)
    ],
)
def test_data_that_numpy_can_have_is_taken_as_it_is(use, make):
    given = use(make(X))
    if given is not None:
        assert type(given) is np.ndarray
        assert np.array_equal(given.astype(np.float64), X.astype(np.float64))


@pytest.mark.parametrize(("make", "hint"), chosen(REFUSED, {"jax": CONVERTED["jax"], "dask": CONVERTED["dask"]}))
@pytest.mark.parametrize("spec", ["numpy", "strict"])
def test_asarray_and_backend_of_say_the_same(spec, make, hint):
    for use in (nn.get_backend(spec).asarray, nn.backend_of):
        if use == nn.backend_of and make in (
            REFUSED[name][0] for name in ("complex", "objects", "text", "dates", "structured")
        ):
            continue
        with pytest.raises(TypeError, match=hint):
            use(make(X))


@pytest.mark.parametrize("make", [JaxLike, DaskLike, SparseLike, OnlyArray, OnlyDLPack])
@pytest.mark.parametrize("spec", ["numpy", "strict", "torch"])
def test_following_the_hint_works_the_first_time(make, spec):
    """The code in the message is run as it stands."""
    try:
        backend = nn.get_backend(spec)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))
    x = make(X)
    with pytest.raises(TypeError) as caught:
        nn.ReLU(backend=backend)(x)
    code = re.search(r"(nn\.get_backend.*?\)\)|x\.\w+\(\))(,|$)", str(caught.value))
    # NumPy's `asarray` makes an object of an array that offers DLPack alone.
    assert (code is None) == (make is OnlyDLPack), str(caught.value)
    if code is not None:
        converted = eval(code[1], {"nn": nn, "np": np, "x": x})
        assert np.array_equal(backend.to_numpy(nn.ReLU(backend=backend)(converted)), X)
    if hasattr(x, "__dlpack__"):
        shared = re.search(r"\w+\.from_dlpack\(x\)", str(caught.value))
        library = pytest.importorskip({"numpy": "numpy", "strict": "array_api_strict", "torch": "torch"}[spec])
        taken = eval(shared[0], {"np": np, "torch": library, "array_api_strict": library, "x": x})
        assert np.array_equal(backend.to_numpy(nn.ReLU(backend=backend)(taken)), X)


class TypedDLPack(OnlyDLPack):
    """As a tensor of dpctl: it says what it holds, and gives it through DLPack alone."""

    def __init__(self, host):
        super().__init__(host)
        self.dtype, self.shape = host.dtype, host.shape


@pytest.mark.parametrize("make", [OnlyDLPack, TypedDLPack])
@pytest.mark.parametrize("use", [nn.get_backend("numpy").asarray, lambda x: nn.DataLoader(x, X), nn.backend_of])
def test_dlpack_alone_is_named_where_data_is_taken(make, use):
    with pytest.raises(TypeError, match=r"got .*; share its memory with np\.from_dlpack\(x\)$"):
        use(make(X))


FUNCTIONS = {name.removeprefix("functional."): row for name, row in TABLE.items() if name.startswith("functional.")}
MASKED, SUBCLASS, JAX = REFUSED["masked"], REFUSED["subclass"], CONVERTED["jax"]


@pytest.mark.parametrize(
    ("make", "hint"), [MASKED, SUBCLASS, JAX, (lambda x: x.tolist(), "list"), (lambda x: None, "None")]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_pure_functions_take_plain_arrays_alone(name, make, hint):
    row = FUNCTIONS[name]
    given = {key: value for key, value in row.given.items() if isinstance(value, np.ndarray)}
    optional = {"mean", "var", *(["keep"] if name.startswith("attention") else [])}
    assert given
    for key, value in given.items():
        if hint == "None" and key in optional:
            continue
        with pytest.raises(TypeError, match=hint):
            getattr(functional, name)(**{**row.given, key: make(value)})
        if hint not in ("list", "None"):
            with pytest.raises(TypeError, match=hint):
                getattr(functional, name)(**{**row.given, key: make(value)}, xp=HOST.xp)


@pytest.mark.parametrize("watching", [False, True])
def test_pure_functions_take_arrays_of_a_library_without_a_backend(monkeypatch, watching):
    """As README says: any that keep to the standard, also once a backend with exact numerics was opened."""
    monkeypatch.setattr(origins, "watching", watching)
    tiny = load_copy_of_strict(monkeypatch)
    x, weight = tiny.asarray(X), tiny.asarray(X[:2])
    assert isinstance(functional.relu(x), type(x))
    assert np.allclose(np.from_dlpack(functional.dense(x, weight)), X @ X[:2].T)
    with pytest.raises(TypeError, match=r"arrays must be of one library, got .* of tinylib.* of numpy"):
        functional.dense(x, X)
    with pytest.raises(TypeError, match=r"from_dlpack\(x\)"):
        nn.ReLU()(x)


def load_copy_of_strict(monkeypatch):
    """A library that nothing in xpnn has heard of: a second copy of array-api-strict."""
    strict = pytest.importorskip("array_api_strict")
    spec = importlib.util.spec_from_file_location(
        "tinylib", strict.__file__, submodule_search_locations=list(strict.__path__)
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tinylib", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(type(module.empty(0)), "__array_namespace__", lambda array, api_version=None: module)
    return module


def test_arrays_of_two_libraries_in_a_pure_function_are_named():
    strict = nn.get_backend("strict").asarray(X)
    with pytest.raises(TypeError, match=r"arrays must be of one library, got .* of numpy.* of array_api_strict"):
        functional.relu_backward(X, strict)


def test_masked_arrays_in_a_list_keep_no_mask_and_are_refused():
    for data in ([masked(X[0]), X[1]], [[0.5, np.ma.masked]], [[X[0]], [masked(X[1])]]):
        for use in (HOST.asarray, nn.ReLU().backend.asarray, to_host, lambda data: nn.DataLoader(data, CLASSES[:2])):
            with pytest.raises(TypeError, match=r"x\.filled\(value\)"):
                use(data)


def test_arrays_in_a_file_are_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    mapped[...] = X
    for use in (nn.ReLU(), dense(), nn.Sequential(nn.Dense(3, 3, seed=2), nn.Softmax())):
        assert np.array_equal(use(mapped), use(X))
    assert nn.MSE()(mapped, X) == 0.0
    for name, use in DATA.items():
        given = use(mapped)
        assert given is None or type(given) is np.ndarray, name
    assert type(HOST.asarray(mapped)) is np.ndarray


@pytest.mark.parametrize("layer", [nn.ReLU, nn.Identity, nn.Flatten, nn.Sequential, lambda: nn.Dropout(0.0)])
def test_results_of_an_array_in_a_file_are_plain(layer, tmp_path):
    """A view or a copy of the class that says that it is in a file would be none of what NumPy gives elsewhere."""
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    layer = layer()
    assert type(layer(mapped)) is np.ndarray and type(layer.backward(mapped)) is np.ndarray
    for function in (functional.relu, functional.gelu, lambda x: functional.relu_backward(x, x)):
        assert type(function(mapped)) is np.ndarray


@pytest.mark.parametrize(("make", "hint"), [REFUSED["masked"], REFUSED["complex"], DTYPES["float16"]])
def test_a_container_without_layers_refuses_what_layers_refuse(make, hint):
    net = nn.Sequential()
    with pytest.raises(TypeError, match=rf"^Sequential\(\): the input .*{hint}"):
        net(make(X))
    net(X)
    with pytest.raises(TypeError, match=rf"^Sequential\(\): the upstream gradient .*{hint}"):
        net.backward(make(X))


def test_what_is_read_batch_by_batch_brings_no_masks():
    class Variable:
        """As a variable of netCDF4: it gives masked arrays."""

        shape, dtype = X.shape, X.dtype

        def __len__(self):
            return len(X)

        def __getitem__(self, index):
            return masked(X[index])

    for shuffle in (False, True):
        with pytest.raises(TypeError, match=r"x\.filled\(value\)"):
            list(nn.DataLoader(Variable(), CLASSES, 2, shuffle=shuffle))


def test_a_transform_takes_and_gives_plain_arrays():
    images, generator = np.full((2, 1, 4, 4), 0.5, np.float32), nn.random.Generator(0)
    for change in (augment.Flip(), augment.PadAndCrop(), augment.Cutout(2), augment.Normalise(0.5, 0.5)):
        with pytest.raises(TypeError, match=r"x\.filled\(value\)"):
            change(masked(images), generator)
    loader = nn.DataLoader(images, CLASSES[:2], transform=lambda x, generator: masked(x))
    with pytest.raises(ValueError, match="as many samples as its batch"):
        list(loader)


def test_what_was_wrong_before():
    """The mean of squares of a matrix was that of its matrix product, 13.5 in place of 7.5."""
    m = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(TypeError, match=r"numpy\.matrix of float64, shape \(2, 2\); .*np\.asarray\(x\)"):
        nn.MSE()(m, np.zeros_like(m))
    assert nn.MSE()(np.asarray(m), np.zeros((2, 2))) == 7.5


class TestTorch:
    """Subclasses of tensors, and those that are not dense."""

    @pytest.fixture
    def torch(self):
        try:
            nn.get_backend("torch")
        except nn.BackendUnavailable as error:
            pytest.skip(str(error))
        import torch

        return torch

    def test_subclasses_are_refused_and_parameters_are_not(self, torch):
        class Units(torch.Tensor):
            pass

        x = torch.from_numpy(X.copy())
        assert torch.equal(nn.ReLU(backend="torch")(torch.nn.Parameter(x)), x)
        for use in (nn.ReLU(backend="torch"), functional.relu, nn.MSE(), nn.backend_of, nn.Parameter):
            arguments = (x.as_subclass(Units),) * (2 if isinstance(use, nn.Loss) else 1)
            with pytest.raises(TypeError, match=r"x\.as_subclass\(torch\.Tensor\)"):
                use(*arguments)

    def test_sparse_tensors_are_refused(self, torch):
        x = torch.from_numpy(X.copy()).to_sparse()
        for use in (nn.ReLU(backend="torch"), functional.relu, nn.backend_of, nn.get_backend("torch").asarray):
            with pytest.raises(TypeError, match=r"x\.to_dense\(\)"):
                use(x)

    def test_data_with_a_graph_or_without_a_dtype_in_numpy_says_how(self, torch):
        x = torch.from_numpy(X.copy()).requires_grad_()
        with pytest.raises(TypeError, match=r"nn\.backend_of\(x\)\.to_numpy\(x\)"):
            nn.DataLoader(x, CLASSES)
