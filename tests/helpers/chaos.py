"""An adversarial Array API namespace over NumPy, which chooses at random whatever the standard leaves open.

Libraries and processors that follow the standard and IEEE 754 still differ: in the order of a sum, in the last bits of
an exponential, in the treatment of subnormal numbers and of the sign of zero. Code that has one result here for every
seed has it on each of them. Operations that are fixed stay exact: an addition, multiplication or division of arrays,
comparisons, rounding, casts, integers, selection.

Arrays are a class of their own that combines with no other, not even with NumPy's, so that every operation passes
through this namespace. It has nothing beyond the standard, and no complex numbers. `ChaosBackend` runs whole models:

    with chaos_backend(seed=3) as backend:
        model = nn.Dense(4, 2, backend=backend)
"""

import importlib.metadata
from contextlib import contextmanager
from functools import partial

import array_api_compat.numpy as base
import chaos_sums as sums
import numpy as np
import pytest
from chaos_array import ChaosArray, agree, arrays_in
from chaos_sums import Dice

import xpnn as nn
from xpnn.backends import lookup, registry

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]
CONSTANTS = ["e", "inf", "nan", "newaxis", "pi"]

# Name of the rule in `Chaos` -> the functions that follow it. A name that is not here does not exist.
RULES = {
    "same": """asarray can_cast copysign eye finfo full full_like iinfo isdtype isfinite isin isinf isnan
        logical_and logical_not logical_or logical_xor meshgrid nextafter ones ones_like repeat result_type roll
        searchsorted signbit sort take take_along_axis tile tril triu zeros zeros_like bitwise_and bitwise_invert
        bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor broadcast_shapes linalg.diagonal""",
    "joined": "concat stack where",
    "seen": """broadcast_arrays broadcast_to expand_dims flip matrix_transpose moveaxis permute_dims reshape squeeze
        unstack linalg.matrix_transpose""",
    "computed": """abs add all any argmax argmin astype ceil count_nonzero diff equal floor greater greater_equal less
        less_equal multiply negative nonzero not_equal positive remainder sign square subtract trunc linalg.outer""",
    "extreme": "clip max maximum min minimum round",
    "elementary": """acos acosh asin asinh atan atan2 atanh cos cosh exp expm1 hypot log log10 log1p log2 logaddexp pow
        reciprocal sin sinh tan tanh""",
    "grid": "arange linspace",
    "root": "sqrt",
    "quotient": "divide floor_divide",
    "reduction": "mean prod std sum var linalg.trace",
    "cumulation": "cumulative_prod cumulative_sum",
    "contraction": "matmul tensordot vecdot linalg.matmul linalg.tensordot linalg.vecdot",
    "decomposition": """linalg.cholesky linalg.cross linalg.det linalg.eigh linalg.eigvalsh linalg.inv
        linalg.matrix_norm linalg.matrix_power linalg.matrix_rank linalg.pinv linalg.qr linalg.slogdet linalg.solve
        linalg.svd linalg.svdvals linalg.vector_norm""",
    "unwritten": "empty empty_like",
    "unstable": "argsort",
    "unordered": "unique_all unique_counts unique_inverse unique_values",
}
RULE_OF = {name: rule for rule, functions in RULES.items() for name in functions.split()}
LARGE = {"matmul": sums.contracted, "tensordot": sums.tensordotted, "vecdot": sums.vecdotted}
FLOATS_ONLY = {"divide", "mean", "std", "var", *RULES["elementary"].split(), "sqrt"} - {"pow"}


class Chaos:
    """The namespace: the functions of the standard by name. Every call chooses at random.

    Parameters
    ----------
    seed : int
        Seed of the choices.
    fixed : collection of str
        Of `chaos_sums.KINDS`: where nothing is chosen, such as ``{"sqrt"}`` for code that relies on IEEE 754 there.
    """

    def __init__(self, seed, fixed=(), name="chaos"):
        self.__name__ = name
        self.__array_api_version__ = base.__array_api_version__
        self.reseed(seed, fixed)

    def reseed(self, seed, fixed=()):
        """Seed the choices again."""
        self.dice = Dice(seed, fixed)

    def __getattr__(self, name):
        if name in DTYPES:
            return np.dtype(name)
        if name in CONSTANTS:
            return getattr(base, name)
        if name == "linalg":
            return Linalg(self)
        if name not in RULE_OF:
            raise AttributeError(f"{name!r} is not in the array API standard, or not in chaos")
        return partial(self._call, name)

    def __array_namespace_info__(self):
        return base.__array_namespace_info__()

    def __reduce__(self):
        # By name, as a module: copies and pickles of the backend's arrays stay in its namespace. Others do not pickle.
        return "NAMESPACE"

    def __repr__(self):
        return f"<{self.__name__}: an array namespace of dice>"

    def _call(self, name, /, *args, **kwargs):
        door_in = name == "asarray"
        args, kwargs = self._unwrap(args, door_in), self._unwrap(kwargs, door_in)
        last = name.rpartition(".")[2]
        function = getattr(base.linalg if "." in name else base, last)
        if last in FLOATS_ONLY and any(x.dtype.kind != "f" for x in arrays_in(args)):
            raise TypeError(f"{name} accepts only floating-point arrays")
        self.dice.throw_call()
        with np.errstate(all="ignore"):
            return self._wrap(getattr(self, f"_{RULE_OF[name]}")(last, function, *args, **kwargs))

    def _unwrap(self, value, door_in=False):
        if isinstance(value, ChaosArray):
            if value._xp is not self:
                raise TypeError("arrays of two namespaces do not mix")
            return value._data
        if isinstance(value, np.ndarray | np.generic) and not door_in:
            raise TypeError(f"a NumPy {type(value).__name__} is not an array of {self.__name__}; use asarray")
        if type(value) in (list, tuple):
            return type(value)(self._unwrap(v, door_in) for v in value)
        return {k: self._unwrap(v, door_in) for k, v in value.items()} if isinstance(value, dict) else value

    def _wrap(self, value):
        if isinstance(value, np.ndarray | np.generic):
            return ChaosArray(self, np.asarray(value))
        if isinstance(value, list | tuple):
            parts = [self._wrap(v) for v in value]
            return type(value)._make(parts) if hasattr(value, "_fields") else type(value)(parts)
        return value

    def _same(self, name, function, *args, **kwargs):
        result = function(*args, **kwargs)
        shared = name == "asarray" and isinstance(args[0], np.ndarray) and kwargs.get("copy") is None
        return self._view_or_copy(result) if shared else result

    def _seen(self, name, function, *args, **kwargs):
        result = function(*args, **kwargs)
        if kwargs.get("copy") is not None:
            return result
        if isinstance(result, list | tuple):
            return type(result)(map(self._view_or_copy, result))
        return self._view_or_copy(result)

    def _view_or_copy(self, result):
        return result.copy() if self.dice.throws("alias") else result

    def _joined(self, name, function, *args, **kwargs):
        agree(name, arrays_in(args[1:] if name == "where" else args), ())
        return function(*args, **kwargs)

    def _computed(self, name, function, *args, **kwargs):
        if name != "astype":
            agree(name, arrays_in(args), args)
        read = [self.dice.read(value) for value in args]
        result = function(*read, **kwargs)
        return self._write(result) if name not in ("argmax", "argmin", "nonzero") else result

    def _extreme(self, name, function, *args, **kwargs):
        kwargs = {key: self.dice.read(value) for key, value in kwargs.items()}
        return self.dice.zeros(np.asarray(self._computed(name, function, *args, **kwargs)))

    def _elementary(self, name, function, *args):
        agree(name, arrays_in(args), args)
        result = np.asarray(function(*map(self.dice.read, args)))
        return self._write(self.dice.nudged(result, 2, "ulp"))

    def _decomposition(self, name, function, *args, **kwargs):
        # The standard does not fix the signs of vectors either, but these are left as they are.
        result = function(*args, **kwargs)
        if isinstance(result, tuple):
            return type(result)(*(self.dice.nudged(np.asarray(part), 2, "ulp") for part in result))
        return self.dice.nudged(np.asarray(result), 2, "ulp")

    def _grid(self, name, function, *args, **kwargs):
        return self.dice.nudged(function(*args, **kwargs), 2, "ulp")

    def _root(self, name, function, x):
        return self._write(sums.rooted(self.dice, self.dice.read(x)))

    def _quotient(self, name, function, a, b):
        agree(name, arrays_in((a, b)), (a, b))
        return self._write(sums.quotient(self.dice, self.dice.read(a), self.dice.read(b), name == "floor_divide"))

    def _reduction(self, name, function, x, **kwargs):
        if np.dtype(kwargs.get("dtype") or x.dtype).kind != "f":
            return function(x, **kwargs)
        return sums.traced(self.dice, x, **kwargs) if name == "trace" else sums.reduced(self.dice, name, x, **kwargs)

    def _cumulation(self, name, function, x, **kwargs):
        if np.dtype(kwargs.get("dtype") or x.dtype).kind != "f":
            return function(x, **kwargs)
        return sums.cumulated(self.dice, name, x, **kwargs)

    def _contraction(self, name, function, a, b, **kwargs):
        agree(name, (a, b), ())
        floats = a.dtype.kind == "f"
        return LARGE[name](self.dice, a, b, **kwargs) if floats else function(a, b, **kwargs)

    def _unwritten(self, name, function, *args, **kwargs):
        result = function(*args, **kwargs)
        if "garbage" in self.dice.fixed:
            return np.zeros_like(result)
        junk = np.frombuffer(self.dice.rng.bytes(result.nbytes), np.uint8)
        return (junk % 2 == 1 if result.dtype == np.bool_ else junk.view(result.dtype)).reshape(result.shape).copy()

    def _unstable(self, name, function, x, **kwargs):
        return sums.argsorted(self.dice, function, x, **kwargs)

    def _unordered(self, name, function, x):
        kind = {"unique_values": None}.get(name, type(function(x)))
        return sums.uniques(self.dice, base.unique_all, kind, x)

    def _write(self, result):
        return self.dice.write(np.asarray(result))


class Linalg:
    """The extension ``linalg`` of a `Chaos` namespace."""

    def __init__(self, xp):
        self._xp = xp

    def __getattr__(self, name):
        return getattr(self._xp, f"linalg.{name}")


def chaos(seed, fixed=()):
    """A new namespace; see `Chaos`."""
    return Chaos(seed, fixed)


NAMESPACE = Chaos(0)


def reseed(seed, fixed=()):
    """Seed the choices of the backend again."""
    NAMESPACE.reseed(seed, fixed)


class ChaosBackend(nn.Backend):
    """The namespace as a backend, which a test registers as a plugin does."""

    library = ChaosArray.__module__

    @classmethod
    def connect(cls, device):
        return "chaos", NAMESPACE, ChaosArray.device

    @classmethod
    def spec_of(cls, array):
        return "chaos"

    @classmethod
    def version(cls):
        return f"over NumPy {np.__version__}"

    def owns(self, array):
        return isinstance(array, ChaosArray) and array.__array_namespace__() is NAMESPACE

    def _put(self, host):
        return self.xp.asarray(host, copy=True)

    def _get(self, array):
        return array._data.copy()


def register(monkeypatch):
    """Make ``get_backend("chaos")`` work until the patch is undone."""
    entry = importlib.metadata.EntryPoint("chaos", f"{__name__}:ChaosBackend", registry.GROUP)
    found = registry.entry_points
    monkeypatch.setattr(registry, "entry_points", lambda group: [*found(group=group), entry])
    for module, cache in ((registry, "_opened"), (lookup, "_operations")):
        monkeypatch.setattr(module, cache, dict(getattr(module, cache)))


@contextmanager
def chaos_backend(seed=0, fixed=(), dtype=None, numerics=None):
    """Within the ``with`` block there is a backend ``"chaos"`` with that seed; yields it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        register(monkeypatch)
        reseed(seed, fixed)
        yield nn.get_backend("chaos", dtype, numerics)
