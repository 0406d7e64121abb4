"""`NonFiniteError`, and where the first NaN or infinity of a training step was.

`locate` computes the batch once more and finds the first array, in the order of computation, that is not finite.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from ..backends import Backend, use_backend
from ..backends.backend import FLOATS
from ..common.types import Array, dtype_name
from ..layers.core.layer import Layer
from ..layers.core.layer_outputs import preserved, watched
from ..layers.core.snapshot import Snapshot
from ..layers.losses import Loss

__all__ = ["Finding", "NonFiniteError", "Snapshot", "is_finite", "locate"]

# Characters of a layer's repr in a message.
LONGEST = 72
DATA = 'repair or leave out these samples, or skip such batches with on_nan="skip"'
BROKEN = "an earlier step broke it: go back to a checkpoint from before, lower the learning rate or clip gradients"
OVERFLOW = (
    "lower the learning rate or clip gradients (clip_norm, --clip-norm); check that the inputs are normalised; with "
    "dtype='float64' an overflow of float32 goes away"
)
GRADIENT = 'clip gradients (clip_norm, --clip-norm) or lower the learning rate; on_nan="skip" leaves single batches out'
LOSS = "check that predictions and targets are what this loss accepts (probabilities or logits, positive, at least one)"
PASSING = 'the batch is not the cause: go on from a checkpoint, or skip such batches with on_nan="skip"'


@dataclass(frozen=True)
class Finding:
    """Where the first value that is not finite was.

    Attributes
    ----------
    layer : str
        Full name of the layer; "" where it is none, or the model itself.
    what : str
        What is not finite, in words, with the layer's call.
    advice : str
        What to try.
    """

    layer: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}\n{self.advice}"


class NonFiniteError(ArithmeticError):
    """The loss of a training step is NaN or infinite; the message says where that began and what to try.

    Parameters
    ----------
    step, epoch : int
        In which it happened, both from 1.
    finding : Finding or str
    """

    def __init__(self, step: int, epoch: int, finding: Finding | str) -> None:
        super().__init__(step, epoch, finding)
        self.step, self.epoch, self.finding = step, epoch, finding

    def __str__(self) -> str:
        return f"step {self.step}, epoch {self.epoch}: {self.finding}"


class _Found(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)
        self.finding = finding


def uses_only_library_code(model: Layer, loss: Loss, optimizer: object) -> bool:
    """Whether a step calls only this library's code, so that NumPy's warnings of NaN would name no code of the user."""
    package = __name__.partition(".")[0] + "."
    both = ("forward", "backward", "_forward", "_backward")
    owners: list[tuple[type, tuple[str, ...]]] = [(type(layer), both) for _, layer in model.named_layers()]
    owners += [(type(loss), (*both, "function", "gradient"))]
    owners += [(type(optimizer), ("step", "_step", "_apply", "_update", "_update_all", "_update_part"))]
    found = (getattr(kind, name, None) for kind, names in owners for name in names)
    return all(getattr(function, "__module__", package).startswith(package) for function in found)


def is_finite(b: Backend, arrays: Iterable[Array | None]) -> Array:
    """Whether all values of these arrays are finite: 0-d, on the device, without a transfer to the host."""
    xp = b.xp
    with b.context():
        found = xp.ones((), dtype=xp.bool, device=b.device)
        for array in arrays:
            if array is not None and dtype_name(array.dtype) in FLOATS:
                found = xp.logical_and(found, xp.all(xp.isfinite(array)))
    return found


def locate(model: Layer, loss: Loss, x: Array, target: Array) -> Finding:
    """Where a step on this batch first computes a value that is not finite.

    Examines, in this order, the data, the parameters, the layers' outputs, the loss, and the gradients as backward
    computes them. Costs up to a forward and a backward, and waits for the device at each layer. Parameters, gradients,
    buffers, modes and positions of random streams stay as they were; what was saved for backward is freed. Dropout
    draws the same masks only if the step's `Snapshot` was restored before.

    Parameters
    ----------
    model : Layer
    loss : Loss
    x, target : array
        The batch, on the model's backend.
    """
    model.release()
    try:
        with preserved(model), use_backend(model.backend):
            _search(model, loss, x, target)
    except _Found as found:
        return found.finding
    finally:
        loss.release()
    return Finding("", "a second pass of the same batch is finite throughout", PASSING)


def _search(model: Layer, loss: Loss, x: Array, target: Array) -> None:
    """Raise `_Found` at the first array that is not finite."""
    b = model.backend
    inputs = [(x, "the input")]
    if isinstance(x, tuple):
        inputs = [(each, f"input {number} of {len(x)}") for number, each in enumerate(x, start=1)]
    for array, what in (*inputs, (target, "the target")):
        _require(b, array, "", f"{what} of {_bad_samples(b, array)}", DATA)
    for name, parameter in model.named_parameters():
        _require(b, parameter.value, name.rpartition(".")[0], f"parameter {name}", BROKEN)

    def look_forward(name: str, layer: Layer, y: Any) -> None:
        for array in y if isinstance(y, tuple) else (y,):
            _require(b, array, name, f"the output of {_call(name, layer)}", OVERFLOW)

    def look_backward(name: str, layer: Layer, dx: Any) -> None:
        for key, parameter in layer.parameters.items():
            _require(b, parameter.grad, name, f"the gradient of {key} in {_call(name, layer)}", GRADIENT)
        for array in dx if isinstance(dx, tuple) else (dx,):
            _require(b, array, name, f"the input's gradient of {_call(name, layer)}", GRADIENT)

    with watched(model, forward=look_forward):
        prediction = model.forward(x)
    value = loss.forward(prediction, target)
    _require(b, value, "", f"the loss {loss!r}, of finite predictions,", _about(b, loss, prediction, target))
    dy = loss.backward()
    _require(b, dy, "", f"the gradient of the loss {loss!r}", GRADIENT)
    with watched(model, backward=look_backward):
        model.backward(dy, input_grad=False)


def _require(b: Backend, array: Array | None, layer: str, what: str, advice: str) -> None:
    if array is None or dtype_name(array.dtype) not in FLOATS or bool(b.to_numpy(is_finite(b, [array]))):
        return
    xp = b.xp
    with b.context():
        bad = int(b.to_numpy(xp.count_nonzero(xp.logical_not(xp.isfinite(array)))))
        kind = "NaN" if bool(b.to_numpy(xp.any(xp.isnan(array)))) else "infinite"
    raise _Found(Finding(layer, f"{what} is {kind} in {bad} of {prod(array.shape)} values", advice))


def _bad_samples(b: Backend, array: Array) -> str:
    """The first samples that are not finite: ``sample 3``, ``samples 3, 5, 8 and 4 more``."""
    if not array.ndim or dtype_name(array.dtype) not in FLOATS:
        return "the batch"
    xp, n = b.xp, int(array.shape[0])
    with b.context():
        fine = xp.all(xp.isfinite(array), axis=tuple(range(1, array.ndim))) if array.ndim > 1 else xp.isfinite(array)
    bad = [i for i, good in enumerate(b.to_numpy(fine).tolist()) if not good]
    shown = ", ".join(map(str, bad[:3])) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    return f"sample{'s' if len(bad) > 1 else ''} {shown} of {n}"


def _call(name: str, layer: Layer) -> str:
    call = repr(layer)
    call = call if len(call) <= LONGEST else f"{call[: LONGEST - 4]}...)"
    return f"layer {name}, {call}" if name else call


def _about(b: Backend, loss: Loss, prediction: Array, target: Array) -> str:
    """What to try if the loss of finite predictions is not finite."""
    with suppress(TypeError, ValueError):
        if loss.reduction == "mean" and not float(b.to_numpy(loss.terms(prediction, target))):
            return "its mean is over nothing: no target of this batch counts (an empty batch, or ignore_index)"
    return LOSS
