"""The package as a whole: what importing it does, and which rooms may know which."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpnn as nn

ROOT = Path(nn.__file__).parent
# Arrows point down: a room may import from those after it.
FLOORS = ["scripts", "testing", "training", "interop", "layers", "backends"]
BESIDE = {("training", "interop"), ("testing", "interop")}


def modules(room):
    return sorted((ROOT / room).rglob("*.py"))


def imports(path):
    """Absolute names of all modules that a file of the package imports, wherever in the file."""
    package = ["xpnn", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", FLOORS)
def test_rooms_import_only_from_below(room):
    above = FLOORS[: FLOORS.index(room)]
    forbidden = {f"xpnn.{name}" for name in above} | {f"xpnn.{b}" for a, b in BESIDE if a == room}
    for path in modules(room):
        for name in imports(path):
            assert not any(name == f or name.startswith(f + ".") for f in forbidden), f"{path.name} imports {name}"


def test_layers_name_no_array_library():
    for path in modules("layers"):
        taken = {name.partition(".")[0] for name in imports(path)}
        assert not taken & {"numpy", "cupy", "torch", "jax", "array_api_strict"}, path.name


def test_only_backends_name_cupy_or_torch():
    for room in set(FLOORS) - {"backends", "scripts"}:
        for path in modules(room):
            taken = {name.partition(".")[0] for name in imports(path)}
            assert not taken & {"cupy", "torch", "array_api_strict"}, path.name


def test_layers_divide_by_no_python_number_and_raise_to_no_power():
    """On some devices an array divided by a number is multiplied by its reciprocal, and `pow` has no fixed bits."""
    for path in [*modules("layers"), *modules("training")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                both = isinstance(node.left, ast.Constant) and isinstance(node.right, ast.Constant)
                assert both or not isinstance(node.right, ast.Constant), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
                assert isinstance(node.left, ast.Constant), f"{path.name}:{node.lineno}"


def test_importing_xpnn_loads_no_optional_package():
    heavy = ["cupy", "torch", "matplotlib", "sklearn", "rich", "pytest", "array_api_strict", "scipy"]
    code = f"import sys, xpnn; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_no_module_of_the_package_is_loaded_twice():
    ours = {str(path) for room in FLOORS for path in modules(room)} | {str(ROOT / "__init__.py")}
    seen = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file in ours:
            assert seen.setdefault(file, name) == name, f"{file} is {seen[file]} and {name}"
    assert "xpnn" in seen.values()


def test_public_names_exist_and_are_listed_once():
    assert sorted(set(nn.__all__), key=lambda n: n) == sorted(nn.__all__)
    assert all(hasattr(nn, name) for name in nn.__all__)


def test_version_is_that_of_the_project_file():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', text, re.M).group(1) == nn.__version__


def test_python_m_xpnn_is_the_command():
    run = subprocess.run([sys.executable, "-m", "xpnn", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["xpnn", nn.__version__]
