"""``xpnn bench --numerics``: the cost of exact numerics, training steps of whole nets in both numerics in turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...backends import Backend, Generator, get_backend
from ...backends.exact.namespace import ExactNamespace
from ...layers import models
from ...layers.losses import CrossEntropy
from ...training.optimizers import Adam
from .measure import Side, disturbance, measure
from .other_processes import Watch


@dataclass
class NumericsRow:
    """One net in both numerics: medians in milliseconds, their ratio, and array operations of a step."""

    kind: str
    name: str
    phase: str
    batch: int
    fast_ms: float
    exact_ms: float
    ratio: float
    fast_operations: int | None
    exact_operations: int | None
    disturbed: bool | None = None

    def __str__(self) -> str:
        counts = f"; array operations {self.fast_operations}, {self.exact_operations}" if self.exact_operations else ""
        return (
            f"{self.name} step, batch {self.batch}: fast {self.fast_ms:.1f} ms, exact {self.exact_ms:.1f} ms, "
            f"exact/fast {self.ratio:.2f}{counts}{disturbance(self.disturbed)}"
        )


# Nets with the shape of an image and the images in a batch.
NETS: dict[str, tuple[tuple[int, int, int], int]] = {
    "lenet5": ((1, 28, 28), 64),
    "vgg11_bn": ((3, 32, 32), 32),
    "resnet18": ((3, 32, 32), 32),
}


def numerics_rows(spec: str, batch: int | None, rounds: int, only: str) -> Iterator[NumericsRow]:
    """A row for each net whose name contains ``only``."""
    for name in NETS:
        if only in name:
            yield measure_numerics(spec, name, batch, rounds)


def measure_numerics(spec: str, name: str, batch: int | None, rounds: int) -> NumericsRow:
    """A training step of a net in both numerics, in turn."""
    image, usual = NETS[name]
    batch = batch or usual
    fast, exact = (_step(get_backend(spec, numerics=numerics), name, image, batch) for numerics in ("fast", "exact"))
    times = measure({"fast": Side(fast), "exact": Side(exact)}, rounds, Watch(), 0.0)
    medians = times.medians
    operations, exact_operations = (count_operations(numerics, name, image) for numerics in ("fast", "exact"))
    ratio = medians["exact"] / medians["fast"]
    rest = (ratio, operations, exact_operations, times.disturbed)
    return NumericsRow("net", name, "step", batch, medians["fast"], medians["exact"], *rest)


def _step(b: Backend, name: str, image: tuple[int, int, int], batch: int) -> Callable[[], None]:
    """Forward, loss, backward and Adam's update on one batch of random images."""
    generator = Generator(0).fold_in("bench")
    model = getattr(models, name)(image, 10, backend=b, seed=0)
    optimizer, loss = Adam(model), CrossEntropy(backend=b)
    x = b.asarray(generator.uniform((batch, *image), backend="numpy"))
    y = b.asarray(generator.permutation(batch) % 10)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        b.synchronize()

    return step


def count_operations(numerics: str, name: str, image: tuple[int, int, int]) -> int | None:
    """The number of array operations of a step on a device without blocks, views not counted; None without PyTorch.

    PyTorch's dispatcher counts them. The code is the same on every backend; on a GPU an operation is about one kernel.
    """
    try:
        from torch.utils._python_dispatch import TorchDispatchMode
    except ImportError:
        return None

    class Count(TorchDispatchMode):  # type: ignore[misc, no-untyped-call, unused-ignore]
        total = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.total += not function.is_view
            return function(*args, **(kwargs or {}))

    b = get_backend("torch", numerics=numerics)
    if numerics == "exact":
        b = replace(b, xp=ExactNamespace(b.xp.raw, b.slice_products, on_host=False))
    step = _step(b, name, image, 2)
    step()
    with Count() as count:  # type: ignore[no-untyped-call, unused-ignore]
        step()
    return int(count.total)
