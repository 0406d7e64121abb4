"""Residual, Parallel and Identity: outputs, gradients and errors."""

import copy

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match, gradcheck


def wide(layer):
    return layer.to(nn.get_backend("numpy", "float64"))


def test_residual_adds_its_input_to_the_output_of_its_body(at, rng):
    x, dy = rng.standard_normal((2, 4, 5)).astype(np.float32), rng.standard_normal((2, 4, 5)).astype(np.float32)
    layer = nn.Residual(nn.Tanh(), backend=at.backend)
    y = np.tanh(x.astype(np.float64))
    assert_match(layer(at.put(x)), x + y, dtype="float32", backend=at.backend)
    assert_match(layer.backward(at.put(dy)), dy * (2 - y * y), dtype="float32", backend=at.backend)


def test_residual_applies_its_activation_to_the_sum(at, rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    layer = nn.Residual(nn.Identity(), nn.Identity(), nn.ReLU(), backend=at.backend)
    assert_match(layer(at.put(x)), np.maximum(2 * x, 0), backend=at.backend)
    assert at.get(layer.backward(at.put(np.ones_like(x)))).tolist() == (2.0 * (x > 0)).tolist()


def test_parallel_concatenates_branches_and_splits_the_gradient(at, rng):
    x, dy = rng.standard_normal((2, 3, 4)).astype(np.float32), rng.standard_normal((2, 6, 4)).astype(np.float32)
    layer = nn.Parallel(nn.Identity(), nn.ReLU(), backend=at.backend)
    assert_match(layer(at.put(x)), np.concatenate([x, np.maximum(x, 0)], axis=1), level="exact", backend=at.backend)
    assert_match(layer.backward(at.put(dy)), dy[:, :3] + dy[:, 3:] * (x > 0), backend=at.backend)


def test_parallel_adds_branches_and_passes_the_gradient_to_each(at, rng):
    x, dy = rng.standard_normal((2, 3)).astype(np.float32), rng.standard_normal((2, 3)).astype(np.float32)
    layer = nn.Parallel(nn.Identity(), nn.Identity(), nn.ReLU(), join="add", backend=at.backend)
    assert_match(layer(at.put(x)), 2 * x + np.maximum(x, 0), backend=at.backend)
    assert_match(layer.backward(at.put(dy)), 2 * dy + dy * (x > 0), backend=at.backend)


def test_branches_of_different_sizes_are_concatenated_along_any_axis(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    layer = nn.Parallel(nn.Identity(), nn.Dense(4, 2), axis=2)
    assert layer(x).shape == (2, 3, 6)
    assert layer.backward(np.ones((2, 3, 6), np.float32)).shape == x.shape
    assert layer.children["1"].parameters["bias"].grad.tolist() == [6.0, 6.0]


def test_each_branch_gets_its_own_part_of_the_gradient(rng):
    x, dy = rng.standard_normal((2, 4)).astype(np.float32), rng.standard_normal((2, 9)).astype(np.float32)
    layer = nn.Parallel(nn.Dense(4, 2), nn.Identity(), nn.Dense(4, 3))
    layer(x)
    layer.backward(dy)
    for name, part in (("0.bias", dy[:, :2]), ("2.bias", dy[:, 6:])):
        gradient = dict(layer.named_parameters())[name].grad
        assert_match(gradient, part.sum(axis=0), level="reduction", terms=2, name=name)


def nested():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Residual(
            nn.Sequential(
                nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Parallel(nn.Identity(), nn.Sigmoid(), join="add")
            ),
            nn.Conv2d(4, 4, 1),
            nn.Tanh(),
        ),
        nn.Parallel(nn.Identity(), nn.Sequential(nn.AvgPool2d(2), nn.Upsample(2))),
        nn.GlobalAvgPool(),
        nn.Flatten(),
        nn.Dense(8, 3),
        seed=2,
    )


def test_backward_of_nested_containers_is_the_derivative(rng):
    gradcheck(wide(nested()), rng.standard_normal((2, 2, 4, 4)))


def test_skipping_the_input_gradient_changes_no_other_gradient(rng):
    x, dy = rng.standard_normal((2, 2, 4, 4)).astype(np.float32), rng.standard_normal((2, 3)).astype(np.float32)
    one, two = nested(), nested()
    one(x)
    two(x)
    assert one.backward(dy) is not None
    assert two.backward(dy, input_grad=False) is None
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert_match(a.grad, b.grad, level="exact", name=name)


def test_no_branch_changes_an_array_of_another_branch(at, rng):
    x, dy = rng.standard_normal((2, 2, 4, 4)).astype(np.float32), rng.standard_normal((2, 3)).astype(np.float32)
    model = nested().to(at.backend)
    device_x, device_dy = at.put(x), at.put(dy)
    model(device_x)
    first = at.get(model.backward(device_dy))
    assert_match(device_x, x, level="exact")
    assert_match(device_dy, dy, level="exact")
    model.zero_grad()
    model(device_x)
    assert_match(model.backward(device_dy), first, level="exact")


def test_names_state_modes_and_copies_include_all_branches(rng):
    model = nested()
    names = [name for name, _ in model.named_parameters()]
    assert names[:4] == ["0.weight", "0.bias", "1.body.1.weight", "1.body.1.bias"]
    assert "1.shortcut.weight" in names
    x = rng.standard_normal((1, 2, 4, 4)).astype(np.float32)
    twin = copy.deepcopy(model)
    assert_match(twin(x), model(x), level="exact")
    model.load_state_dict({name: np.asarray(a) * 0 for name, a in model.state_dict().items()})
    assert not np.any(model(x))
    model.eval()
    assert not any(layer.training for _, layer in model.named_layers())


def test_backward_without_forward_is_an_error(rng):
    for layer in (nn.Residual(nn.ReLU()), nn.Parallel(nn.ReLU(), nn.ReLU())):
        with pytest.raises(RuntimeError, match="forward before"):
            layer.backward(np.ones((2, 2), np.float32))
        layer.eval()(np.ones((2, 2), np.float32))
        with pytest.raises(RuntimeError, match="forward before"):
            layer.backward(np.ones((2, 2), np.float32))


def test_shapes_that_do_not_fit_are_an_error():
    x = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match=r"body and shortcut return different shapes, \(2, 3\) and \(2, 4\)"):
        nn.Residual(nn.Dense(4, 3))(x)
    with pytest.raises(ValueError, match="cannot be added"):
        nn.Parallel(nn.Dense(4, 3), nn.Identity(), join="add")(x)
    with pytest.raises(ValueError, match="cannot be concatenated along axis 2"):
        nn.Parallel(nn.Identity(), nn.Flatten(), axis=2)(np.ones((2, 3, 4), np.float32))
    layer = nn.Parallel(nn.Identity(), nn.Identity())
    layer(x)
    with pytest.raises(ValueError, match=r"Parallel\(Identity\(\), Identity\(\)\): the upstream gradient"):
        layer.backward(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Parallel(),
        lambda: nn.Parallel(nn.ReLU(), join="stack"),
        lambda: nn.Parallel(nn.ReLU(), axis=0),
        lambda: nn.Parallel({"a.b": nn.ReLU()}),
        lambda: nn.Sequential(("a", nn.ReLU()), ("a", nn.ReLU())),
        lambda: nn.Sequential(("", nn.ReLU())),
    ],
)
def test_bad_arguments_are_refused(make):
    with pytest.raises(ValueError):
        make()


EMPTY = {
    "residual": lambda: nn.Residual(nn.Sequential()),
    "parallel": lambda: nn.Parallel(nn.Sequential(), nn.Sequential(), join="add"),
}
every_empty = pytest.mark.parametrize("make", EMPTY.values(), ids=EMPTY)


@every_empty
@pytest.mark.parametrize(
    "x", [np.ones((2, 2), np.int64), [[1.0]], np.ones((2, 2), np.float16)], ids=["int", "list", "half"]
)
def test_branches_without_layers_accept_only_float_arrays(make, x):
    with pytest.raises(TypeError, match=r"^(Residual|Parallel)\(.*: the input "):
        make()(x)


@every_empty
def test_branches_without_layers_need_a_forward_and_a_gradient_of_its_shape(make):
    layer, x = make(), np.ones((2, 2), np.float32)
    with pytest.raises(RuntimeError, match="forward before"):
        layer.backward(x)
    layer(x)
    with pytest.raises(ValueError, match="the upstream gradient is"):
        layer.backward(x[:1])
    assert layer.backward(x).tolist() == [[2, 2], [2, 2]]


def test_there_is_no_backward_after_a_forward_that_failed():
    x = np.ones((2, 2), np.float32)
    for layer in (nn.Residual(nn.Dense(2, 2), nn.Identity()), nn.Parallel(nn.Identity(), nn.Dense(2, 2))):
        y = layer(x)
        with pytest.raises(ValueError, match="input must have shape"):
            layer(np.ones((2, 3), np.float32))
        with pytest.raises(RuntimeError, match="forward before"):
            layer.backward(y)


def test_axis_may_count_from_the_end_and_is_not_used_for_adding(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    layer = nn.Parallel(nn.Identity(), nn.Dense(4, 1), axis=-1)
    assert_match(layer(x)[..., :4], x, level="exact")
    assert layer.backward(np.ones((2, 3, 5), np.float32)).shape == x.shape
    line = nn.Parallel(nn.Identity(), nn.Identity(), join="add")
    assert line(x[0, 0]).tolist() == (2 * x[0, 0]).tolist()
    for axis in (3, -3, -4):
        with pytest.raises(ValueError, match=f"concatenated along axis {axis}"):
            nn.Parallel(nn.Identity(), axis=axis)(x)


def test_without_input_gradient_branches_without_parameters_compute_nothing(monkeypatch):
    calls = []
    monkeypatch.setattr(nn.Tanh, "backward", lambda self, dy, **_: calls.append(self) or dy)
    x = np.ones((2, 2), np.float32)
    for layer in (nn.Residual(nn.Dense(2, 2), nn.Tanh()), nn.Parallel(nn.Tanh(), nn.Dense(2, 2), join="add")):
        layer(x)
        assert layer.backward(x, input_grad=False) is None
        assert not calls
        layer.backward(x)
        assert calls.pop()
        assert all(parameter.grad is not None for _, parameter in layer.named_parameters())


def test_sums_of_branches_are_computed_in_the_precision_of_the_backend(monkeypatch):
    """The sums between layers are computed in the same precision as within a layer."""
    cls = type(nn.get_backend("numpy"))
    monkeypatch.setattr(cls, "up", lambda self, array: array.astype(np.float64))
    monkeypatch.setattr(cls, "down", lambda self, array: array.astype(np.float32))
    big, small = np.float32(1.0), np.float32(2.0**-24)
    layer = nn.Parallel(nn.Identity(), nn.Identity(), nn.Identity(), join="add")
    x = np.asarray([[big]])
    layer(x)
    for branch, value in zip(layer.children.values(), (big, small, small), strict=True):
        monkeypatch.setattr(branch, "backward", lambda dy, value=value, **_: dy * value)
    # in float32 each small one is lost: 1 + 2**-24 is 1
    assert layer.backward(x).item() == np.float32(1 + 2.0**-23)
    residual = nn.Residual(nn.Sequential())
    assert residual(x).dtype == residual.backward(x).dtype == np.float32


@pytest.mark.parametrize(
    "call",
    [
        "Residual(ReLU())",
        "Residual(ReLU(), shortcut=Identity(), activation=Tanh())",
        "Parallel(ReLU(), Tanh(), join='add')",
        "Parallel(ReLU(), Tanh(), axis=2)",
        "Parallel({'left': ReLU(), 'right': Tanh()})",
        "Sequential({'flat': Flatten(), 'out': Dense(3, 2)})",
    ],
)
def test_repr_is_the_call(call):
    assert repr(eval(call, vars(nn))) == call


def test_sequential_has_names_and_slices():
    model = nn.Sequential({"flat": nn.Flatten(), "one": nn.Dense(4, 3), "two": nn.Dense(3, 2)}, seed=5)
    assert model["one"] is model[1] is model[-2]
    assert list(model.state_dict()) == ["one.weight", "one.bias", "two.weight", "two.bias"]
    x = np.ones((2, 4), np.float32)
    part = model[:2]
    assert isinstance(part, nn.Sequential)
    assert len(part) == 2
    before = part(x)
    assert_match(model[2](before), model(x), level="exact")
    assert [layer.generator.key for layer in part] == [layer.generator.key for layer in model[0:2]]
