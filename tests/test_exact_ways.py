"""However a user writes the loop, exact numerics are kept, or an error says what to pass.

Every way below trains on each backend in exact numerics and must end with the weights that it ends with on NumPy.
"""

import copy
import gc
import hashlib
import pickle
import threading
from functools import cache

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import origins

F = nn.functional
GENERATOR = np.random.default_rng(7)
X = GENERATOR.normal(size=(24, 1, 6, 6)).astype(np.float32)
Y = GENERATOR.integers(0, 5, 24)
SHARES = np.eye(5, dtype=np.float32)[Y]
STEPS = 4
NUMPY = nn.get_backend("numpy", numerics="exact")


def net(**placement):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(36, 5),
        seed=3,
        **placement,
    )


def fast(b):
    return nn.get_backend(b, numerics="fast")


def loop(model, backward, optimizer=None, x=X, y=Y, after=lambda model: None):
    """Steps of SGD, where ``backward(logits, target)`` gives the gradient of the logits."""
    b, optimizer = model.backend, optimizer or nn.SGD(model, lr=0.1, momentum=0.9)
    x, y = b.asarray(x), b.asarray(y)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model.backward(backward(model(x), y))
        after(model)
        optimizer.step()
    return model


def plainly(loss):
    """What a loop asks of a loss."""

    def backward(logits, target):
        loss(logits, target)
        return loss.backward()

    return backward


def readme(b):
    return loop(net(backend=b), plainly(nn.CrossEntropy()))


def by_the_name_of_its_numerics(b):
    return loop(net(backend=b.spec, numerics="exact"), plainly(nn.CrossEntropy()))


def a_loss_told_its_numerics_alone(b):
    return loop(net(backend=b), plainly(nn.CrossEntropy(numerics="exact")))


def a_loss_made_before_the_model(b):
    loss = nn.CrossEntropy()
    return loop(net(backend=b), plainly(loss))


def a_loss_told_the_name_of_the_backend(b):
    return loop(net(backend=b), plainly(nn.CrossEntropy(backend=b.spec)))


def a_loss_moved_by_name(b):
    return loop(net(backend=b), plainly(nn.CrossEntropy().to(b.spec)))


def a_loss_told_the_backend(b):
    return loop(net(backend=b), plainly(nn.CrossEntropy(backend=b)))


def all_within_use_backend(b):
    with nn.use_backend(b):
        return loop(net(), plainly(nn.CrossEntropy()))


def a_model_from_use_backend_used_after_it(b):
    with nn.use_backend(b):
        model = net()
    return loop(model, plainly(nn.CrossEntropy()))


def use_backend_that_says_where_alone(b):
    with nn.use_backend(b.spec):
        return loop(net(numerics="exact"), plainly(nn.CrossEntropy()))


def a_loss_that_was_copied_and_pickled(b):
    return loop(net(backend=b), plainly(pickle.loads(pickle.dumps(copy.deepcopy(nn.CrossEntropy())))))


def a_model_that_was_copied_and_pickled(b):
    return loop(pickle.loads(pickle.dumps(copy.deepcopy(net(backend=b)))), plainly(nn.CrossEntropy()))


def a_thread(b):
    model, loss = net(backend=b), nn.CrossEntropy()
    worker = threading.Thread(target=loop, args=(model, plainly(loss)))
    worker.start()
    worker.join()
    return model


def batches_of_a_loader(b):
    model, loss = net(backend=b), nn.CrossEntropy()
    optimizer = nn.SGD(model, lr=0.1, momentum=0.9)
    for prefetch in (0, 2) * (STEPS // 2):
        for x, y in nn.DataLoader(X, Y, batch_size=24, shuffle=False, backend=b, prefetch=prefetch):
            optimizer.zero_grad()
            model.backward(plainly(loss)(model(x), y), input_grad=False)
            optimizer.step()
    return model


def a_compiled_step(b):
    model, loss = net(backend=b), nn.CrossEntropy()
    optimizer = nn.SGD(model, lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        model.backward(plainly(loss)(model(x), y), input_grad=False)
        optimizer.step()

    step = b.compile(step, model, optimizer)
    for _ in range(STEPS):
        step(b.asarray(X), b.asarray(Y))
    return model


def fit(b):
    model = net(backend=b)
    loader = nn.DataLoader(X, Y, batch_size=24, shuffle=False)
    nn.fit(model, loader, optimizer=nn.SGD(model, lr=0.1, momentum=0.9), epochs=STEPS, progress=False)
    return model


def fit_in_parts_with_a_loss_told_where(b):
    model = net(backend=b)
    nn.fit(
        model,
        nn.DataLoader(X, Y, batch_size=24, shuffle=False),
        optimizer=nn.SGD(model, lr=0.1, momentum=0.9),
        loss=nn.CrossEntropy(backend=b.spec),
        epochs=STEPS,
        progress=False,
        shards=3,
    )
    return model


def the_function_in_place_of_the_loss(b):
    return loop(net(backend=b), lambda logits, y: F.cross_entropy_backward(1.0, logits, y))


#: All that end with the weights of the first.
ALIKE = [
    readme,
    by_the_name_of_its_numerics,
    a_loss_told_its_numerics_alone,
    a_loss_made_before_the_model,
    a_loss_told_the_name_of_the_backend,
    a_loss_moved_by_name,
    a_loss_told_the_backend,
    all_within_use_backend,
    a_model_from_use_backend_used_after_it,
    use_backend_that_says_where_alone,
    a_loss_that_was_copied_and_pickled,
    a_model_that_was_copied_and_pickled,
    a_thread,
    batches_of_a_loader,
    a_compiled_step,
    fit,
    fit_in_parts_with_a_loss_told_where,
    the_function_in_place_of_the_loss,
]


def accumulated_and_clipped_fit(b):
    model = net(backend=b)
    nn.fit(model, (X, Y), epochs=2, batch_size=4, accumulate=3, clip_norm=0.5, clip_value=0.3, progress=False)
    return model


def a_gradient_times_a_number(b):
    return loop(net(backend=b), lambda logits, y: plainly(nn.CrossEntropy())(logits, y) * 0.5)


def a_sum_of_two_losses(b):
    first, second = nn.CrossEntropy(), nn.CrossEntropy(weight=[1, 2, 3, 4, 5], label_smoothing=0.1)
    return loop(net(backend=b), lambda logits, y: plainly(first)(logits, y) + plainly(second)(logits, y) * 0.25)


def a_loss_of_some_rows(b):
    def backward(logits, y):
        gradient = b.xp.zeros_like(logits)
        gradient[:7, ...] = plainly(nn.CrossEntropy())(logits[:7, ...], y[:7])
        return gradient

    return loop(net(backend=b), backward)


def a_loss_of_another_shape(b):
    def backward(logits, y):
        gradient = plainly(nn.MSE())(b.xp.reshape(logits, (-1,)), b.xp.reshape(y, (-1,)))
        return b.xp.reshape(gradient, logits.shape)

    return loop(net(backend=b), backward, y=SHARES)


def logits_times_a_number(b):
    return loop(net(backend=b), lambda logits, y: plainly(nn.CrossEntropy())(logits * 0.5, y) * 0.5)


def log_softmax_and_nll(b):
    def backward(logits, y):
        log_p = F.log_softmax(logits)
        return F.log_softmax_backward(plainly(nn.NLL())(log_p, y), log_p)

    return loop(net(backend=b), backward)


def losses_without_reduction(b):
    def backward(logits, y):
        loss = nn.CrossEntropy("none")
        return loss.backward(b.xp.ones_like(loss(logits, y)))

    return loop(net(backend=b), backward)


def a_gradient_by_hand(b):
    return loop(net(backend=b), lambda logits, y: b.asarray((F.softmax(logits) - y) * 0.0625), y=SHARES)


def weights_decayed_by_a_function(b):
    def decay(model):
        for _, parameter in model.named_parameters():
            zero = b.xp.zeros_like(parameter.value)
            parameter.accumulate(F.mse_backward(0.01, parameter.value, zero))

    return loop(net(backend=b), plainly(nn.CrossEntropy()), after=decay)


def clipping_and_adam_of_a_list(b):
    model = net(backend=b)
    every = [parameter for _, parameter in model.named_parameters()]
    optimizer = nn.AdamW(every, lr=0.01)
    return loop(model, plainly(nn.CrossEntropy()), optimizer, after=lambda model: nn.clip_grad_norm(every, 0.1))


def values_set_from_outside(b):
    model = net(backend=b)
    weight = fast(b).asarray(X[:5].reshape(5, 36))
    model[5].parameters["weight"] = nn.Parameter(weight)
    return loop(model, plainly(nn.CrossEntropy()))


def stages_that_are_computed_again(b):
    model = nn.Sequential(
        nn.Checkpointed(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh())),
        nn.Residual(nn.Conv2d(4, 4, 3, padding=1)),
        nn.Parallel(nn.AvgPool2d(6), nn.MaxPool2d(6)),
        nn.Flatten(),
        nn.Dense(8, 5),
        backend=b,
        seed=3,
    )
    return loop(model, plainly(nn.CrossEntropy()))


def a_model_that_moves(b):
    model, loss = net(backend="numpy", numerics="exact"), nn.CrossEntropy()
    optimizer = nn.SGD(model, lr=0.1, momentum=0.9)
    loop(model, plainly(loss), optimizer)
    return loop(model.to(b.spec), plainly(loss), optimizer)


def linear(w, x, target, optimizer, decay=None):
    """Steps of a linear regression with parameters of no layer."""
    weight, bias = w
    for _ in range(STEPS):
        loss = nn.MSE()
        loss(F.dense(x, weight.value, bias.value), target)
        _, dweight, dbias = F.dense_backward(loss.backward(), x, weight.value)
        weight.grad, bias.grad = dweight, dbias
        weight.accumulate(dweight)
        nn.clip_grad_norm(w, 0.7)
        optimizer.step()
    return {"weight": weight.value, "bias": bias.value}


def numbers(b):
    return b.asarray(X[:, 0, 0, :]), b.asarray(X[:, 0, 1, :3])


def start(b):
    return [nn.Parameter(b.asarray(X[0, 0, :3, :])), nn.Parameter(b.asarray(X[1, 0, 0, :3]))]


def a_loss_made_within_use_backend(b):
    y = fast(b).asarray(Y)
    with nn.use_backend(b):
        loss = nn.CrossEntropy()
    return loop(net(backend=b), lambda logits, _: plainly(loss)(logits * 0.75, y) * 0.75)


def parameters_of_no_layer(b):
    w = start(b)
    return linear(w, *numbers(b), nn.Adam(w, lr=0.1))


def parameters_of_no_layer_within_use_backend(b):
    with nn.use_backend(b):
        w = start(fast(b))
    return linear(w, *numbers(b), nn.RMSprop(w, lr=0.1))


def parameters_copied_and_pickled(b):
    w = pickle.loads(pickle.dumps(copy.deepcopy(start(b))))
    return linear(w, *numbers(b), nn.SGD(w, lr=0.1, momentum=0.9))


#: All that end with other weights, the same on each backend.
OTHERS = [
    accumulated_and_clipped_fit,
    a_gradient_times_a_number,
    a_sum_of_two_losses,
    a_loss_of_some_rows,
    a_loss_of_another_shape,
    logits_times_a_number,
    log_softmax_and_nll,
    losses_without_reduction,
    a_gradient_by_hand,
    weights_decayed_by_a_function,
    clipping_and_adam_of_a_list,
    values_set_from_outside,
    stages_that_are_computed_again,
    a_model_that_moves,
    a_loss_made_within_use_backend,
    parameters_of_no_layer,
    parameters_of_no_layer_within_use_backend,
    parameters_copied_and_pickled,
]


def digest(b, trained):
    """The SHA-256 of what a way ends with."""
    arrays = trained if isinstance(trained, dict) else trained.state_dict()
    return hashlib.sha256(b"".join(b.to_numpy(array).tobytes() for array in arrays.values())).hexdigest()


@cache
def on_numpy(way):
    return digest(NUMPY, way(NUMPY))


@pytest.mark.parametrize("way", ALIKE, ids=lambda way: way.__name__)
def test_these_ways_end_with_one_hash(exact, way):
    assert digest(exact, way(exact)) == on_numpy(readme)


@pytest.mark.parametrize("way", OTHERS, ids=lambda way: way.__name__)
def test_these_ways_end_with_numpys_hash(exact, way):
    assert digest(exact, way(exact)) == on_numpy(way)


def test_other_ways_of_other_steps_end_with_other_hashes():
    assert len({on_numpy(way) for way in (readme, *OTHERS)}) == len(OTHERS) + 1


def test_the_environment_makes_a_whole_program_exact(exact, monkeypatch):
    monkeypatch.setenv("XPNN_NUMERICS", "exact")
    monkeypatch.setenv("XPNN_BACKEND", exact.spec)
    assert digest(exact, loop(net(), plainly(nn.CrossEntropy()))) == on_numpy(readme)
    b = nn.get_backend()
    w = [nn.Parameter(array) for array in (fast(b).asarray(X[0, 0, :3, :]), fast(b).asarray(X[1, 0, 0, :3]))]
    assert digest(b, linear(w, *numbers(fast(b)), nn.Adam(w, lr=0.1))) == on_numpy(parameters_of_no_layer)


def values(b):
    """What a user reads off a model, by losses and metrics that were told nothing."""
    model, loss = net(backend=b), nn.CrossEntropy()
    logits = model(b.asarray(X))
    parts = [loss(logits, b.asarray(Y)), loss(logits[3:9, ...], b.asarray(Y)[3:9]), loss(logits * 0.3, b.asarray(Y))]
    told = nn.evaluate(model, (X, Y), batch_size=7), nn.evaluate(model, (X, Y), loss=nn.CrossEntropy(backend=b.spec))
    shown = [F.softmax(logits), F.log_softmax(logits[:2, ...]), F.gelu(model[0].parameters["weight"].value)]
    return told, nn.predict(model, X).tobytes(), [b.to_numpy(each).tobytes() for each in (*parts, *shown)]


def test_losses_metrics_and_functions_of_predictions_have_numpys_bits(exact):
    assert values(exact) == values(NUMPY)


def test_functions_have_the_bits_of_their_layers(exact):
    layer = nn.Conv2d(1, 4, 3, padding=1, backend=exact, seed=1)
    x = exact.asarray(X)
    y, weight, bias = layer(x), layer.parameters["weight"].value, layer.parameters["bias"].value
    same = exact.to_numpy(F.conv(x, weight, bias, padding=1)) == exact.to_numpy(y)
    assert same.all()
    dx, dweight, dbias = F.conv_backward(y, x, weight, padding=1)
    assert (exact.to_numpy(dx) == exact.to_numpy(layer.backward(y))).all()
    assert (exact.to_numpy(dweight) == exact.to_numpy(layer.parameters["weight"].grad)).all()
    assert (exact.to_numpy(dbias) == exact.to_numpy(layer.parameters["bias"].grad)).all()


def test_a_compiled_loss_keeps_the_origin_of_its_arguments_and_results(exact):
    model, loss = net(backend=exact), nn.CrossEntropy()
    logits, y = model(exact.asarray(X)), exact.asarray(Y)
    compiled = exact.compile(plainly(loss))
    wanted = exact.to_numpy(plainly(nn.CrossEntropy(backend=exact))(logits, y))
    for _ in range(5):
        gradient = compiled(logits, y)
        assert (exact.to_numpy(gradient) == wanted).all()
        assert origins.maker_of(gradient).backend == exact


# What leaves exact numerics, and the error's words.


def a_loss_given_a_fast_backend(b):
    return loop(net(backend=b), plainly(nn.CrossEntropy(backend=fast(b))))


def fit_with_a_loss_given_a_fast_backend(b):
    return nn.fit(net(backend=b), (X, Y), loss=nn.CrossEntropy(backend=fast(b)), epochs=1, progress=False)


def evaluate_with_a_loss_given_a_fast_backend(b):
    return nn.evaluate(net(backend=b), (X, Y), loss=nn.CrossEntropy(backend=fast(b)))


def arithmetic_before_and_after_a_loss(b):
    y = fast(b).asarray(Y)
    return loop(net(backend=b), lambda logits, _: plainly(nn.CrossEntropy())(logits * 0.5, y) * 0.5)


def arithmetic_around_a_stage_that_is_computed_again(b):
    y = fast(b).asarray(Y)
    model = nn.Checkpointed(net(), backend=b)
    return loop(model, lambda logits, _: plainly(nn.CrossEntropy())(logits * 0.5, y) * 0.5)


def a_function_of_arithmetic(b):
    y = fast(b).asarray(Y)
    return loop(net(backend=b), lambda logits, _: F.cross_entropy_backward(1.0, logits * 0.5, y))


def a_function_given_a_fast_namespace(b):
    return loop(net(backend=b), lambda logits, y: F.cross_entropy_backward(1.0, logits, y, xp=fast(b).xp))


def a_fast_model_behind_an_exact_one(b):
    critic = nn.Dense(5, 1, backend=fast(b), seed=2)
    return loop(net(backend=b), lambda logits, y: critic.backward(critic(logits)))


def a_fast_gradient_of_a_parameter(b):
    weight = nn.Parameter(b.asarray(X[0, 0, :3, :]))
    x, target = numbers(fast(b))
    loss = nn.MSE(backend=fast(b))
    loss(F.dense(x, fast(b).asarray(X[0, 0, :3, :])), target)
    weight.grad = F.dense_backward(loss.backward(), x, fast(b).asarray(X[0, 0, :3, :]))[1]
    nn.SGD([weight], lr=0.1).step()


def a_fast_gradient_added_to_a_parameters(b):
    layer = nn.Dense(6, 3, backend=b)
    other = nn.Dense(6, 3, backend=fast(b))
    loss = nn.MSE()
    loss(other(numbers(fast(b))[0]), numbers(fast(b))[1])
    other.backward(loss.backward())
    layer.parameters["weight"].accumulate(F.relu(other.parameters["weight"].grad))


def a_softmax_of_arithmetic_less_the_target(b):
    y = b.asarray(SHARES)
    return loop(net(backend=b), lambda logits, _: (F.softmax(logits * 0.5) - y) * 0.0625)


def a_parameter_of_no_layer_and_arithmetic_around_its_loss(b):
    weight, target = nn.Parameter(b.asarray(X[0, 0, :3, :])), fast(b).asarray(X[1, 0, :3, :])
    weight.grad = plainly(nn.MSE())(weight.value * 2.0, target) * 2.0
    nn.clip_grad_norm([weight], 0.7)
    nn.SGD([weight], lr=0.1).step()


LEAVES = {
    a_softmax_of_arithmetic_less_the_target: r"your own arithmetic.* functions arrays of model\.backend\.asarray",
    a_parameter_of_no_layer_and_arithmetic_around_its_loss: r"since the last step or zero_grad\(\) something was",
    a_loss_given_a_fast_backend: r"computed in exact numerics by Dense, but .* pass it backend=model\.backend",
    fit_with_a_loss_given_a_fast_backend: r"pass it backend=model\.backend",
    evaluate_with_a_loss_given_a_fast_backend: r"pass it backend=model\.backend",
    arithmetic_before_and_after_a_loss: r"pass the loss its backend, as in CrossEntropy\(backend=model\.backend\)",
    arithmetic_around_a_stage_that_is_computed_again: r"pass the loss its backend",
    a_function_of_arithmetic: "fast numerics by cross_entropy_backward, .* arrays of model.backend.asarray and no xp",
    a_function_given_a_fast_namespace: "fast numerics by cross_entropy_backward, .* and no xp to a function",
    a_fast_model_behind_an_exact_one: "fast numerics by Dense, .* numerics='exact' to a layer or container",
    a_fast_gradient_of_a_parameter: r"the gradient was computed in fast numerics by dense_backward",
    a_fast_gradient_added_to_a_parameters: r"the gradient was computed in fast numerics by relu",
}


@pytest.mark.parametrize("way", LEAVES, ids=lambda way: way.__name__)
def test_these_ways_are_refused(exact, way):
    with pytest.raises(ValueError, match=LEAVES[way]):
        way(exact)


def test_what_the_message_names_helps(exact):
    y = fast(exact).asarray(Y)
    loss = nn.CrossEntropy(backend=exact)
    told = loop(net(backend=exact), lambda logits, _: plainly(loss)(logits * 0.5, y) * 0.5)
    assert digest(exact, told) == on_numpy(logits_times_a_number)


@pytest.mark.parametrize(
    "build",
    [
        lambda b: nn.Sequential(nn.Flatten(backend=b), nn.Dense(36, 5, backend=fast(b))),
        lambda b: nn.Sequential(nn.Sequential(nn.Flatten(), backend=fast(b)), nn.Dense(36, 5, backend=b)),
        lambda b: nn.Sequential(net(backend=b), nn.Dense(5, 5, backend=fast(b))),
        lambda b: nn.Sequential(net(backend=b), nn.ReLU(), backend=fast(b)),
        lambda b: nn.Residual(nn.Dense(6, 6, backend=fast(b)), nn.Dense(6, 6, backend=b)),
        lambda b: nn.Parallel(nn.Dense(6, 6, backend=fast(b)), nn.Dense(6, 6, backend=b)),
        lambda b: nn.Sequential(nn.Checkpointed(nn.Flatten(backend=b), backend=fast(b)), nn.Flatten(backend=fast(b))),
    ],
)
def test_exact_and_fast_parts_of_one_model_are_refused(exact, build):
    model = build(exact)
    for mode in (True, False):
        with pytest.raises(ValueError, match=r"leave exact numerics.*give the outermost container numerics='exact'"):
            model.train(mode)(exact.asarray(X))


def test_a_part_that_is_moved_to_fast_numerics_is_refused(exact):
    model = net(backend=exact)
    model(exact.asarray(X))
    model[2].to(fast(exact))
    with pytest.raises(ValueError, match="'2' in fast"):
        model(exact.asarray(X))
    model.to(exact)
    model(exact.asarray(X))


def test_fast_parts_that_say_so_by_name_are_taken(exact):
    """Nobody leaves exact numerics unasked there; and the rest learns from them."""
    model = nn.Sequential(
        nn.Flatten(), nn.Dense(36, 9), nn.Sequential(nn.Tanh(), numerics="fast"), nn.Dense(9, 5), backend=exact
    )
    loop(model, plainly(nn.CrossEntropy()))
    loop(model, plainly(nn.CrossEntropy(backend=exact.spec, numerics="fast")))
    assert [layer.backend.numerics for layer in model] == ["exact", "exact", "fast", "exact"]


def test_one_norm_of_gradients_has_one_kind_of_numerics(exact):
    w = [nn.Parameter(exact.asarray(X[0, 0])), nn.Parameter(fast(exact).asarray(X[1, 0]))]
    for parameter in w:
        parameter.grad = parameter.value
    with pytest.raises(ValueError, match=r"one backend, got some of .* exact numerics.* and some of .* fast numerics"):
        nn.clip_grad_norm(w, 1.0)


def test_a_loss_told_fast_numerics_alone_has_these_wherever_its_prediction_is(exact):
    b = fast(exact)
    logits, y = b.asarray(X[:, 0, 0, :5]), b.asarray(Y)
    loss = nn.CrossEntropy(numerics="fast")
    wanted = exact.to_numpy(nn.CrossEntropy(backend=b)(logits, y))
    assert exact.to_numpy(loss(logits, y)) == wanted and loss._saved[0] == b
    placed = nn.CrossEntropy(backend="numpy", numerics="fast")
    if exact.spec != "numpy":
        with pytest.raises(TypeError, match=r"the prediction is on .*, this is on numpy"):
            placed(logits, y)


def test_fast_models_beside_exact_ones_stay_fast(exact):
    b = fast(exact)
    model, loss = net(backend=b), nn.CrossEntropy()
    loop(net(backend=exact), plainly(nn.CrossEntropy()))
    logits = model(exact.asarray(X))
    loss(logits, exact.asarray(Y))
    assert loss._saved[0].numerics == "fast"
    wanted = exact.to_numpy(plainly(nn.CrossEntropy(backend=b))(logits, b.asarray(Y)))
    assert (exact.to_numpy(loss.backward()) == wanted).all()
    model.backward(loss.backward())


def test_what_fast_numerics_did_before_zero_grad_does_not_count(exact):
    weight, other = (nn.Parameter(exact.asarray(X[0, 0, :3, :])) for _ in range(2))
    optimizer = nn.SGD([weight, other], lr=0.1)
    plainly(nn.MSE())(fast(exact).asarray(X) * 2.0, fast(exact).asarray(X))
    optimizer.zero_grad()
    weight.grad = weight.value * 0.01
    other.accumulate(F.relu(other.value))
    other.accumulate(F.relu(other.value))
    plainly(nn.MSE())(fast(exact).asarray(X) * 2.0, fast(exact).asarray(X))
    weight.grad = exact.asarray(weight.grad)
    nn.clip_grad_value([weight, other], 0.5)
    nn.clip_grad_norm([weight, other], 0.7)
    optimizer.step()


def test_an_array_that_goes_in_one_thread_takes_no_others_origin_with_it(monkeypatch):
    # Two arrays that lie at one place, one after the other.
    monkeypatch.setattr(origins, "id", lambda thing: 0, raising=False)
    went, came = X.copy(), X.copy()
    other = threading.Thread(target=origins.record_maker, args=(came, NUMPY, "came"))

    class Watched(dict):
        """Lets the other thread go on, if it can, between a look at an entry and what is done about it."""

        def get(self, *given):
            found = super().get(*given)
            if other.ident is None:
                other.start()
                other.join(0.2)
            return found

    monkeypatch.setattr(origins, "_made", Watched())
    origins.record_maker(went, NUMPY, "went")
    del went
    other.join()
    assert origins.maker_of(came).name == "came"


def test_origins_are_forgotten_with_the_arrays(exact):
    model, x = net(backend=exact), exact.asarray(X)
    y = model(x)
    # What other tests left would be forgotten meanwhile.
    gc.collect()
    before = len(origins._made)
    for _ in range(3):
        y = model(x)
        part = y[:3, ...]
    assert origins.maker_of(part).backend == exact
    assert len(origins._made) == before
    del y, part
    assert len(origins._made) < before


def test_arrays_of_the_caller_are_not_taken_for_exact_ones():
    x, y = X.copy(), Y.copy()
    NUMPY.asarray(x), NUMPY.asarray(y), NUMPY.asarray(y, "int64")
    assert origins.maker_of(x) is origins.maker_of(y) is None
    model = net(backend=NUMPY)
    model(x)
    assert origins.maker_of(x) is None
