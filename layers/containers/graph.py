"""A net of layers and joins, in which each layer names its inputs.

The gradient of a value with several consumers is the sum of theirs, from the first to the last in the order of nodes,
so it has the bits of the same net made of `Residual` and `Parallel`, if there a branch without layers is the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Unpack

from ...backends import operations_of
from ...common import checks
from ...common.types import Array
from ..core.errors import with_owner
from ..core.layer import Layer
from ..core.output_shape import Shape, is_several
from ..core.placement import Placement
from . import recorded_evaluation
from .container import Container, is_trained
from .dataflow import Flow, takes_tuple
from .fusion import backward_all, forward_all
from .graph_checks import checked_names, checked_nodes, require_connected, require_distinct_names
from .sums import sum_of

#: A layer, and the name of its input or the names of its inputs.
Entry: TypeAlias = tuple[Layer, str | Sequence[str]]


@dataclass(frozen=True)
class _Chain:
    """Nodes one after the other, each the only consumer of the one before: computed together where that is possible.

    Attributes
    ----------
    names : tuple of str
        Of the nodes.
    inputs : tuple of str
        Values that the first node gets.
    is_tuple : bool
        Whether it gets them as a tuple.
    frees : tuple of str
        Values of which this is the last consumer.
    """

    names: tuple[str, ...]
    inputs: tuple[str, ...]
    is_tuple: bool
    frees: tuple[str, ...]


def _taken(values: dict[str, Any], chain: _Chain) -> Any:
    """The input of a chain, or the tuple of its inputs; those that nothing else needs are no longer values."""
    given = tuple([values[name] for name in chain.inputs])
    for name in chain.frees:
        del values[name]
    return given if chain.is_tuple else given[0]


class Graph(Container):
    """A net whose layers name their inputs: branches and joins of any form, without cycles.

    Layers are computed in their order in ``nodes``. A layer of several inputs, such as the joins `Add`, `Multiply` and
    `Concat`, is called with a tuple. Values are freed once nothing needs them any more.

    A layer after another that is its only consumer is computed together with it where `Sequential` would do so.

    Parameters
    ----------
    nodes : dict of str to (Layer, inputs)
        Each node by name: a layer, and the name of its input or a tuple of names, of inputs of the net or of nodes
        before it. Names may have dots: the parameters of ``"block.conv"`` are ``block.conv.weight`` and
        ``block.conv.bias``. A layer may have several names: it is then computed for each, with one weight.
    output : str, optional
        The node whose value is the output; the last one by default. As it depends on all others, it is the last one.
    inputs : sequence of str
        Names of the inputs. With several the net is called with a tuple of arrays of one number of samples, and
        `backward` returns a tuple.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    TypeError, ValueError
        For an entry of another form, an unknown name or one of a later node, a layer with the wrong number of inputs, a
        node or input on which the output does not depend, and names that are not distinct.

    Examples
    --------
    >>> import xpnn as nn
    >>> net = nn.Graph(
    ...     {
    ...         "conv": (nn.Conv2d(1, 4, 3, padding=1), "input"),
    ...         "relu": (nn.ReLU(), "conv"),
    ...         "sum": (nn.Add(), ("conv", "relu")),
    ...     },
    ...     backend="numpy",
    ...     seed=0,
    ... )
    >>> net.output_shape((2, 1, 8, 8))
    (2, 4, 8, 8)
    >>> [name for name, _ in net.named_parameters()]
    ['conv.weight', 'conv.bias']
    """

    def __init__(
        self,
        nodes: Mapping[str, Entry],
        output: str | None = None,
        inputs: Sequence[str] = ("input",),
        **placement: Unpack[Placement],
    ) -> None:
        self.inputs = checked_names("inputs", inputs)
        layers, sources = checked_nodes(nodes, self.inputs)
        super().__init__(layers, **placement)
        self.sources: dict[str, tuple[str, ...]] = sources
        if output is not None and output not in sources:
            raise ValueError(f"output must be the name of a node, got {checks.shown(output)}")
        self.output = list(sources)[-1] if output is None else output
        require_connected(sources, self.inputs, self.output)
        require_distinct_names(self)
        self._chains = self._in_chains()

    def _in_chains(self) -> tuple[_Chain, ...]:
        """The nodes in chains."""
        consumers = {self.output: 1}
        for names in self.sources.values():
            for name in names:
                consumers[name] = consumers.get(name, 0) + 1
        chains: list[list[str]] = []
        for name, sources in self.sources.items():
            if chains and sources == (chains[-1][-1],) and consumers[sources[0]] == 1 and not self._takes_tuple(name):
                chains[-1].append(name)
            else:
                chains.append([name])
        last = {name: i for i, chain in enumerate(chains) for name in self.sources[chain[0]]}
        return tuple(
            _Chain(
                tuple(chain),
                self.sources[chain[0]],
                self._takes_tuple(chain[0]),
                tuple([name for name, at in last.items() if at == i]),
            )
            for i, chain in enumerate(chains)
        )

    def _takes_tuple(self, name: str) -> bool:
        return takes_tuple(self.children[name], len(self.sources[name]))

    def _output_shape(self, shape: Any) -> Shape:
        count = len(self.inputs)
        if is_several(shape) != (count > 1) or (count > 1 and len(shape) != count):
            raise ValueError(f"{type(self).__name__} has inputs {', '.join(self.inputs)}; got input_shape {shape}")
        found: dict[str, Shape] = dict(zip(self.inputs, shape if count > 1 else (shape,), strict=True))
        for name, sources in self.sources.items():
            shapes = tuple([found[each] for each in sources])
            found[name] = self.children[name].output_shape(shapes if self._takes_tuple(name) else shapes[0])
        return found[self.output]

    def forward(self, x: Any) -> Array:
        """The value of the output for an input, or for a tuple of several."""
        self._check_numerics()
        if len(self.inputs) > 1:
            self._require_inputs(x)
            return self._forward_all(self.backend.plain(tuple(x)))
        b = self.backend
        return recorded_evaluation.forward(self, b, self._forward_all, b.plain(x))

    def _require_inputs(self, x: Any) -> None:
        """Raise unless ``x`` is a tuple of as many arrays as inputs; the layers check the arrays."""
        count = len(self.inputs)
        problem: TypeError | ValueError | None = None
        if not isinstance(x, tuple | list):
            problem = TypeError(f"input must be a tuple of {count} arrays, got one {type(x).__name__}")
        elif len(x) != count:
            problem = ValueError(f"input must be a tuple of {count} arrays, {', '.join(self.inputs)}, got {len(x)}")
        if problem is not None:
            raise with_owner(problem, self)

    def _forward_all(self, x: Any) -> Array:
        values: dict[str, Any] = dict(zip(self.inputs, x if len(self.inputs) > 1 else (x,), strict=True))
        with operations_of(self.backend.xp).setup_once():
            for chain in self._chains:
                # The arguments are not held here, so that layers free them as soon as they can.
                values[chain.names[-1]] = forward_all(self._layers(chain), _taken(values, chain))
        return values[self.output]

    def _layers(self, chain: _Chain) -> list[Layer]:
        return [self.children[name] for name in chain.names]

    def backward(self, dy: Array, *, input_grad: bool = True) -> Any:
        """The gradient of the input, or a tuple of those of several; None with ``input_grad=False``."""
        needed = {*self.inputs, *self.sources} if input_grad else self._trained()
        gradients: dict[str, list[Array]] = {self.output: [self.backend.plain(dy)]}
        with operations_of(self.backend.xp).setup_once():
            for chain in reversed(self._chains):
                self._backward_of(chain, gradients, needed)
        if not input_grad:
            return None
        found = tuple([self._sum(gradients, name) for name in self.inputs])
        return found if len(found) > 1 else found[0]

    def _trained(self) -> set[str]:
        """The nodes that have parameters to train, or depend on such: the others need no gradient."""
        found: set[str] = set()
        for name, sources in self.sources.items():
            if not found.isdisjoint(sources) or is_trained(self.children[name]):
                found.add(name)
        return found

    def _backward_of(self, chain: _Chain, gradients: dict[str, list[Array]], needed: set[str]) -> None:
        """Pass the gradient of a chain's output back through its layers, and add those of its inputs to the others."""
        layers = self._layers(chain)
        # Nothing needs the gradients of layers before the first; nor any, if that of the output does not exist.
        count = len(layers) if chain.names[-1] in gradients else 0
        first = next((i for i in range(count) if chain.names[i] in needed), len(layers))
        input_grad = not needed.isdisjoint(chain.inputs)
        dx: Any = None
        if first < len(layers):
            dx = backward_all(layers, first, self._sum(gradients, chain.names[-1]), input_grad)
        for layer in reversed(layers[:first]):
            layer._skip_backward()
        if not input_grad or dx is None:
            return
        # The last first, as gradients of later consumers come first.
        for name, part in zip(reversed(chain.inputs), reversed(dx if chain.is_tuple else (dx,)), strict=True):
            if name in needed and part is not None:
                gradients.setdefault(name, []).append(part)

    def _sum(self, gradients: dict[str, list[Array]], name: str) -> Array | None:
        """The gradient of a value: the sum of those of its consumers, from the first to the last; None without any."""
        parts = gradients.pop(name, [])
        if len(parts) < 2:
            return parts[0] if parts else None
        total: Array = self._record_gradient(sum_of(parts[::-1], self.backend))
        return total

    def _flow(self, flow: Flow, path: str, inputs: tuple[str, ...]) -> str:
        names = dict(zip(self.inputs, inputs, strict=True))
        for name, sources in self.sources.items():
            given = tuple([names[each] for each in sources])
            names[name] = flow.child(self, name, path, given)
        return names[self.output]

    def _input_names(self) -> tuple[str, ...]:
        return self.inputs

    def __repr__(self) -> str:
        nodes = {
            name: (layer, names if len(names := self.sources[name]) > 1 or self._takes_tuple(name) else names[0])
            for name, layer in self.children.items()
        }
        # The output is the last node: it depends on all others.
        options = f", inputs={self.inputs!r}" if self.inputs != ("input",) else ""
        return f"Graph({nodes!r}{options})"
