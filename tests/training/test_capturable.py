"""``capturable=True``: an optimizer counts on the device, and the steps are the same."""

import numpy as np
import pytest

import xpnn as nn

COUNTING = {
    "adam": lambda p, **more: nn.Adam(p, lr=0.1, **more),
    "adamw": lambda p, **more: nn.AdamW(p, lr=0.1, **more),
    "adagrad": lambda p, **more: nn.Adagrad(p, lr=0.1, lr_decay=0.1, **more),
    "amsgrad": lambda p, **more: nn.Adam(p, lr=0.1, amsgrad=True, **more),
    "adamax": lambda p, **more: nn.Adamax(p, lr=0.1, **more),
    "nadam": lambda p, **more: nn.NAdam(p, lr=0.1, **more),
    "radam": lambda p, **more: nn.RAdam(p, lr=0.1, betas=(0.9, 0.8), **more),
}
COUNTS = {"power1", "power2", "steps", "warmth", "product"}


def parameter(spec="numpy", numerics=None):
    layer = nn.Dense(3, 2, backend=nn.get_backend(spec, numerics=numerics), seed=3)
    return layer.parameters["weight"]


def take(optimizer, weight, steps, first=0):
    b = weight.backend
    for i in range(first, first + steps):
        weight.grad = b.asarray(np.sin(np.arange(6.0) + i).reshape(2, 3), "float32")
        optimizer.step()
    return b.to_numpy(weight.value).tobytes()


@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("spec", ["numpy", "strict", "torch"])
def test_steps_are_the_same_bits(name, spec, numerics):
    try:
        nn.get_backend(spec)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))
    plain, kept = parameter(spec, numerics), parameter(spec, numerics)
    assert take(COUNTING[name]([plain]), plain, 7) == take(COUNTING[name]([kept], capturable=True), kept, 7)


@pytest.mark.parametrize("name", COUNTING)
def test_counts_are_arrays_of_the_device(name):
    weight = parameter("strict")
    optimizer = COUNTING[name]([weight], capturable=True)
    take(optimizer, weight, 2)
    counts = {key: value for key, value in weight.states[optimizer].items() if key in COUNTS}
    assert counts and all(weight.backend.owns(value) and value.shape == () for value in counts.values())


@pytest.mark.parametrize("name", COUNTING)
def test_counts_keep_their_precision_where_they_move(name):
    moved, stayed = nn.Dense(3, 2, backend="strict", seed=3), parameter()
    weight = moved.parameters["weight"]
    optimizer = COUNTING[name]([weight], capturable=True)
    take(optimizer, weight, 3)
    moved.to("numpy")
    other = COUNTING[name]([stayed], capturable=True)
    take(other, stayed, 3)
    assert take(optimizer, weight, 3, 3) == take(other, stayed, 3, 3)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("name", COUNTING)
def test_a_saved_state_goes_on_in_either_kind(name, kept):
    first, second, whole = parameter(), parameter(), parameter()
    saved = COUNTING[name]([first], capturable=kept)
    take(saved, first, 3)
    second.value = first.value
    resumed = COUNTING[name]([second], capturable=not kept)
    resumed.load_state_dict(saved.state_dict())
    assert take(resumed, second, 3, 3) == take(COUNTING[name]([whole]), whole, 6)


@pytest.mark.parametrize("name", COUNTING)
def test_a_device_without_float64_counts_in_float32(name):
    plain, kept = parameter("strict:no_float64"), parameter("strict:no_float64")
    take(COUNTING[name]([plain]), plain, 5)
    take(COUNTING[name]([kept], capturable=True), kept, 5)
    values = (weight.backend.to_numpy(weight.value) for weight in (kept, plain))
    np.testing.assert_allclose(*values, rtol=1e-3)
