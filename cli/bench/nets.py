"""``xpnn bench --nets``: whole nets beside the same nets in PyTorch, training steps and inference."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ...backends import Backend, get_backend, operations_of
from .comparison import Plan, Row
from .exact_cost import count_operations
from .host_arrays import HostArray, relative_error
from .measure import Side
from .net_steps import CompiledStep, NetCase, OurNet, TorchNet
from .peak_memory import peaks
from .pytorch import PyTorch
from .torch_module import host_state, load_weights

# Images whose gradients are compared in float64.
CHECKED = 8
# Of the norm of all gradients: that of a bias before a batch norm is zero, and its rounding is no error.
SHARE = 1e-6
# Steps whose weights are compared: the first are not recorded, and the state that they make needs another recording.
COMPILED = 6
OPTIMIZERS = {"sgd": "SGD, momentum 0.9", "adam": "Adam"}


def net_rows(
    cases: list[NetCase],
    b: Backend,
    pytorch: PyTorch | None,
    plan: Plan,
    batch: int | None,
    optimizer: str,
    memory: bool,
) -> Iterator[Row]:
    """For each net a row for a step, one for inference of an image, and one for inference of a batch."""
    kernels = operations_of(b.xp).find_kernels()
    for case in cases:
        size = batch or case.batch
        ours = OurNet(b, case, size, optimizer)
        theirs = {} if pytorch is None else _theirs(pytorch, ours, optimizer)
        for row in _steps(case, ours, theirs, pytorch, plan, optimizer):
            row.kernels = kernels
            if memory:
                side = "compiled" if row.compiled else "ours"
                row.ours_peak_mb, row.torch_peak_mb = peaks(case.name, b, pytorch, size, optimizer, side)
            yield row
        ours.model.eval()
        for net in theirs.values():
            load_weights(net.pytorch, net.net, ours.model, b)
            net.net.eval()
        for count in dict.fromkeys((1, size)):
            row = _inference(case, ours, theirs, pytorch, plan, count)
            row.kernels = kernels
            yield row


def _theirs(pytorch: PyTorch, ours: OurNet, optimizer: str) -> dict[str, TorchNet]:
    nets = {}
    for memory_format in pytorch.formats():
        net = TorchNet(pytorch, ours.model, ours.host_x, ours.host_y, optimizer, memory_format)
        load_weights(pytorch, net.net, ours.model, ours.b)
        nets[memory_format] = net
    return nets


def _steps(
    case: NetCase, ours: OurNet, theirs: dict[str, TorchNet], pytorch: PyTorch | None, plan: Plan, optimizer: str
) -> list[Row]:
    """A row for the step, and one for the compiled step if the backend compiles steps."""
    error = wide = None
    sides = {"ours": Side(ours.step, ours.b.synchronize)}
    if pytorch is not None:
        start = host_state(ours.model, ours.b)
        mine, other = _gradients(ours, next(iter(theirs.values())))
        ours.model.load_state_dict(start)
        flat = [np.concatenate([gradient.ravel() for gradient in gradients]) for gradients in (mine, other)]
        error = relative_error(flat[:1], flat[1:])
        wide = _float64_error(case, ours, pytorch, optimizer)
        sides |= {f"torch {name}": Side(net.step, pytorch.wait) for name, net in theirs.items()}
    batch = ours.host_x.shape[0]
    known: dict[str, Any] = {"optimizer": OPTIMIZERS[optimizer]}
    own = {"ours": known | {"relative_error": error, "float64_error": wide}}
    net = OurNet(ours.b, case, batch, optimizer)
    compiled = net.compiled()
    if compiled is not None:
        error = _compiled_error(compiled, net, OurNet(ours.b, case, batch, optimizer))
        sides["compiled"] = Side(compiled, ours.b.synchronize)
        own["compiled"] = known | {"compiled": True, "compiled_error": error}
    if not ours.b.is_host:
        recorded = None if compiled is None else compiled.launches
        counted = count_operations("fast", case.builder, case.image) if recorded is None else recorded
        for each in own.values():
            each["launches"] = counted
    return plan.rows("net", case.name, "step", batch, sides, own)


def _compiled_error(compiled: CompiledStep, net: OurNet, plain: OurNet) -> float:
    """The relative error of all weights after some compiled steps, against plain ones."""
    for _ in range(COMPILED):
        compiled()
        plain.step()
    flat = [
        np.concatenate([array.ravel() for array in host_state(each.model, each.b).values()]) for each in (net, plain)
    ]
    return relative_error(flat[:1], flat[1:])


def _gradients(ours: OurNet, theirs: TorchNet) -> tuple[list[HostArray], list[HostArray]]:
    """All gradients of both sides, in the same order."""
    mine = {name: ours.b.to_numpy(gradient) for name, gradient in ours.gradients().items()}
    other = {name: theirs.pytorch.host(gradient) for name, gradient in theirs.gradients().items()}
    return [mine[name] for name in other], list(other.values())


def _float64_error(case: NetCase, ours: OurNet, pytorch: PyTorch, optimizer: str) -> float | None:
    """The relative error of gradients for a few images, if both sides compute in float64."""
    if ours.b.numerics != "fast" or not ours.b.has("float64"):
        return None
    wide = OurNet(get_backend(ours.b.spec, "float64", "fast"), case, min(CHECKED, len(ours.host_x)), optimizer)
    wide.model.load_state_dict(ours.model.state_dict())
    net = TorchNet(pytorch, wide.model, wide.host_x, wide.host_y, optimizer, "contiguous_format")
    net.net.double()
    load_weights(pytorch, net.net, wide.model, wide.b)
    net.x = net.x.double()
    return relative_error(*_gradients(wide, net), share=SHARE)


def _inference(
    case: NetCase, ours: OurNet, theirs: dict[str, TorchNet], pytorch: PyTorch | None, plan: Plan, batch: int
) -> Row:
    b, model = ours.b, ours.model
    x = b.asarray(ours.host_x[:batch].copy())
    sides, error = {"ours": Side(lambda: model(x), b.synchronize)}, None
    for name, net in theirs.items():
        assert pytorch is not None
        images = pytorch.tensor(ours.host_x[:batch], name)
        if error is None:
            error = relative_error([b.to_numpy(model(x))], [pytorch.host(net.infer(images))])
        sides[f"torch {name}"] = Side(partial(net.infer, images), pytorch.wait)
    flops = 2 * model.summary(tuple(x.shape)).multiply_adds
    return plan.row("net", case.name, "inference", batch, sides, relative_error=error, flops=flops)
