"""The package as a whole: what importing it does, which names it has, and which of its packages import which."""

import ast
import copy
import functools
import inspect
import pickle
import re
import subprocess
import sys
import types
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from array_lint import ON_HOST, complaints, hidden_waits

import xpnn as nn
from xpnn.common import other_names

ROOT = Path(nn.__file__).parent
# A package may import from those after it only.
OTHER_FUNCTIONS = "conv2d conv, linear dense, max_pool2d max_pool, hardswish hard_swish, mean_absolute_error mae"
PACKAGES = [
    "scripts",
    "cli",
    "testing",
    "interop.sklearn",
    "training",
    "distributed",
    "interop",
    "layers",
    "backends",
    "common",
]
# Packages within another one that have a place of their own in this order.
WITHIN = {"interop": ["interop.sklearn"]}
INDEPENDENT = {("testing", "interop")}
# Losses of classes read their targets where that is free: on the host.
READING = {"class_targets.py", "class_loss.py", "embedding.py"}


def modules(package):
    elsewhere = [folder_of(each) for each in WITHIN.get(package, ())]
    found = folder_of(package).rglob("*.py")
    return sorted(path for path in found if not any(path.is_relative_to(folder) for folder in elsewhere))


def folder_of(package):
    return ROOT.joinpath(*package.split("."))


def imported(path):
    """A pair for each import of a file of the package, wherever in the file: the module, and the full name imported."""
    package = ["xpnn", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((module, f"{module}.{alias.name}") for alias in node.names)


def imports(path):
    """Absolute names of all modules that a file of the package imports, and of what it imports from them."""
    for pair in imported(path):
        yield from pair


def test_no_modules_import_each_other_in_a_circle():
    """Neither in functions nor for types."""
    paths = {path: ["xpnn", *path.relative_to(ROOT).with_suffix("").parts] for p in PACKAGES for path in modules(p)}
    names = {".".join(parts).removesuffix(".__init__"): path for path, parts in paths.items()}
    graph = {
        name: {found if found in names else module for module, found in imported(path)} & names.keys() - {name}
        for name, path in names.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(names)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_from_below(package):
    above = PACKAGES[: PACKAGES.index(package)]
    forbidden = {f"xpnn.{name}" for name in above} | {f"xpnn.{b}" for a, b in INDEPENDENT if a == package}
    for path in modules(package):
        for name in imports(path):
            assert not any(name == f or name.startswith(f + ".") for f in forbidden), f"{path.name} imports {name}"


def test_layers_name_no_array_library():
    for path in modules("layers"):
        taken = {name.partition(".")[0] for name in imports(path)}
        assert not taken & {"numpy", "cupy", "torch", "jax", "array_api_strict"}, path.name


def test_only_backends_conversions_and_groups_name_cupy_or_torch():
    for package in set(PACKAGES) - {"backends", "cli", "distributed", "scripts"}:
        for path in set(modules(package)) - set(modules("interop/torch")):
            taken = {name.partition(".")[0] for name in imports(path)}
            assert not taken & {"cupy", "torch", "array_api_strict"}, path.name


@pytest.mark.parametrize("package", ["layers", "training"])
def test_code_on_arrays_keeps_to_what_has_the_same_bits_everywhere(package):
    found = [
        f"{path.name}:{line}: {what}"
        for path in modules(package)
        for line, what in complaints(path.read_text(), path.name)
    ]
    assert found == []


def test_code_on_arrays_never_makes_the_host_wait():
    packages = [path for package in ("layers", "training") for path in modules(package) if path.name not in ON_HOST]
    # The probe runs once for a device.
    exact = [path for path in modules("backends/exact") if path.name != "probe.py"]
    found = [
        f"{path.name}:{line}: {what}"
        for path in [*packages, *exact, *modules("backends/random")]
        for line, what in hidden_waits(path.read_text())
        if path.name not in READING or not what.startswith("a number of the host made of an array,")
    ]
    assert found == []


@pytest.mark.parametrize(
    "line, what",
    [
        ("y = xp.clip(x, 0.0, 1.0)", "clip, which waits for the device"),
        ("f = partial(self.xp.sign)", "sign, which waits for the device"),
        ("i = xp.nonzero(x)", "nonzero, which waits for the device"),
        ("v = raw.unique_values(x)", "unique_values, which waits for the device"),
        ("y = x[x > 0.0]", "a mask as an index, which waits for the device"),
        ("x[:, ~xp.isnan(w)] = 0.0", "a mask as an index, which waits for the device"),
        ("m = (x < 1.0) | (x > 2.0)\nx[m] = 0.0", "a mask as an index, which waits for the device"),
        ("y = x[[0, 2], :]", "a list as an index, which is copied from the host"),
        ("n = float(xp.sum(x))", "a number of the host made of an array, which waits for the device"),
        ("y = xp.repeat(x, xp.astype(w, xp.int64))", "repeat by numbers of the device, which waits for it"),
        ("y = xp.asarray([1.0, 2.0])", "asarray of numbers of the host, which are copied"),
        ("y = b.xp.asarray([float(n) for n in sizes])", "asarray of numbers of the host, which are copied"),
        ("y = xp.concat(parts)", "concat of any number of arrays, which copies a table of them: concat_all does not"),
        (
            "y = xp.stack([f(p) for p in x])",
            "stack of any number of arrays, which copies a table of them: concat_all does not",
        ),
    ],
)
def test_the_lint_of_hidden_waits_sees(line, what):
    for text in (line, "def f(x, w):\n" + "\n".join(f"    {part}" for part in line.split("\n"))):
        assert [found for _, found in hidden_waits(text)] == [what]


@pytest.mark.parametrize(
    "line",
    [
        "y = clamp(x, 0.0, 1.0, xp)",
        "y = xp.minimum(xp.maximum(x, 0.0), 1.0)",
        "y = xp.where(x > 0.0, x, w)",
        "y = x[:, 1:]",
        "y = parts[0 if alone is None else 1]",
        "y = xp.take(x, i, axis=0)",
        "y = xp.concat([x, w], axis=1)",
        "y = concat_all(parts, 0, xp)",
        "y = xp.asarray(x, copy=True)",
        "y = xp.repeat(x, times, axis=1)",
        "n = float(rate)",
    ],
)
def test_the_lint_of_hidden_waits_lets_through(line):
    assert list(hidden_waits(line)) == []


@pytest.mark.parametrize(
    "line, what",
    [
        ("y = x / 2.0", "division by a number"),
        ("y = x / -3", "division by a number"),
        ("x /= 7", "division by a number"),
        ("y = 3.0 / x", "division of a number other than 1"),
        ("y = 3.0 / (x + 1.0)", "division of a number other than 1"),
        ("y = 2.0 / xp.sqrt(x)", "division of a number other than 1"),
        ("y = x**2", "**"),
        ("y = 2.0**x", "**"),
        ("x **= 2", "**"),
        ("y = x @ w", "@"),
        ("x @= w", "@"),
        ("y = xp.pow(x, w)", "pow with an exponent that may be an array"),
        ("y = self.backend.xp.pow(x, 1.0 / w)", "pow with an exponent that may be an array"),
        ("y = xp.cumulative_sum(x)", "cumulative_sum, which has no exact form"),
        ("y = b.xp.cumulative_prod(x)", "cumulative_prod, which has no exact form"),
        ("y = xp.sin(x)", "sin, which has no exact form"),
        ("y = xp.linalg.norm(x)", "linalg, which has no exact form"),
        ("y = x.sum()", ".sum()"),
        ("y = (x * x).mean(axis=1)", ".mean()"),
        ("y = x.dot(w)", ".dot()"),
        ("y = x.cumsum(0)", ".cumsum()"),
        ("x[xp.argmax(w, axis=1)] = 1.0", "assignment to computed places"),
        ("x[:, xp.astype(w, xp.int64)] += 1.0", "assignment to computed places"),
        ("i = xp.argsort(w)\nx[i] = 0.0", "assignment to computed places"),
        ("x.index_add_(0, i, w)", "index_add_"),
        ("import numpy as np", "numpy"),
        ("from numpy import exp", "numpy"),
        ("import math", "math as a module"),
        ("from math import exp", "exp of math"),
        ("from math import cos, pi", "cos of math"),
    ],
)
def test_the_lint_of_code_on_arrays_sees(line, what):
    for text in (line, "def f(x, w):\n" + "\n".join(f"    {part}" for part in line.split("\n"))):
        assert [found for _, found in complaints(text)] == [what]


@pytest.mark.parametrize(
    "line",
    [
        "y = x * (1.0 / 6.0)",
        "y = 1.0 / xp.sqrt(x)",
        "y = x / scalar(3.0, x, xp)",
        "least = 2.0**-24",
        "y = 2.0 / sqrt(pi)",
        "y = 2.0 * x / (1.0 + w)",
        "y = xp.pow(x, float(p))",
        "def f(x, p: float):\n    return xp.pow(x, 1.0 / p)",
        "y = xp.sum(x, axis=1)",
        "x[:, 1:] = w",
        "x[index] += w",
        "from math import prod, sqrt",
    ],
)
def test_the_lint_of_code_on_arrays_lets_through(line):
    assert list(complaints(line)) == []


def test_importing_xpnn_loads_no_optional_package():
    heavy = ["cupy", "torch", "matplotlib", "sklearn", "rich", "pytest", "array_api_strict", "scipy"]
    code = f"import sys, xpnn; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_no_module_of_the_package_is_loaded_twice():
    ours = {str(path) for package in PACKAGES for path in modules(package)} | {str(ROOT / "__init__.py")}
    seen = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file in ours:
            # A public module may have a second name, `xpnn.functional`; it is one object all the same.
            assert seen.setdefault(file, module) is module, f"{file} is {seen[file].__name__} and {name}"
    assert nn in seen.values()


def test_public_names_exist_and_are_listed_once():
    assert sorted(set(nn.__all__), key=lambda n: n) == sorted(nn.__all__)
    assert all(hasattr(nn, name) for name in nn.__all__)


def test_dir_shows_public_names_and_nothing_else():
    assert dir(nn) == sorted({*nn.__all__, "__version__"})
    modules = {name for name in nn.__all__ if isinstance(getattr(nn, name), types.ModuleType)}
    assert modules == {"augment", "distributed", "functional", "initialisers", "metrics", "models", "random", "testing"}
    assert not hasattr(nn, "sys")


@pytest.mark.parametrize(
    "name, message",
    [
        ("Linear", "module 'xpnn' has no attribute 'Linear'; did you mean nn.Dense?"),
        ("Conv2D", "module 'xpnn' has no attribute 'Conv2D'; did you mean nn.Conv2d?"),
        ("Relu", "module 'xpnn' has no attribute 'Relu'; did you mean nn.ReLU or nn.functional.relu?"),
        ("batch_norm2d", "module 'xpnn' has no attribute 'batch_norm2d'; did you mean nn.BatchNorm2d?"),
        ("gradcheck", "module 'xpnn' has no attribute 'gradcheck'; did you mean nn.testing.gradcheck?"),
        ("he_normal", "module 'xpnn' has no attribute 'he_normal'; did you mean nn.initialisers.he_normal?"),
        (
            "optim",
            "module 'xpnn' has no attribute 'optim'; did you mean nn.SGD, nn.Adam, nn.AdamW, nn.RMSprop, nn.Adagrad, "
            "nn.Adadelta, nn.Adamax, nn.NAdam, nn.RAdam or nn.Lion?",
        ),
        ("Rprop", "module 'xpnn' has no attribute 'Rprop'"),
        ("NumericalTrouble", "module 'xpnn' has no attribute 'NumericalTrouble'; did you mean nn.NonFiniteError?"),
        ("onnx", "module 'xpnn' has no attribute 'onnx'; did you mean nn.to_onnx or nn.from_onnx?"),
        ("from_pytorch", "module 'xpnn' has no attribute 'from_pytorch'; did you mean nn.from_torch?"),
        ("Nonsense", "module 'xpnn' has no attribute 'Nonsense'"),
        ("__wrapped__", "module 'xpnn' has no attribute '__wrapped__'"),
        ("_Conv2d", "module 'xpnn' has no attribute '_Conv2d'"),
    ],
)
def test_a_name_that_does_not_exist_is_an_error_with_the_name_that_does(name, message):
    assert not hasattr(nn, name)
    with pytest.raises(AttributeError) as caught:
        getattr(nn, name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name, instead", [pair.split() for pair in OTHER_FUNCTIONS.split(", ")])
def test_a_function_that_does_not_exist_is_an_error_with_the_one_that_does(name, instead):
    with pytest.raises(AttributeError) as caught:
        getattr(nn.functional, name)
    wanted = f"module 'xpnn.functional' has no attribute '{name}'; did you mean nn.functional.{instead}?"
    assert str(caught.value) == wanted


def test_an_import_of_a_name_that_does_not_exist_is_an_import_error():
    with pytest.raises(ImportError, match="cannot import name 'Linear'"):
        exec("from xpnn import Linear")


@pytest.mark.parametrize(
    "table, module", [(other_names.PACKAGE, nn), (other_names.FUNCTIONS, nn.functional)], ids=["nn", "functional"]
)
def test_names_of_other_libraries_lead_to_names_that_exist(table, module):
    for name, instead in table.items():
        assert not hasattr(module, name), f"{name} exists, so that its hint is never shown"
        for each in instead.split():
            assert functools.reduce(getattr, each.split("."), nn) is not None, f"{name}: {each}"


def test_the_package_can_be_inspected_and_its_classes_pickled_and_copied():
    assert inspect.getmodule(nn.Conv2d) is sys.modules[nn.Conv2d.__module__]
    assert inspect.unwrap(nn) is nn
    assert pickle.loads(pickle.dumps(nn.Conv2d)) is nn.Conv2d
    layer = copy.deepcopy(nn.Dense(2, 3, seed=0))
    assert isinstance(layer, nn.Dense)


def test_every_folder_of_code_is_a_package():
    """A wheel holds packages only."""
    folders = {path.parent for package in PACKAGES for path in modules(package)}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_version_is_that_of_the_project_file():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', text, re.M).group(1) == nn.__version__


def test_python_m_xpnn_is_the_command():
    run = subprocess.run([sys.executable, "-m", "xpnn", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["xpnn", nn.__version__]
