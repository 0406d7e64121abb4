"""Finds, in the syntax tree, code on arrays that may have other bits on another backend.

Some devices multiply by the rounded reciprocal instead of dividing by a number; operators and methods call the
library's own sums and powers instead of those of the exact namespace; a scatter adds in any order. The value of a name
is not in a syntax tree: a name counts as a Python number only if it is annotated as one or assigned one.
"""

import ast

from xpnn.backends.exact.namespace import REFUSED
from xpnn.backends.execution.blocks import MOST_JOINED

#: Names of `math` whose results have the same bits with every C library.
MATH = {"ceil", "factorial", "floor", "inf", "isfinite", "isinf", "isnan", "nan", "pi", "prod", "sqrt"}
REDUCTIONS = {"cumprod", "cumsum", "dot", "mean", "prod", "std", "sum", "trace", "var"}
SCATTERS = {"index_add", "index_add_", "index_put_", "put", "put_along_axis", "scatter", "scatter_", "scatter_add_"}
#: Functions of the standard for which CuPy waits for the device: `clip` and `sign` assign by masks, the others have as
#: many results as the values say. `xpnn.layers.core.elementwise` has a `clamp` and a `sign` that do not.
WAITING = {"argwhere", "clip", "nonzero", "sign", "unique_all", "unique_counts", "unique_inverse", "unique_values"}
#: Functions whose results are masks.
MASKS = {"isfinite", "isinf", "isnan", "logical_and", "logical_not", "logical_or", "logical_xor", "signbit"}
MASKS |= {"equal", "greater", "greater_equal", "isin", "less", "less_equal", "not_equal"}
NUMBERS = {"ceil", "factorial", "float", "floor", "int", "len", "prod", "sqrt"}
#: Modules that compute only on the host, with NumPy.
ON_HOST = {
    *("consistency_checks.py", "data_loader.py", "evaluation.py", "images.py", "initialisers.py", "samples.py"),
    *("host_batches.py", "samplers.py", "classifier.py", "new_images.py", "weights.py"),
    *("normalise.py", "random_changes.py", "targets.py", "transform.py"),
    *("checkpoint_file.py", "checkpoints.py", "host_state.py", "same_run.py"),
    *(
        "checks.py",
        "cifar.py",
        "dataset.py",
        "decode.py",
        "emnist.py",
        "folder_layout.py",
        "folders.py",
        "idx.py",
        "npz.py",
    ),
}


def complaints(source, name=""):
    """``(line, what is wrong)`` of a module's text; ``name`` is that of its file."""
    tree = ast.parse(source)
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        plain, indices = _numbers(scope), _names(scope, _is_computed)
        for node in _own(scope):
            for what in _of(node, plain, indices, name in ON_HOST):
                yield node.lineno, what


def _of(node, plain, indices, on_host):
    match node:
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            if _is_literal(right) and not _is_literal(left):
                yield "division by a number"
            if _is_literal(left) and ast.literal_eval(left) != 1 and not _is_plain(right, plain):
                yield "division of a number other than 1"
        case ast.AugAssign(op=ast.Div(), value=value) if _is_literal(value):
            yield "division by a number"
        case ast.BinOp(left=left, op=ast.Pow(), right=right) if not (_is_literal(left) and _is_literal(right)):
            yield "**"
        case ast.AugAssign(op=ast.Pow()):
            yield "**"
        case ast.BinOp(op=ast.MatMult()) | ast.AugAssign(op=ast.MatMult()):
            yield "@"
        case ast.Call(func=ast.Attribute(value=owner, attr="pow"), args=args) if _is_namespace(owner):
            if len(args) < 2 or not _is_plain(args[1], plain):
                yield "pow with an exponent that may be an array"
        case ast.Call(func=ast.Attribute(value=owner, attr=attr)) if attr in REDUCTIONS and not on_host:
            if not _is_namespace(owner):
                yield f".{attr}()"
        case ast.Assign(targets=[ast.Subscript(slice=index)]) | ast.AugAssign(target=ast.Subscript(slice=index)):
            if any(_is_computed(part, indices) for part in _parts(index)):
                yield "assignment to computed places"
    match node:
        case ast.Attribute(value=owner, attr=attr) if attr in REFUSED and _is_namespace(owner):
            yield f"{attr}, which has no exact form"
        case ast.Attribute(attr=attr) if attr in SCATTERS:
            yield attr
        case ast.Import(names=names) | ast.ImportFrom(module="numpy", names=names):
            modules = {alias.name.partition(".")[0] for alias in names} | {getattr(node, "module", None)}
            if "numpy" in modules and not on_host:
                yield "numpy"
            if isinstance(node, ast.Import) and "math" in modules:
                yield "math as a module"
        case ast.ImportFrom(module="math", names=names):
            yield from (f"{alias.name} of math" for alias in names if alias.name not in MATH)


def hidden_waits(source):
    """``(line, what is wrong)`` of a module's text: code with the side effect of a wait for the GPU or a copy."""
    tree = ast.parse(source)
    for scope in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]:
        masks = _names(scope, _is_mask)
        for node in _own(scope):
            for what in _waits(node, masks):
                yield node.lineno, what


def _waits(node, masks):
    match node:
        case ast.Attribute(value=owner, attr=attr) if attr in WAITING and _is_namespace(owner):
            yield f"{attr}, which waits for the device"
        case ast.Subscript(value=ast.Name(id="Callable")):
            pass
        case ast.Subscript(slice=index):
            for part in _parts(index):
                if _is_mask(part, masks):
                    yield "a mask as an index, which waits for the device"
                if isinstance(part, ast.List | ast.ListComp):
                    yield "a list as an index, which is copied from the host"
        case ast.Call(func=ast.Name(id="bool" | "float" | "int"), args=[arg]) if _is_computed(arg, set()):
            yield "a number of the host made of an array, which waits for the device"
        case ast.Call(func=ast.Attribute(value=owner, attr="repeat"), args=[_, times, *_]) if _is_namespace(owner):
            if _is_computed(times, set()):
                yield "repeat by numbers of the device, which waits for it"
        case ast.Call(func=ast.Attribute(value=owner, attr="asarray"), args=[what, *_]) if _is_namespace(owner):
            if isinstance(what, ast.List | ast.Tuple | ast.ListComp | ast.GeneratorExp):
                yield "asarray of numbers of the host, which are copied"
        case ast.Call(func=ast.Attribute(value=owner, attr="concat" | "stack" as name), args=[parts, *_]):
            few = isinstance(parts, ast.List | ast.Tuple) and len(parts.elts) <= MOST_JOINED
            if _is_namespace(owner) and not few:
                yield f"{name} of any number of arrays, which copies a table of them: concat_all does not"


def _own(scope):
    """The nodes of a module or function without those of functions in it."""
    stack = list(ast.iter_child_nodes(scope))
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef):
            stack.extend(ast.iter_child_nodes(node))


def _numbers(scope):
    """Names of a function's arguments that are annotated as numbers."""
    if not isinstance(scope, ast.FunctionDef):
        return set()
    every = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
    return {a.arg for a in every if isinstance(a.annotation, ast.Name) and a.annotation.id in ("int", "float")}


def _names(scope, kind):
    """Names that are assigned values of a kind."""
    return {
        target.id
        for node in _own(scope)
        if isinstance(node, ast.Assign) and kind(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _parts(index):
    return index.elts if isinstance(index, ast.Tuple) else [index]


def _is_computed(node, names):
    """Whether it is the result of a function of the namespace, or the name of one."""
    match node:
        case ast.Name(id=name):
            return name in names
        case ast.Call(func=ast.Attribute(value=owner)):
            return _is_namespace(owner)
    return False


def _is_mask(node, names):
    """Whether it is a comparison, a combination of some, or the name of one."""
    match node:
        case ast.Compare(ops=[ast.Is() | ast.IsNot() | ast.In() | ast.NotIn()]):
            return False
        case ast.Compare():
            return True
        case ast.Name(id=name):
            return name in names
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return _is_mask(operand, names)
        case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr() | ast.BitXor(), right=right):
            return _is_mask(left, names) or _is_mask(right, names)
        case ast.Call(func=ast.Attribute(value=owner, attr=attr)):
            return attr in MASKS and _is_namespace(owner)
    return False


def _is_namespace(node):
    """``xp``, ``b.xp``, ``self.backend.xp``; and ``raw``, the namespace with which exact numerics computes."""
    return getattr(node, "id", getattr(node, "attr", None)) in ("xp", "raw")


def _is_literal(node):
    """Numbers, and signs before them."""
    if isinstance(node, ast.UnaryOp):
        return _is_literal(node.operand)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _is_plain(node, plain):
    """Whether it is certainly a Python number."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in plain or name in MATH or name.isupper()
        case ast.UnaryOp(operand=operand):
            return _is_plain(operand, plain)
        case ast.BinOp(left=left, right=right):
            return _is_plain(left, plain) and _is_plain(right, plain)
        case ast.Call(func=ast.Name(id=name)):
            return name in NUMBERS
        case ast.Subscript(value=ast.Attribute(attr="shape")):
            return True
    return False
