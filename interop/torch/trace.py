"""What a module computes, node by node, as `torch.fx` finds it, with the shapes of a trial.

A module is traced twice, in training and in evaluation, because some compute something else there. What differs must be
the functions that differ by themselves, such as dropout.
"""

from __future__ import annotations

import copy
import operator
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...backends.errors import first_line

# Samples of a trial, if the batch axis has no size: a number that few models have as another size.
_SAMPLES = 3


class Step(NamedTuple):
    """A node of the graph in training, that in evaluation, and its value in a trial: of arrays only shape and dtype."""

    node: Any
    in_evaluation: Any
    value: Any


def is_leaf(module: Any, torch: Any) -> bool:
    """Whether a module is converted as a whole."""
    if type(module).__module__ == f"{__package__}.modules":
        return True
    # What unflattening computes depends on the shape.
    traced = torch.nn.Sequential | torch.nn.ModuleList | torch.nn.ModuleDict | torch.nn.Unflatten
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, traced)


def steps_of(module: Any, input_shapes: Sequence[Sequence[int | None]], torch: Any) -> list[Step]:
    """Trace the module, and run it once with zeros.

    Raises
    ------
    ValueError
        If PyTorch can't trace it, if it does not accept inputs of these shapes, or if training differs from evaluation.
    """
    (graph, _), (other, twin) = _graph(module, True, torch), _graph(module, False, torch)
    nodes, others = list(graph.nodes), list(other.nodes)
    if [(node.op, str(node.target)) for node in nodes] != [(node.op, str(node.target)) for node in others]:
        raise ValueError(
            f"from_torch: {type(module).__name__}.forward does something else in training than in evaluation; give a "
            "module without this branch"
        )
    values = _trial(twin, other, input_shapes, torch)
    needed = _needed(nodes, twin)
    return [Step(node, twin, values[twin]) for node, twin in zip(nodes, others, strict=True) if node in needed]


def is_in_place(node: Any, module: Any) -> bool:
    """Whether a node overwrites its first array: ``relu_``, ``+=``, ``inplace=True``."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(node.target), "inplace", False))
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if (getattr(operator, name, None) is node.target and name.startswith("i")) or (
        name.endswith("_") and not name.endswith("__")
    ):
        return True
    # Functions with a flag for it have no other one behind it, and theirs as the last argument.
    flag = node.args[-1] if node.op == "call_function" and node.args and isinstance(node.args[-1], bool) else False
    return bool(node.kwargs.get("inplace", flag and "inplace" in getattr(node.target, "__annotations__", {})))


def _needed(nodes: Sequence[Any], module: Any) -> set[Any]:
    """The inputs, and the nodes on which the output depends, or what others read."""
    needed = {node for node in nodes if node.op in ("placeholder", "output")}
    needed |= {node for node in nodes if node.op.startswith("call") and is_in_place(node, module)}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return needed


def require_plain(module: Any) -> None:
    """Raise `ValueError` if a module within computes something else than its class says."""
    for name, each in module.named_modules():
        if each._forward_hooks or each._forward_pre_hooks:
            raise ValueError(
                f"from_torch: {name or 'the module'} has hooks, which a model lacks; remove them, or run a module that "
                "is not initialised yet once"
            )
        if "forward" in vars(each):
            raise ValueError(
                f"from_torch: {name or 'the module'} has a forward of its own in place of that of its class; make it a "
                "class"
            )


def _proxy_class(torch: Any) -> Any:
    """Proxies that record ``+=`` as what it is, and not as a sum, as those of PyTorch do."""

    def method(function: Any) -> Any:
        def record(self: Any, other: Any) -> Any:
            return self.tracer.create_proxy("call_function", function, (self, other), {})

        return record

    functions = ("iadd", "isub", "imul", "itruediv", "ipow", "imatmul", "ifloordiv", "imod")
    return type("Proxy", (torch.fx.Proxy,), {f"__{name}__": method(getattr(operator, name)) for name in functions})


def _graph(module: Any, training: bool, torch: Any) -> tuple[Any, Any]:
    """The graph of a copy of the module in that mode, and the copy."""
    tracer = torch.fx.Tracer()
    tracer.is_leaf_module = lambda m, name: is_leaf(m, torch)
    proxies = _proxy_class(torch)
    tracer.proxy = lambda node: proxies(node, tracer)
    try:
        twin = copy.deepcopy(module).train(training)
        graph = tracer.trace(twin)
    except Exception as error:
        where = _place(error, torch)
        raise ValueError(
            f"from_torch: {type(module).__name__} can't be traced by torch.fx{where}: {first_line(error)}"
        ) from error
    return graph, twin


def _place(error: Exception, torch: Any) -> str:
    """The last line of code outside of PyTorch that led to an error."""
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(inside)]
    if not frames:
        return ""
    return f" at {frames[-1].filename}:{frames[-1].lineno} ({frames[-1].line})"


def _trial(module: Any, graph: Any, shapes: Sequence[Sequence[int | None]], torch: Any) -> dict[Any, Any]:
    """The values of all nodes for zeros."""
    # Those with a default have it.
    inputs = [node for node in graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) != len(shapes):
        raise ValueError(
            f"from_torch: {type(module).__name__}.forward has {len(inputs)} arguments, "
            f"{', '.join(node.name for node in inputs)}; give a shape for each, got {len(shapes)}"
        )
    floats = [p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()]
    like = {"dtype": floats[0].dtype, "device": floats[0].device} if floats else {}
    zeros = []
    for node, shape in zip(inputs, shapes, strict=True):
        kind = {**like, "dtype": torch.int64} if _is_index(node, module, torch) else like
        zeros.append(torch.zeros([_SAMPLES if n is None else n for n in shape], **kind))
    interpreter, values = torch.fx.Interpreter(torch.fx.GraphModule(module, graph)), {}
    run = interpreter.run_node

    def recording(node: Any) -> Any:
        value = run(node)
        values[node] = torch.empty_like(value, device="meta") if isinstance(value, torch.Tensor) else value
        return value

    interpreter.run_node = recording
    try:
        with torch.no_grad():
            interpreter.run(*zeros)
    except Exception as error:
        raise ValueError(
            f"from_torch: {type(module).__name__} does not accept input_shape "
            f"{', '.join(str(tuple(shape)) for shape in shapes)}: {first_line(error)}"
        ) from error
    return {node: values.get(node) for node in graph.nodes}


def _is_index(node: Any, module: Any, torch: Any) -> bool:
    """Whether an input is the index of an embedding."""
    for user in node.users:
        if user.op == "call_module" and isinstance(module.get_submodule(user.target), torch.nn.Embedding):
            return True
    return False
