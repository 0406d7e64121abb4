"""Graph: values, gradients, several inputs, what is computed together and freed, and what is refused."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.layer_outputs import watched
from xpnn.testing import assert_match, first_difference, gradcheck
from xpnn.testing.compare import same_bits

F32 = np.float32


def diamond(**placement):
    """A value with two consumers, a chain of convolution, batch norm and ReLU, and a weighting of channels."""
    nodes = {
        "stem.conv": (nn.Conv2d(2, 4, 3, padding=1), "input"),
        "stem.norm": (nn.BatchNorm2d(4), "stem.conv"),
        "stem.act": (nn.ReLU(), "stem.norm"),
        "pool": (nn.GlobalAvgPool(), "stem.act"),
        "squeeze": (nn.Conv2d(4, 2, 1), "pool"),
        "tanh": (nn.Tanh(), "squeeze"),
        "excite": (nn.Conv2d(2, 4, 1), "tanh"),
        "gate": (nn.Sigmoid(), "excite"),
        "scale": (nn.Multiply(), ("stem.act", "gate")),
        "sum": (nn.Add(), ("scale", "stem.act")),
        "act": (nn.ReLU(), "sum"),
        "joined": (nn.Concat(), ("act", "scale")),
    }
    return nn.Graph(nodes, **placement)


def two_inputs(**placement):
    nodes = {
        "left": (nn.Dense(4, 3), "x"),
        "right": (nn.Sequential(nn.Dense(2, 3), nn.Tanh()), "y"),
        "product": (nn.Multiply(), ("left", "right")),
        "sum": (nn.Add(), ("product", "left", "right")),
    }
    return nn.Graph(nodes, inputs=("x", "y"), **placement)


def images(rng, n=3):
    return rng.standard_normal((n, 2, 5, 4)).astype(F32)


def step(model, x, dy, **options):
    model.zero_grad()
    y = model(x)
    return y, model.backward(dy, **options), {name: p.grad for name, p in model.named_parameters()}


def test_gradients_are_those_of_finite_differences(rng):
    gradcheck(diamond(dtype="float64", seed=1), rng.standard_normal((3, 2, 4, 3)))
    model = nn.Graph({"a": (nn.Tanh(), "input"), "b": (nn.Multiply(), ("a", "a", "input"))}, dtype="float64")
    gradcheck(model, rng.standard_normal((3, 2)))


def test_values_and_gradients_are_those_of_pytorch(at, torch, rng):
    class Theirs(torch.nn.Module):
        """The diamond with the names of ours."""

        def __init__(self):
            super().__init__()
            modules = {"conv": torch.nn.Conv2d(2, 4, 3, padding=1), "norm": torch.nn.BatchNorm2d(4)}
            self.stem = torch.nn.ModuleDict(modules)
            self.squeeze, self.excite = torch.nn.Conv2d(4, 2, 1), torch.nn.Conv2d(2, 4, 1)

        def forward(self, x):
            stem = self.stem["norm"](self.stem["conv"](x)).relu()
            gate = self.excite(self.squeeze(stem.mean((2, 3), keepdim=True)).tanh()).sigmoid()
            scale = stem * gate
            return torch.cat([(scale + stem).relu(), scale], 1)

    torch.manual_seed(3)
    theirs, ours = Theirs(), diamond(backend=at.backend)
    ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    x, dy = images(rng), rng.standard_normal((3, 8, 5, 4)).astype(F32)
    their_x = torch.from_numpy(x).requires_grad_()
    value = theirs(their_x)
    value.backward(torch.from_numpy(dy))
    y, dx, gradients = step(ours, at.put(x), at.put(dy))
    assert_match(y, value.detach().numpy(), level="network", terms=20)
    assert_match(dx, their_x.grad.numpy(), level="network", terms=60)
    for name, parameter in theirs.named_parameters():
        if name != "stem.conv.bias":
            assert_match(gradients[name], parameter.grad.numpy(), level="network", terms=60, name=name)
    y = ours.eval()(at.put(x))
    assert_match(y, theirs.eval()(torch.from_numpy(x)).detach().numpy(), level="network", terms=20)


def test_a_densely_connected_block_is_that_of_nested_branches(at, rng):
    """Each layer gets all outputs before it: with `Parallel` a level of nesting for each."""
    convs = [nn.Conv2d(2 + 3 * i, 3, 3, padding=1) for i in range(3)]
    nodes, names = {}, ["input"]
    for i, conv in enumerate(copy.deepcopy(convs)):
        nodes[f"conv{i}"] = (conv, tuple(names[:1]) if i == 0 else f"join{i}")
        names = [f"join{i}" if i else "input", f"conv{i}"]
        nodes[f"join{i + 1}"] = (nn.Concat(), tuple(names))
    graph = nn.Graph(nodes, backend=at.backend)
    nested = nn.Sequential(*(nn.Parallel(nn.Identity(), conv) for conv in convs), backend=at.backend)
    nested.load_state_dict(
        {f"{i}.1.{key}": graph.state_dict()[f"conv{i}.{key}"] for i in range(3) for key in ("weight", "bias")}
    )
    x, dy = at.put(images(rng)), at.put(rng.standard_normal((3, 11, 5, 4)).astype(F32))
    (y, dx, _), (their_y, their_dx, _) = step(graph, x, dy), step(nested, x, dy)
    assert same_bits(at.get(y), at.get(their_y)) and same_bits(at.get(dx), at.get(their_dx))


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("release", [False, True])
def test_without_an_input_gradient_the_others_have_the_same_bits(at, rng, numerics, release):
    model = diamond(backend=at.computing(numerics), seed=1)
    x, dy = at.put(images(rng)), at.put(rng.standard_normal((3, 8, 5, 4)).astype(F32))
    _, _, every = step(model, x, dy)
    found = {}
    for frozen in ((), ("stem.conv", "stem.norm"), ("squeeze", "excite"), tuple(model.children)):
        model.zero_grad()
        for name, layer in model.named_layers():
            if name:
                layer.freeze() if name in frozen else layer.unfreeze()
        model(x)
        if release:
            with nn.released():
                assert model.backward(dy, input_grad=False) is None
            assert all(layer.saved is None for _, layer in model.named_layers())
        else:
            assert model.backward(dy, input_grad=False) is None
        found = {name: p.grad for name, p in model.named_parameters()}
        for name, gradient in found.items():
            if name.rpartition(".")[0] in frozen:
                assert gradient is None
            else:
                assert same_bits(at.get(gradient), at.get(every[name])), name


def test_layers_before_the_first_trained_one_have_no_backward(rng):
    model = diamond(backend="numpy", seed=1)
    for name in ("stem.conv", "stem.norm"):
        model.children[name].freeze()
    called = []
    model(images(rng))
    with watched(model, backward=lambda name, layer, dx: called.append(name)):
        model.backward(np.ones((3, 8, 5, 4), F32), input_grad=False)
    assert called == ["joined", "act", "sum", "scale", "gate", "excite", "tanh", "squeeze", ""]


def test_two_inputs(at, rng):
    model = two_inputs(backend=at.wide(), seed=0)
    b = model.backend
    x = [rng.standard_normal((5, 4)), rng.standard_normal((5, 2))]
    dy = rng.standard_normal((5, 3))

    def value(x):
        return float((at.get(model(tuple(map(b.asarray, x)))) * dy).sum())

    model(tuple(map(b.asarray, x)))
    gradients = model.backward(b.asarray(dy))
    assert isinstance(gradients, tuple) and len(gradients) == 2
    for i, gradient in enumerate(gradients):
        along = rng.standard_normal(x[i].shape)
        ahead, behind = ([*x[:i], x[i] + sign * 1e-6 * along, *x[i + 1 :]] for sign in (1, -1))
        slope = (value(ahead) - value(behind)) / 2e-6
        assert slope == pytest.approx(float((at.get(gradient) * along).sum()), rel=1e-6)
    assert model.backward(b.asarray(dy), input_grad=False) is None


def test_shapes_of_two_inputs():
    model = two_inputs()
    assert model.output_shape(((7, 4), (7, 2))) == (7, 3)
    net = nn.Sequential(model, nn.Dense(3, 2))
    assert net.output_shape([[7, 4], [7, 2]]) == (7, 2)
    summary = net.summary(((7, 4), (7, 2)))
    rows = [(row.name, row.output_shape) for row in summary.rows]
    assert rows[:3] == [("0.left", (7, 3)), ("0.right.0", (7, 3)), ("0.right.1", (7, 3))]
    assert rows[3:] == [("0.product", (7, 3)), ("0.sum", (7, 3)), ("1", (7, 2))]
    assert str(summary).startswith("input ((7, 4), (7, 2))")
    assert summary.parameters == 15 + 9 + 8
    assert nn.PerInput(nn.Dense(4, 3), nn.Dense(2, 2)).output_shape(((7, 4), (7, 2))) == (7, 5)
    for wrong in ((7, 4), ((7, 4),), ((7, 4), (7, 2), (7, 2))):
        with pytest.raises(ValueError, match="Graph has inputs x, y; got input_shape"):
            model.output_shape(wrong)
    with pytest.raises(ValueError, match="PerInput has several inputs, 2, but 1 shapes were given"):
        nn.PerInput(nn.Dense(4, 3), nn.Dense(2, 2)).output_shape(((7, 4),))
    with pytest.raises(ValueError, match="Graph has inputs input; got input_shape"):
        diamond().output_shape(((1, 2, 4, 4), (1, 2, 4, 4)))
    with pytest.raises(ValueError, match="the shape of an input with its batch axis"):
        diamond().summary(())


class Halved(nn.Container):
    """A container that does not say its shapes."""

    def forward(self, x):
        return self.children["net"](x) * 0.5

    def backward(self, dy, *, input_grad=True):
        return self.children["net"].backward(dy * 0.5, input_grad=input_grad)


def test_a_graph_within_a_container_that_does_not_know_its_shape():
    assert Halved({"net": diamond()}).output_shape((3, 2, 5, 4)) == (3, 8, 5, 4)
    assert Halved({"net": two_inputs()}).output_shape(((3, 4), (3, 2))) == (3, 3)
    seen = Halved({"net": two_inputs()}).summary(((3, 4), (3, 2))).rows
    assert [row.output_shape for row in seen] == [(3, 3)] * 5


def test_nodes_may_be_containers_of_several_inputs(at, rng):
    inner = nn.PerInput(nn.Dense(3, 2), nn.Dense(2, 2), join="add")
    nodes = {
        "a": (nn.Dense(4, 3), "x"),
        "both": (inner, ("a", "y")),
        "again": (two_inputs(), ("x", "both")),
    }
    model = nn.Graph(nodes, inputs=("x", "y"), backend=at.backend, seed=0)
    x, y = (at.put(rng.standard_normal((5, n)).astype(F32)) for n in (4, 2))
    model((x, y))
    dx, dy = model.backward(at.put(np.ones((5, 3), F32)))
    assert dx.shape == x.shape and dy.shape == y.shape
    assert model.output_shape(((5, 4), (5, 2))) == (5, 3)
    # By hand: the gradient of x has a part by each of its consumers.
    children, b = model.children, at.backend
    last = children["again"]
    last((x, children["both"]((children["a"](x), y))))
    direct, of_both = last.backward(at.put(np.ones((5, 3), F32)))
    of_a, their_dy = children["both"].backward(of_both)
    assert same_bits(at.get(dy), at.get(their_dy))
    with b.context():
        assert same_bits(at.get(dx), at.get(children["a"].backward(of_a) + direct))


def test_a_layer_of_two_names_has_the_gradients_of_both(at, rng):
    dense, add = nn.Dense(3, 3), nn.Add()
    nodes = {
        "one": (dense, "input"),
        "tanh": (nn.Tanh(), "one"),
        "two": (dense, "tanh"),
        "sum": (add, ("two", "tanh")),
        "total": (add, ("sum", "one")),
    }
    tied = nn.Graph(nodes, backend=at.backend, seed=0)
    apart = copy.deepcopy(nodes)
    twin = nn.Graph({**apart, "two": (nn.Dense(3, 3), "tanh"), "total": (nn.Add(), ("sum", "one"))}, backend=at.backend)
    twin.load_state_dict(tied.state_dict())
    assert [name for name, _ in tied.named_parameters()] == ["one.weight", "one.bias"]
    assert list(tied.state_dict()) == list(twin.state_dict())
    x, dy = (at.put(rng.standard_normal((4, 3)).astype(F32)) for _ in range(2))
    (y, dx, ours), (their_y, their_dx, theirs) = step(tied, x, dy), step(twin, x, dy)
    assert same_bits(at.get(y), at.get(their_y)) and same_bits(at.get(dx), at.get(their_dx))
    for key in ("weight", "bias"):
        wanted = at.get(theirs[f"one.{key}"]).astype(np.float64) + at.get(theirs[f"two.{key}"])
        assert_match(ours[f"one.{key}"], wanted.astype(F32), level="reduction", terms=8)


def refuse(*args, **keywords):
    raise AssertionError("called")


def test_chains_are_computed_together(monkeypatch, rng):
    def chain(**placement):
        conv, norm = (nn.Conv2d(2, 4, 3, bias=False), "input"), (nn.BatchNorm2d(4), "conv")
        add = nn.Add(), ("relu", "conv2")
        nodes = {"conv": conv, "norm": norm, "relu": (nn.ReLU(), "norm"), "conv2": (nn.Conv2d(4, 4, 1), "relu")}
        return nn.Graph({**nodes, "sum": add, "last": (nn.ReLU(), "sum")}, backend="numpy", seed=0)

    x, model = images(rng), chain()
    monkeypatch.setattr(nn.ReLU, "_forward", refuse)
    y = model(x)
    model.backward(y)
    model.eval()
    folded = model(x)
    with nn.enable_grad():
        assert_match(folded, model(x), level="network", terms=20)
    monkeypatch.setattr(nn.BatchNorm2d, "_forward_and", refuse)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", refuse)
    assert same_bits(model(x), folded)


def test_a_value_of_two_consumers_is_not_computed_together(rng):
    conv, x = nn.Conv2d(2, 4, 1, backend="numpy"), images(rng)
    model = nn.Graph({"conv": (conv, "input"), "relu": (nn.ReLU(), "conv"), "sum": (nn.Add(), ("relu", "conv"))})
    y = model(x)
    before = conv(x)
    assert (before < 0).any() and same_bits(y, before + np.maximum(before, 0))


def test_values_are_freed_in_evaluation(rng):
    nodes = {
        "a": (nn.Tanh(), "input"),
        "b": (nn.Tanh(), "a"),
        "c": (nn.Add(), ("a", "b")),
        "d": (nn.Sigmoid(), "c"),
        "e": (nn.Multiply(), ("d", "c")),
    }
    model, alive, seen = nn.Graph(nodes, backend="numpy").eval(), [], []

    def look(name, layer, y):
        if name:
            alive.append([each for each, ref in seen if ref() is not None])
            seen.append((name, weakref.ref(y)))

    gc.disable()
    try:
        with watched(model, forward=look):
            model(images(rng))
    finally:
        gc.enable()
    # An argument lives until its call is done.
    assert alive == [[], ["a"], ["a", "b"], ["c"], ["c", "d"]]


def test_gradients_are_freed(rng):
    model, held = diamond(backend="numpy", seed=0), []
    model(images(rng))
    refs = []

    def look(name, layer, dx):
        gc.collect()
        held.append(sum(ref() is not None for ref in refs))
        refs.extend(weakref.ref(each) for each in (dx if isinstance(dx, tuple) else (dx,)))

    with nn.released(), watched(model, backward=look):
        model.backward(np.ones((3, 8, 5, 4), F32))
    assert max(held) <= 5 and all(layer.saved is None for _, layer in model.named_layers())


def test_copies_and_pickles_are_independent(at, rng):
    model = diamond(backend=at.backend, seed=3)
    x, dy = at.put(images(rng)), at.put(rng.standard_normal((3, 8, 5, 4)).astype(F32))
    y, dx, _ = step(model, x, dy)
    twins = [copy.deepcopy(model)] + ([pickle.loads(pickle.dumps(model))] if at.name.startswith("numpy") else [])
    for twin in twins:
        theirs, their_dx, _ = step(twin, x, dy)
        assert same_bits(at.get(theirs), at.get(y)) and same_bits(at.get(their_dx), at.get(dx))
        twin.children["squeeze"].parameters["weight"].value = at.put(np.zeros((2, 4, 1, 1), F32))
    assert same_bits(at.get(model(x)), at.get(y))


def test_a_layer_that_is_replaced_is_used(rng):
    model, x = diamond(backend="numpy", seed=0), images(rng)
    model.children["gate"] = nn.HardSigmoid(backend="numpy")
    other = diamond(backend="numpy", seed=0)
    assert not same_bits(model(x), other(x))


def test_repr_is_the_constructor_call():
    one = nn.Graph(
        {"a.b": (nn.Conv2d(1, 4, 3, padding=1), "input"), "c": (nn.ReLU(), ("a.b",)), "d": (nn.Add(), ["a.b", "c"])}
    )
    assert repr(one) == (
        "Graph({'a.b': (Conv2d(1, 4, 3, padding=1), 'input'), 'c': (ReLU(), 'a.b'), 'd': (Add(), ('a.b', 'c'))})"
    )
    names = {name: getattr(nn, name) for name in nn.__all__}
    single = nn.Graph({"a": (nn.Add(), ("x",)), "b": (nn.ReLU(), "a")}, inputs=("x",))
    assert "(Add(), ('x',))" in repr(single) and repr(single).endswith("inputs=('x',))")
    for model in (one, single, two_inputs(), diamond()):
        assert repr(eval(repr(model), names)) == repr(model)


def test_the_output_may_be_named():
    assert nn.Graph({"a": (nn.ReLU(), "input"), "b": (nn.ReLU(), "a")}, output="b").output == "b"
    assert nn.Graph({"a": (nn.ReLU(), "input")}).output == "a"


def test_names_of_layers_and_seeds_are_those_of_nested_containers(at):
    nested = nn.Sequential({"block": nn.Sequential({"conv": nn.Conv2d(2, 3, 1)})}, backend=at.backend, seed=5)
    graph = nn.Graph({"block.conv": (nn.Conv2d(2, 3, 1), "input")}, backend=at.backend, seed=5)
    assert list(graph.state_dict()) == list(nested.state_dict()) == ["block.conv.weight", "block.conv.bias"]
    for name, array in graph.state_dict().items():
        assert same_bits(at.get(array), at.get(nested.state_dict()[name]))
    assert [name for name, _ in graph.named_layers()] == ["", "block.conv"]


def test_outputs_of_all_layers(at, rng):
    model = diamond(backend=at.backend, seed=0)
    x = at.put(images(rng))
    seen = nn.layer_outputs(model, x)
    assert [name for name, *_ in seen] == [*model.children, ""]
    assert first_difference(model, copy.deepcopy(model), images(rng), np.ones((3, 8, 5, 4), F32)) is None
    other = copy.deepcopy(model)
    other.children["excite"].parameters["bias"].value = at.put(np.ones(4, F32))
    found = first_difference(model, other, images(rng), np.ones((3, 8, 5, 4), F32))
    assert (found.layer, found.what) == ("excite", "output")


def test_first_difference_compares_all_gradients_of_a_join(rng):
    class Wrong(nn.Multiply):
        def _backward(self, dy, input_grad):
            first, second = super()._backward(dy, input_grad)
            return [first, second * 2]

        def __repr__(self):
            return "Multiply()"

    model, other = (
        nn.Graph({"a": (nn.Tanh(), "input"), "b": (kind(), ("input", "a"))}, backend="numpy")
        for kind in (nn.Multiply, Wrong)
    )
    x = rng.standard_normal((2, 3)).astype(F32)
    found = first_difference(model, other, x, np.ones((2, 3), F32))
    assert (found.layer, found.what) == ("b", "input gradient")


def test_a_nan_in_a_gradient_of_a_join_is_found(rng):
    model = nn.Graph({"a": (nn.Dense(3, 3), "input"), "b": (nn.Multiply(), ("a", "a"))}, backend="numpy", seed=0)
    x = rng.standard_normal((8, 3)).astype(F32)
    model.children["a"].parameters["weight"].value = np.full((3, 3), 1e19, F32)
    with pytest.raises(nn.NonFiniteError, match=r"the output of layer b, Multiply\(\)"):
        nn.fit(model, (1e9 * x, x), loss=nn.MSE(), epochs=1, progress=False, on_nan="stop")


def test_placement_and_modes_apply_to_all_layers(at):
    model = diamond(backend=at.backend)
    assert all(layer.backend is at.backend for _, layer in model.named_layers())
    model.eval()
    assert not any(layer.training for _, layer in model.named_layers())
    if at.wide_enough:
        model.to(at.wide())
        assert all(layer.backend.dtype_name == "float64" for _, layer in model.named_layers())


def test_training_and_predictions_of_two_inputs():
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((40, 4)).astype(F32), rng.standard_normal((40, 2)).astype(F32)
    target = (x[:, 0] * y[:, 0] > 0).astype(np.int64)
    found = []
    for choice in (True, False):
        model = nn.Sequential(two_inputs(), nn.Dense(3, 2), backend="numpy", seed=0)
        history = nn.fit(
            model,
            ((x, y), target),
            epochs=60,
            batch_size=10,
            progress=False,
            optimizer=nn.Adam(model, 0.02),
            compile=choice,
        )
        assert history["train_accuracy"][-1] > 0.8
        found.append(b"".join(np.asarray(value).tobytes() for value in model.state_dict().values()))
    assert found[0] == found[1]
    assert nn.predict(model, (x, y)).shape == (40, 2)


def test_mixed_precision(with_16_bits, rng):
    b = nn.get_backend(with_16_bits, precision="float16")
    model, plain = (diamond(backend=each, seed=0) for each in (b, with_16_bits))
    x, dy = images(rng), rng.standard_normal((3, 8, 5, 4)).astype(F32)
    (y, dx, _), (wanted, wanted_dx, _) = (step(each, b.asarray(x), b.asarray(dy)) for each in (model, plain))
    for one, other in ((y, wanted), (dx, wanted_dx)):
        np.testing.assert_allclose(b.to_numpy(one), b.to_numpy(other), atol=0.02)
        assert not same_bits(b.to_numpy(one), b.to_numpy(other))


def dense(n=3):
    return nn.Dense(3, n)


REFUSED = {
    "nothing": (lambda: nn.Graph({}), TypeError, "nodes must be a dict of name to"),
    "a list": (lambda: nn.Graph([nn.ReLU()]), TypeError, "nodes must be a dict of name to"),
    "no inputs of a node": (lambda: nn.Graph({"a": nn.ReLU()}), TypeError, r"node 'a' must be \(layer, name or names"),
    "no layer": (lambda: nn.Graph({"a": ("relu", "input")}), TypeError, r"node 'a' must be \(layer, name or names"),
    "an empty tuple": (lambda: nn.Graph({"a": (nn.Add(), ())}), TypeError, "inputs must be a name or a tuple of names"),
    "numbers": (lambda: nn.Graph({"a": (nn.Add(), (0, 1))}), TypeError, "inputs must be a name or a tuple of names"),
    "a name": (
        lambda: nn.Graph({"a": (nn.ReLU(), "inptu")}),
        ValueError,
        "node 'a' has the input 'inptu', which is neither an input of the net nor a node",
    ),
    "a later node": (
        lambda: nn.Graph({"a": (nn.ReLU(), "b"), "b": (nn.ReLU(), "input")}),
        ValueError,
        "node 'a' has the input 'b', which is a later node; list each node after its inputs, without cycles",
    ),
    "itself": (
        lambda: nn.Graph({"a": (nn.Add(), ("input", "a"))}),
        ValueError,
        "'a', which is the node itself; a net must have no cycles",
    ),
    "an unused node": (
        lambda: nn.Graph({"a": (nn.ReLU(), "input"), "b": (nn.ReLU(), "a"), "c": (nn.ReLU(), "a")}),
        ValueError,
        "the output 'c' does not depend on the nodes 'b'",
    ),
    "nodes after the output": (
        lambda: nn.Graph({"a": (nn.ReLU(), "input"), "b": (nn.ReLU(), "a")}, output="a"),
        ValueError,
        "the output 'a' does not depend on the nodes 'b'",
    ),
    "an unused input": (
        lambda: nn.Graph({"a": (nn.ReLU(), "x")}, inputs=("x", "y")),
        ValueError,
        "the output 'a' does not depend on the inputs 'y'",
    ),
    "an unknown output": (
        lambda: nn.Graph({"a": (nn.ReLU(), "input")}, output="b"),
        ValueError,
        "output must be the name of a node, got 'b'",
    ),
    "an input as output": (
        lambda: nn.Graph({"a": (nn.ReLU(), "input")}, output="input"),
        ValueError,
        "output must be the name of a node, got 'input'",
    ),
    "names as one text": (
        lambda: nn.Graph({"a": (nn.ReLU(), "x")}, inputs="x"),
        TypeError,
        "inputs must be a tuple of names, got 'x'",
    ),
    "an input twice": (
        lambda: nn.Graph({"a": (nn.Add(), ("x", "x"))}, inputs=("x", "x")),
        ValueError,
        "inputs must have distinct names, got x, x",
    ),
    "an input and a node": (
        lambda: nn.Graph({"input": (nn.ReLU(), "input")}),
        ValueError,
        "'input' is the name of an input and of a node",
    ),
    "a dot at the end": (lambda: nn.Graph({"a.": (nn.ReLU(), "input")}), ValueError, "no empty part between dots"),
    "a number as name": (lambda: nn.Graph({0: (nn.ReLU(), "input")}), ValueError, "must have names with no empty part"),
    "a name of a layer within": (
        lambda: nn.Graph({"a": (nn.Sequential(dense()), "input"), "a.0": (dense(), "a")}),
        ValueError,
        r"several layers or parameters have the name a\.0, a\.0\.weight, a\.0\.bias; rename a node",
    ),
    "a name of a parameter": (
        lambda: nn.Graph({"a": (nn.MultiHeadAttention(4, 2), "input"), "a.out_proj": (nn.Dense(4, 4), "a")}),
        ValueError,
        r"several layers or parameters have the name a\.out_proj\.weight, a\.out_proj\.bias",
    ),
    "a tuple to a layer": (
        lambda: nn.Graph({"a": (dense(), "input"), "b": (nn.ReLU(), ("a", "input"))}),
        ValueError,
        r"node 'b': ReLU\(\) has one input; join several with Add, Multiply or Concat, got a, input",
    ),
    "one array to a join": (
        lambda: nn.Graph({"a": (nn.Add(), "input")}),
        ValueError,
        r"node 'a': Add\(\) has several inputs; give a tuple of names, got 'input'",
    ),
    "too few inputs": (
        lambda: nn.Graph({"a": (two_inputs(), "input")}),
        ValueError,
        "node 'a': Graph.* has 2 inputs, got input",
    ),
    "too many inputs of a net": (
        lambda: nn.Graph({"a": (nn.Sequential(dense(), nn.ReLU()), ("x", "y"))}, inputs=("x", "y")),
        ValueError,
        "has one input; join several with",
    ),
    "a word that does not exist": (
        lambda: nn.Graph({"a": (nn.ReLU(), "input")}, sed=0),
        TypeError,
        "unexpected keyword argument: sed",
    ),
}


@pytest.mark.parametrize("make, kind, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_wrong_arrays_are_refused_by_name():
    x = np.ones((2, 2, 5, 4), F32)
    with pytest.raises(
        TypeError, match=r"^Conv2d\(2, 4, 3, padding=1\): the input must be an array of numpy, got tuple"
    ):
        diamond(backend="numpy")((x, x))
    with pytest.raises(ValueError, match=r"^Conv2d\(2, 4, 3, padding=1\): input has 3 channels"):
        diamond(backend="numpy")(np.ones((2, 3, 5, 4), F32))
    model, x, y = two_inputs(backend="numpy"), np.ones((2, 4), F32), np.ones((2, 2), F32)
    with pytest.raises(TypeError, match=r"^Graph.*: input must be a tuple of 2 arrays, got one ndarray"):
        model(x)
    with pytest.raises(ValueError, match=r"^Graph.*: input must be a tuple of 2 arrays, x, y, got 3"):
        model((x, y, y))
    with pytest.raises(ValueError, match=r"^Multiply\(\): inputs have shapes \(2, 3\), \(1, 3\)"):
        model((x, y[:1]))
    model((x, y))
    with pytest.raises(ValueError, match=r"^Add\(\): the upstream gradient is"):
        model.backward(np.ones((2, 4), F32))
    with nn.released():
        model.backward(np.ones((2, 3), F32))
    with pytest.raises(RuntimeError, match="backward needs a forward before it"):
        model.backward(np.ones((2, 3), F32))
