"""Planting a mistake in the library, and removing it again.

A mistake changes the syntax of one named function, method, class or constant of a package: it replaces an expression or
consecutive statements by others. It doesn't matter which file of the package defines the name, nor do comments, line
breaks and the names of arguments and local variables: a name in the pattern that the module does not define matches any
local name, and the same one everywhere.

Other modules have imported the functions by name and would not see a new function, so the function objects stay and get
the code of the changed source. Constants of the module and of its classes are set too.
"""

import ast
import builtins
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from xpnn.backends import get_backend, operations_of

CONSTANTS = (bool, int, float, str, tuple)
Names = dict[str, str]
# The changes that each module has now.
_PLANTED: dict[ModuleType, list[tuple[str, str, str]]] = {}


@contextmanager
def plant(package: str, where: str, old: str, new: str) -> Iterator[ModuleType]:
    """Within the ``with`` block ``old``, which must occur once in the code called ``where``, is replaced by ``new``.

    Parameters
    ----------
    package : str
        Package or module in which to look for the name, such as ``"layers.pool"``.
    where : str
        Qualified name of a function, method or class, or the name of a constant.
    old, new : str
        An expression, or statements; ``new`` may use the names of ``old``, and others that the function knows.

    Raises
    ------
    LookupError
        If the name or the code does not occur exactly once, or the change makes no difference.
    """
    module = defining(package, where)
    names = ("__name__", "__package__", "__file__")
    copy: dict[str, Any] = {name: getattr(module, name) for name in names}
    tree = _parsed(module)
    changes = _PLANTED.setdefault(module, [])
    for change in (*changes, (where, old, new)):
        _change(tree, module, *change)
    exec(compile(tree, module.__file__ or "", "exec"), copy)
    undo: list[tuple[Any, str, Any]] = []
    changes.append((where, old, new))
    try:
        for owner, name, value in _differences(module, copy):
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
        _forget()
        if not undo:
            raise LookupError(f"{where}: {new!r} for {old!r} changes no function and no constant")
        yield module
    finally:
        changes.pop()
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)
        _forget()


@cache
def defining(package: str, where: str) -> ModuleType:
    """The module of a package that defines a name; `LookupError` if there isn't exactly one."""
    top = import_module(f"xpnn.{package}")
    files = {top.__name__: Path(top.__file__ or "")}
    for folder in map(Path, getattr(top, "__path__", ())):
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            files[".".join([top.__name__, *(part for part in parts if part != "__init__")])] = file
    # Only the module in question is imported: others may need what is not installed.
    found = [name for name, file in files.items() if definition(ast.parse(_text(file)), where) is not None]
    if len(found) != 1:
        names = ", ".join(found) or "no module"
        raise LookupError(f"{where} is defined by {names} of {package}, expected exactly one")
    return import_module(found[0])


def caches_cleared() -> None:
    """Forget which modules define which names."""
    defining.cache_clear()
    _text.cache_clear()


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _parsed(module: ModuleType) -> ast.Module:
    """The syntax tree of a module, which the caller may change."""
    return ast.parse(_text(Path(module.__file__ or "")))


def definition(tree: ast.AST, where: str) -> ast.stmt | None:
    """The statement that defines a qualified name."""
    name, _, rest = where.partition(".")
    body: list[ast.stmt] = getattr(tree, "body", [])
    for statement in body:
        match statement:
            case ast.FunctionDef(name=found) | ast.ClassDef(name=found) if found == name:
                return definition(statement, rest) if rest else statement
            case ast.Assign(targets=[ast.Name(id=found)]) | ast.AnnAssign(target=ast.Name(id=found)) if found == where:
                return statement
    return None


def _change(tree: ast.Module, module: ModuleType, where: str, old: str, new: str) -> None:
    """Change the syntax tree of a module."""
    scope = definition(tree, where)
    assert scope is not None
    pattern, replacement = ast.parse(old).body, ast.parse(new).body
    if ast.dump(ast.Module(pattern, [])) == ast.dump(ast.Module(replacement, [])):
        raise LookupError(f"{where}: {new!r} for {old!r} changes no function and no constant")
    local = {node.id for node in _named([scope]) if isinstance(node.ctx, ast.Store)}
    local |= _arguments([scope])
    if not isinstance(scope, ast.FunctionDef):
        local = _arguments([scope])
    fixed = {*vars(module), *vars(builtins)} - local
    found = [match for place in _places(scope) if (match := _matched(place, pattern, local, fixed))]
    if len(found) != 1:
        raise LookupError(f"{module.__name__}.{where} holds {old!r} {len(found)} times, expected once")
    (owner, field, index, count), names = found[0]
    replacement = [_renamed(each, names) for each in replacement] or [ast.Pass()]
    bound = {part.id for part in _named(replacement) if isinstance(part.ctx, ast.Store)} | _arguments(replacement)
    if unknown := {part.id for part in _named(replacement)} - bound - local - fixed:
        raise LookupError(f"{module.__name__}.{where} knows no {min(unknown)!r}, which {new!r} uses")
    value = getattr(owner, field)
    replaced = value if index is None else value[index]
    for each in replacement:
        for part in ast.walk(each):
            ast.copy_location(part, replaced)
    if count is not None:
        value[index : (index or 0) + count] = replacement
        return
    (statement,) = replacement
    assert isinstance(statement, ast.Expr)
    if hasattr(replaced, "ctx"):
        _in_context(statement.value, replaced.ctx)
    if index is None:
        setattr(owner, field, statement.value)
    else:
        value[index] = statement.value


def _in_context(expression: ast.expr, context: ast.expr_context) -> None:
    """Set whether an expression is read, assigned to or deleted."""
    if hasattr(expression, "ctx"):
        expression.ctx = context
    if isinstance(expression, ast.Tuple | ast.List):
        for each in expression.elts:
            _in_context(each, context)
    elif isinstance(expression, ast.Starred):
        _in_context(expression.value, context)


def _named(statements: list[ast.stmt]) -> list[ast.Name]:
    return [node for each in statements for node in ast.walk(each) if isinstance(node, ast.Name)]


def _arguments(statements: list[ast.stmt]) -> set[str]:
    return {node.arg for each in statements for node in ast.walk(each) if isinstance(node, ast.arg)}


Place = tuple[ast.AST, str, int | None]


def _places(scope: ast.AST) -> Iterator[Place]:
    """Each node below a node, given by its parent, the field of the parent, and the index in that field."""
    for node in ast.walk(scope):
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                yield node, field, None
            elif isinstance(value, list):
                yield from ((node, field, i) for i, each in enumerate(value) if isinstance(each, ast.AST))


def _matched(
    place: Place, pattern: list[ast.stmt], local: set[str], fixed: set[str]
) -> tuple[tuple[ast.AST, str, int | None, int | None], Names] | None:
    """The place with the number of its statements (None for an expression), and its names by those of the pattern."""
    owner, field, index = place
    value = getattr(owner, field)
    node = value if index is None else value[index]
    names: Names = {}
    if isinstance(node, ast.expr):
        match pattern:
            case [ast.Expr(value=wanted)] if not isinstance(owner, ast.Expr) and _same(
                wanted, node, names, local, fixed
            ):
                return (owner, field, index, None), names
        return None
    if not isinstance(node, ast.stmt) or index is None:
        return None
    row = value[index : index + len(pattern)]
    if len(row) == len(pattern) and all(_same(a, b, names, local, fixed) for a, b in zip(pattern, row, strict=True)):
        return (owner, field, index, len(pattern)), names
    return None


def _same(wanted: Any, node: Any, names: Names, local: set[str], fixed: set[str]) -> bool:
    """Whether two trees are equal, except for names of variables, which must correspond one to one."""
    if isinstance(wanted, list):
        return len(wanted) == len(node) and all(
            _same(a, b, names, local, fixed) for a, b in zip(wanted, node, strict=True)
        )
    if type(wanted) is not type(node):
        return False
    if not isinstance(wanted, ast.AST):
        return bool(wanted == node)
    if isinstance(wanted, ast.Name | ast.arg):
        name, other = (wanted.id, node.id) if isinstance(wanted, ast.Name) else (wanted.arg, node.arg)
        if other not in local:
            return name == other
        if name in fixed:
            return False
        if names.setdefault(name, other) != other:
            return False
        return len(set(names.values())) == len(names)
    return all(
        _same(getattr(wanted, field), getattr(node, field), names, local, fixed)
        for field in wanted._fields
        if field not in ("ctx", "type_comment", "kind")
    )


def _renamed(node: ast.stmt, names: Names) -> ast.stmt:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            each.id = names.get(each.id, each.id)
        elif isinstance(each, ast.arg):
            each.arg = names.get(each.arg, each.arg)
    return node


def _forget() -> None:
    """Clear all caches of layers and of compiled operations, because with the mistake their entries may differ."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("xpnn.layers", "xpnn.backends.engines.numba")):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
    operations_of(get_backend("numpy").xp).clear_constants()


def _differences(module: ModuleType, copy: dict[str, Any]) -> Iterator[tuple[Any, str, Any]]:
    """The assignments (owner, attribute, value) that make the module's functions and constants those of its copy."""
    for name, value in copy.items():
        yield from _difference(module, name, vars(module).get(name), value, module.__name__)


def _difference(owner: Any, name: str, here: Any, there: Any, home: str) -> Iterator[tuple[Any, str, Any]]:
    if name.startswith("__") and name.endswith("__") and not callable(here):
        return
    functions = zip(_functions(here), _functions(there), strict=False)
    for ours, theirs in functions:
        # What is imported or written by a decorator is not in the text of this module.
        if ours is theirs or ours.__module__ != home or ours.__code__.co_filename == "<string>":
            continue
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            if getattr(ours, attribute) != getattr(theirs, attribute):
                yield ours, attribute, getattr(theirs, attribute)
    if isinstance(here, type) and here.__module__ == home and here is not there:
        for member, value in vars(there).items():
            yield from _difference(here, member, vars(here).get(member), value, home)
    elif isinstance(here, CONSTANTS) and type(here) is type(there) and here != there:
        yield owner, name, there


def _functions(value: Any) -> list[FunctionType]:
    """The functions behind a name: itself, or inside a static method, class method, property or wrapper."""
    if isinstance(value, cached_property):
        inner: tuple[Any, ...] = (value.func,)
    elif isinstance(value, property):
        inner = (value.fget, value.fset, value.fdel)
    elif isinstance(value, staticmethod | classmethod):
        inner = (value.__func__,)
    else:
        inner = (value,)
    return [inspect.unwrap(f) for f in inner if isinstance(f, FunctionType) or hasattr(f, "cache_clear")]
