"""Compiled optimizer steps in exact numerics: the bits of array functions."""

import numpy as np
import pytest
from exact_arrays import both_ways, hostile, ordinary, same_bits

import xpnn as nn
from xpnn.backends.overrides import Choices, using

pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
EXACT = nn.get_backend("numpy", numerics="exact")
RULES = {
    "sgd": (nn.SGD, {}),
    "sgd with decay": (nn.SGD, {"weight_decay": 0.1}),
    "momentum": (nn.SGD, {"momentum": 0.9, "dampening": 0.3}),
    "nesterov": (nn.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (nn.Adam, {}),
    "adam with decay": (nn.Adam, {"weight_decay": 0.1, "betas": (0.8, 0.95)}),
    "adam on the device": (nn.Adam, {"capturable": True}),
    "adamw": (nn.AdamW, {"weight_decay": 0.1}),
    "rmsprop": (nn.RMSprop, {"weight_decay": 0.1}),
    "rmsprop, centered": (nn.RMSprop, {"centered": True}),
    "rmsprop with momentum": (nn.RMSprop, {"momentum": 0.5}),
    "rmsprop, all": (nn.RMSprop, {"momentum": 0.5, "centered": True}),
    "adagrad": (nn.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.01}),
    "adagrad on the device": (nn.Adagrad, {"lr_decay": 0.1, "capturable": True}),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
#: A large one, small ones, one without axes, and an empty one.
SHAPES = [(300, 257), (7,), (3, 4, 3, 3), (), (0, 2)]


def trained(rule, numbers, steps=4):
    """Values and state after some steps."""
    kind, options = rule
    parameters = {str(i): nn.Parameter(EXACT.asarray(numbers(shape, i))) for i, shape in enumerate(SHAPES)}
    optimizer = kind(parameters, lr=0.01, **options)
    for step in range(steps):
        for i, parameter in enumerate(parameters.values()):
            parameter.grad = numbers(SHAPES[i], 10 * step + i + 5)
        optimizer.step()
    states = [parameter.states[optimizer] for parameter in parameters.values()]
    kept = [np.asarray(state[name]) for state in states for name in sorted(state)]
    return [*(parameter.value for parameter in parameters.values()), *kept]


def any_numbers(shape, seed):
    return ordinary(shape or (1,), seed).reshape(shape) if shape != () else np.asarray(ordinary((1,), seed)[0])


def hostile_numbers(shape, seed):
    x = hostile(shape or (1,), seed=seed)
    return x.reshape(shape)


@every_rule
def test_steps_have_the_bits_of_array_functions(rule):
    assert same_bits(*both_ways(trained, rule, any_numbers))


@every_rule
def test_hostile_numbers(rule):
    assert same_bits(*both_ways(trained, rule, hostile_numbers))


@every_rule
def test_the_number_of_threads_has_no_effect(rule, monkeypatch):
    with using(Choices(kernels=True)):
        expected = trained(rule, any_numbers)
        monkeypatch.setenv("XPNN_NUM_THREADS", "1")
        assert same_bits(trained(rule, any_numbers), expected)


def test_a_value_in_another_order_is_updated_alike():
    def update():
        parameter = nn.Parameter(EXACT.asarray(ordinary((6, 5))).T)
        optimizer = nn.Adam({"w": parameter})
        for seed in range(3):
            parameter.grad = ordinary((5, 6), seed)
            optimizer.step()
        return [np.ascontiguousarray(parameter.value)]

    with using(Choices(kernels=True)):
        compiled = update()
    with using(Choices(kernels=False)):
        assert same_bits(compiled, update())
