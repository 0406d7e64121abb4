"""Whole nets beside the same nets in PyTorch: training steps and inference."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import Backend, Generator, get_backend
from ...layers.core.release import released
from ...layers.losses import CrossEntropy
from ...layers.models import BUILDERS
from ...training.optimizers import SGD, Adam
from .measure import Side
from .memory import peaks
from .mirror import load, mirror, weights
from .numerics import count_operations
from .opponent import Opponent
from .plain import HostArray
from .rows import Plan, Row
from .work import relative_error

CLASSES = 10
# Small, so that long runs on one batch stay where the gradients are ordinary numbers.
RATE = 1e-3
# Images whose gradients are compared in float64.
CHECKED = 8
OPTIMIZERS = {"sgd": "SGD, momentum 0.9", "adam": "Adam"}


@dataclass(frozen=True)
class NetCase:
    """A net of `BUILDERS`, the shape of an image, and the usual batch."""

    name: str
    builder: str
    image: tuple[int, int, int]
    batch: int


NETS: dict[str, NetCase] = {
    case.name: case
    for case in (
        NetCase("resnet18", "resnet18", (3, 32, 32), 32),
        NetCase("vgg11_bn", "vgg11_bn", (3, 32, 32), 32),
        NetCase("lenet5", "lenet5", (1, 28, 28), 64),
        NetCase("mlp", "mlp", (1, 28, 28), 64),
        NetCase("digits_lenet", "lenet", (1, 8, 8), 32),
    )
}
SHORT = ("lenet5", "mlp", "digits_lenet")


def batch_of(image: tuple[int, int, int], batch: int) -> tuple[HostArray, HostArray]:
    """Random images and their classes, on the host."""
    generator = Generator(0).fold_in("bench")
    return np.asarray(generator.uniform((batch, *image), backend="numpy")), np.asarray(
        generator.permutation(batch) % CLASSES
    )


class OurNet:
    """A net of ours with its optimizer and a batch."""

    def __init__(self, b: Backend, case: NetCase, batch: int, optimizer: str) -> None:
        self.b, self.model = b, BUILDERS[case.builder](case.image, CLASSES, backend=b, seed=0)
        self.optimizer = Adam(self.model, RATE) if optimizer == "adam" else SGD(self.model, RATE, momentum=0.9)
        self.loss = CrossEntropy(backend=b)
        self.host_x, self.host_y = batch_of(case.image, batch)
        self.x, self.y = b.asarray(self.host_x, b.dtype_name), b.asarray(self.host_y)

    def gradients(self) -> dict[str, Any]:
        """Of all parameters by name, at the weights as they are."""
        self.optimizer.zero_grad()
        self.loss(self.model(self.x), self.y)
        with released():
            self.model.backward(self.loss.backward(), input_grad=False)
        return {name: parameter.grad for name, parameter in self.model.named_parameters()}

    def step(self) -> None:
        """Forward, loss, backward, update."""
        self.gradients()
        self.optimizer.step()


class TorchNet:
    """The same net, weights, batch and optimizer in PyTorch, eager, in one memory format."""

    def __init__(
        self, opponent: Opponent, model: Any, x: HostArray, y: HostArray, optimizer: str, memory_format: str
    ) -> None:
        torch = self.torch = opponent.torch
        self.opponent = opponent
        self.net = opponent.module(mirror(opponent, model), memory_format)
        self.x, self.y = opponent.tensor(x, memory_format), opponent.tensor(y)
        self.loss = torch.nn.CrossEntropyLoss()
        parameters = self.net.parameters()
        self.optimizer: Any = (
            torch.optim.Adam(parameters, lr=RATE)
            if optimizer == "adam"
            else torch.optim.SGD(parameters, lr=RATE, momentum=0.9)
        )

    def gradients(self) -> dict[str, Any]:
        """Of all parameters by name, at the weights as they are."""
        self.optimizer.zero_grad()
        self.loss(self.net(self.x), self.y).backward()
        return {name: parameter.grad for name, parameter in self.net.named_parameters()}

    def step(self) -> None:
        """Forward, loss, backward, update."""
        self.optimizer.zero_grad()
        self.loss(self.net(self.x), self.y).backward()
        self.optimizer.step()

    def infer(self, x: Any) -> Any:
        """The output without autograd."""
        with self.torch.inference_mode():
            return self.net(x)


def net_rows(
    cases: list[NetCase],
    b: Backend,
    opponent: Opponent | None,
    plan: Plan,
    batch: int | None,
    optimizer: str,
    memory: bool,
) -> Iterator[Row]:
    """Of each net a row for a step, one for an image, one for a batch."""
    for case in cases:
        size = batch or case.batch
        ours = OurNet(b, case, size, optimizer)
        theirs = {} if opponent is None else _theirs(opponent, ours, optimizer)
        row = _step(case, ours, theirs, opponent, plan, optimizer)
        if memory:
            row.ours_peak_mb, row.torch_peak_mb = peaks(case.name, b, opponent, size, optimizer)
        yield row
        ours.model.eval()
        for net in theirs.values():
            load(net.opponent, net.net, ours.model, b)
            net.net.eval()
        for count in dict.fromkeys((1, size)):
            yield _inference(case, ours, theirs, opponent, plan, count)


def _theirs(opponent: Opponent, ours: OurNet, optimizer: str) -> dict[str, TorchNet]:
    nets = {}
    for memory_format in opponent.formats():
        net = TorchNet(opponent, ours.model, ours.host_x, ours.host_y, optimizer, memory_format)
        load(opponent, net.net, ours.model, ours.b)
        nets[memory_format] = net
    return nets


def _step(
    case: NetCase, ours: OurNet, theirs: dict[str, TorchNet], opponent: Opponent | None, plan: Plan, optimizer: str
) -> Row:
    error = wide = None
    sides = {"ours": Side(ours.step, ours.b.synchronize)}
    if opponent is not None:
        start = weights(ours.model, ours.b)
        mine, other = _gradients(ours, next(iter(theirs.values())))
        ours.model.load_state_dict(start)
        flat = [np.concatenate([gradient.ravel() for gradient in gradients]) for gradients in (mine, other)]
        error = relative_error(flat[:1], flat[1:])
        wide = _float64_error(case, ours, opponent, optimizer)
        sides |= {f"torch {name}": Side(net.step, opponent.wait) for name, net in theirs.items()}
    batch = ours.host_x.shape[0]
    launches = None if ours.b.is_host else _launches(case, ours.b, batch, optimizer)
    known = {
        "relative_error": error,
        "float64_error": wide,
        "optimizer": OPTIMIZERS[optimizer],
        "launches": launches,
    }
    return plan.row("net", case.name, "step", batch, sides, **known)


def _launches(case: NetCase, b: Backend, batch: int, optimizer: str) -> int | None:
    """Kernels, copies and fills of a recorded step; where none is recorded, PyTorch's count of array operations."""
    net = OurNet(b, case, batch, optimizer)
    step = b.compile(net.step, net.model, net.optimizer)
    recorded: int | None = None
    # The first calls run plainly, and what is made in them is another state to record.
    for _ in range(5):
        step()
        recorded = getattr(step, "launches", None)
    return count_operations("fast", case.builder, case.image) if recorded is None else recorded


def _gradients(ours: OurNet, theirs: TorchNet) -> tuple[list[HostArray], list[HostArray]]:
    """All gradients of both, in one order."""
    mine = {name: ours.b.to_numpy(gradient) for name, gradient in ours.gradients().items()}
    other = {name: theirs.opponent.host(gradient) for name, gradient in theirs.gradients().items()}
    return [mine[name] for name in other], list(other.values())


def _float64_error(case: NetCase, ours: OurNet, opponent: Opponent, optimizer: str) -> float | None:
    """How far the gradients of a few images are from PyTorch's where both compute in float64."""
    if ours.b.numerics != "fast" or not ours.b.has("float64"):
        return None
    wide = OurNet(get_backend(ours.b.spec, "float64", "fast"), case, min(CHECKED, len(ours.host_x)), optimizer)
    wide.model.load_state_dict(ours.model.state_dict())
    net = TorchNet(opponent, wide.model, wide.host_x, wide.host_y, optimizer, "contiguous_format")
    net.net.double()
    load(opponent, net.net, wide.model, wide.b)
    net.x = net.x.double()
    return relative_error(*_gradients(wide, net))


def _inference(
    case: NetCase, ours: OurNet, theirs: dict[str, TorchNet], opponent: Opponent | None, plan: Plan, batch: int
) -> Row:
    b, model = ours.b, ours.model
    x = b.asarray(ours.host_x[:batch].copy())
    sides, error = {"ours": Side(lambda: model(x), b.synchronize)}, None
    for name, net in theirs.items():
        assert opponent is not None
        images = opponent.tensor(ours.host_x[:batch], name)
        if error is None:
            error = relative_error([b.to_numpy(model(x))], [opponent.host(net.infer(images))])
        sides[f"torch {name}"] = Side(lambda net=net, images=images: net.infer(images), opponent.wait)  # type: ignore[misc]
    flops = 2 * model.summary(tuple(x.shape)).multiply_adds
    return plan.row("net", case.name, "inference", batch, sides, relative_error=error, flops=flops)
