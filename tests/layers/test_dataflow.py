"""A model taken apart: the layers, their names and inputs; a `Graph` of them computes the same bits."""

import copy
from typing import ClassVar

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.containers.dataflow import Node, dataflow_of
from xpnn.testing.compare import same_bits

F32 = np.float32


def as_text(flow):
    return [f"{node.name} = {type(node.layer).__name__}({', '.join(node.inputs)})" for node in flow.nodes]


def block(channels, **options):
    body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
    return nn.Residual(body, activation=nn.ReLU(), **options)


def inception(**placement):
    """Three branches, in whose gradients the order of a sum shows."""
    branch = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1))
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Parallel(nn.Conv2d(4, 3, 1), branch, nn.Tanh()),
        nn.Parallel(nn.Conv2d(10, 10, 1), nn.Sigmoid(), nn.Identity(), nn.Identity(), join="add"),
        nn.Conv2d(10, 4, 1),
        block(4),
        nn.Checkpointed(block(4, shortcut=nn.Conv2d(4, 4, 1))),
        **placement,
    )


def test_a_residual_net():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), block(4), nn.Residual(nn.Tanh(), nn.Conv2d(4, 4, 1)))
    flow = dataflow_of(net)
    assert as_text(flow) == [
        "0 = Conv2d(input)",
        "1.body.0 = Conv2d(0)",
        "1.body.1 = BatchNorm2d(1.body.0)",
        "1.add = Add(1.body.1, 0)",
        "1.activation = ReLU(1.add)",
        "2.body = Tanh(1.activation)",
        "2.shortcut = Conv2d(1.activation)",
        "2.add = Add(2.body, 2.shortcut)",
    ]
    assert (flow.inputs, flow.output) == (("input",), "2.add")
    assert flow.nodes[1].layer is net[1].children["body"][0]


def test_branches_and_identities():
    flow = dataflow_of(nn.Parallel(nn.Identity(), nn.Sequential(nn.Identity(), nn.ReLU()), axis=-1))
    assert as_text(flow) == ["1.1 = ReLU(input)", "concat = Concat(input, 1.1)"]
    assert flow.nodes[-1].layer.axis == -1
    flow = dataflow_of(nn.Parallel({"add": nn.ReLU(), "input": nn.Tanh()}, join="add"))
    assert as_text(flow) == ["add = ReLU(input_2)", "input = Tanh(input_2)", "add_2 = Add(add, input)"]
    assert flow.inputs == ("input_2",)


def test_checkpointed_adds_no_name():
    flow = dataflow_of(nn.Sequential(nn.Checkpointed(nn.Sequential(nn.Dense(3, 2), nn.ReLU()))))
    assert as_text(flow) == ["0.0 = Dense(input)", "0.1 = ReLU(0.0)"]


def test_a_layer_in_several_places_is_a_node_in_each():
    relu = nn.ReLU()
    flow = dataflow_of(nn.Sequential(relu, nn.Dense(3, 3), relu))
    assert as_text(flow) == ["0 = ReLU(input)", "1 = Dense(0)", "2 = ReLU(1)"]
    assert flow.nodes[0].layer is flow.nodes[2].layer is relu


def test_names_are_those_of_parameters():
    for name in ("resnet18", "mobilenet_v2", "resnet50"):
        net = getattr(nn.models.torchvision, name)(5)
        flow = dataflow_of(net)
        keys = [f"{node.name}.{key}" for node in flow.nodes for key in (*node.layer.parameters, *node.layer.buffers)]
        assert keys == list(net.state_dict())
    assert [node.name for node in dataflow_of(nn.models.torchvision.resnet18(5)).nodes][-5:] == [
        *("layer4.1.add", "layer4.1.activation", "avgpool", "flatten", "fc")
    ]


def test_several_inputs():
    net = nn.Sequential(nn.PerInput(nn.Conv2d(1, 2, 3), nn.Identity(), join="add"), nn.Flatten())
    flow = dataflow_of(nn.Checkpointed(net))
    assert as_text(flow) == ["0.0 = Conv2d(input1)", "0.add = Add(0.0, input2)", "1 = Flatten(0.add)"]
    assert flow.inputs == ("input1", "input2")
    assert flow.shapes((4, 1, 5, 5), (4, 2, 3, 3)) == {
        **{"input1": (4, 1, 5, 5), "input2": (4, 2, 3, 3)},
        **{"0.0": (4, 2, 3, 3), "0.add": (4, 2, 3, 3), "1": (4, 18)},
    }
    with pytest.raises(ValueError, match="a shape for each of 2 inputs, got 1"):
        flow.shapes((4, 1, 5, 5))


def test_a_graph_within_a_net():
    gate = nn.Graph(
        {
            "pool": (nn.GlobalAvgPool(), "x"),
            "scale.s": (nn.Sigmoid(), "pool"),
            "out": (nn.Multiply(), ("x", "scale.s")),
        },
        inputs=["x"],
    )
    flow = dataflow_of(nn.Sequential(nn.Conv2d(3, 4, 1), gate, nn.Residual(gate)))
    assert as_text(flow) == [
        "0 = Conv2d(input)",
        "1.pool = GlobalAvgPool(0)",
        "1.scale.s = Sigmoid(1.pool)",
        "1.out = Multiply(0, 1.scale.s)",
        "2.body.pool = GlobalAvgPool(1.out)",
        "2.body.scale.s = Sigmoid(2.body.pool)",
        "2.body.out = Multiply(1.out, 2.body.scale.s)",
        "2.add = Add(2.body.out, 1.out)",
    ]
    assert dataflow_of(gate).inputs == ("x",)
    two = nn.Graph({"sum": (nn.Add(), ("x", "y"))}, inputs=("x", "y"))
    assert dataflow_of(two).inputs == dataflow_of(nn.Sequential(two, nn.ReLU())).inputs == ("x", "y")


class Twice(nn.Container):
    def __init__(self):
        super().__init__({"inner": nn.ReLU()})

    def forward(self, x):
        return self.children["inner"](x) * 2


class Scaled(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 2


class Named(nn.Residual):
    names: ClassVar = {"body": "", "shortcut": ""}


def test_a_container_that_computes_by_itself_is_one_node():
    inner = Scaled(nn.ReLU(), nn.ReLU())
    flow = dataflow_of(nn.Sequential(Twice(), inner))
    assert as_text(flow) == ["0 = Twice(input)", "1 = Scaled(0)"]
    assert flow.nodes[1].layer is inner


def test_a_single_layer_and_an_empty_net():
    dense = nn.Dense(3, 2)
    assert dataflow_of(dense).nodes == (Node("", dense, ("input",)),)
    assert dataflow_of(dense).shapes((4, 3))[""] == (4, 2)
    for net in (nn.Sequential(), nn.Identity()):
        flow = dataflow_of(net)
        assert (flow.nodes, flow.output) == ((), "input")


def test_what_has_no_dataflow_is_refused():
    with pytest.raises(ValueError, match=r"Add\(\) has any number of inputs by itself; make it a node of a Graph"):
        dataflow_of(nn.Add())
    with pytest.raises(ValueError, match="two layers of the model have the name '0'"):
        dataflow_of(Named(nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())))
    with pytest.raises(TypeError, match="model must be"):
        dataflow_of("net")


def graph_of(model):
    """A graph of copies of the model's layers."""
    flow = dataflow_of(model)
    layers = copy.deepcopy({node.name: node.layer for node in flow.nodes})
    nodes = {node.name: (layers[node.name], node.inputs) for node in flow.nodes}
    return nn.Graph(nodes, flow.output, flow.inputs, backend=model.backend, seed=0)


def results(model, x, dy, **options):
    """Everything that a step computes, as host arrays by name."""
    get = model.backend.to_numpy
    model.zero_grad()
    found = {"y": get(model(x))}
    dx = model.backward(dy, **options)
    if dx is not None:
        found |= {f"dx{i}": get(each) for i, each in enumerate(dx if isinstance(dx, tuple) else (dx,))}
    found |= {f"d{name}": get(parameter.grad) for name, parameter in model.named_parameters()}
    found |= {name: np.array(get(array)) for name, array in model.state_dict().items()}
    found["evaluated"] = get(model.eval()(x))
    model.train()
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert same_bits(array, other[name]), name


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("input_grad", [True, False])
def test_a_graph_of_the_layers_has_the_same_bits(at, rng, numerics, input_grad):
    net = inception(backend=at.computing(numerics), seed=0)
    graph = graph_of(net)
    for name in ("0.weight", "6.body.0.weight"):
        assert same_bits(at.get(net.state_dict()[name]), at.get(graph.state_dict()[name]))
    x, dy = (at.put(rng.standard_normal((3, n, 5, 4)).astype(F32)) for n in (2, 4))
    assert_same(*(results(each, x, dy, input_grad=input_grad) for each in (net, graph)))


NETS = {name: getattr(nn.models, name) for name in (*nn.models.BUILDERS, "unet")}


@pytest.mark.parametrize("name", NETS)
def test_a_graph_of_a_model_has_the_same_bits(name, rng):
    net = NETS[name]((3, 32, 32), 5, backend="numpy", seed=0)
    graph = graph_of(net)
    x = rng.standard_normal((2, 3, 32, 32)).astype(F32)
    dy = rng.standard_normal(net.output_shape(x.shape)).astype(F32)
    for each in (net, graph):
        for _, layer in each.named_layers():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    assert_same(*(results(each, x, dy) for each in (net, graph)))
    assert dataflow_of(graph).shapes(x.shape) == dataflow_of(net).shapes(x.shape)
    assert graph.summary(x.shape).multiply_adds == net.summary(x.shape).multiply_adds


def test_a_graph_of_several_inputs_has_the_same_bits(at, rng):
    branches = nn.Sequential(nn.Dense(4, 3), nn.Tanh()), nn.Identity(), nn.Dense(2, 3)
    net = nn.Sequential(nn.PerInput(*branches, join="add"), nn.Dense(3, 2), backend=at.backend, seed=0)
    graph = graph_of(net)
    x = tuple(at.put(rng.standard_normal((5, n)).astype(F32)) for n in (4, 3, 2))
    dy = at.put(rng.standard_normal((5, 2)).astype(F32))
    assert_same(*(results(each, x, dy) for each in (net, graph)))
