"""A moving average of a model's weights, which often predicts better than the weights of the last step.

After each step, with the decay d::

    average = average + (1 - d) (value - average)

The first update copies the values, as in PyTorch's ``AveragedModel`` with ``get_ema_multi_avg_fn``.

Source: B. Polyak and A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeGuard

from ..backends import Backend
from ..backends.recording.guards import require_owned
from ..backends.recording.slots import ABSENT, Slot
from ..common import checks
from ..common.types import Array, dtype_name
from ..layers.core.errors import full_name
from ..layers.core.in_place import copy_with_layout, update_in_place
from ..layers.core.layer import Layer
from ..layers.core.placement import moved


class EMA:
    """A moving average of a model's parameters.

    Parameters
    ----------
    model : Layer
    decay : float
        The part of the average that stays in each update, at least 0 and below 1; ``1 / (1 - decay)`` is about the
        number of steps that it covers.
    use_buffers : bool
        Whether buffers of floats, such as running statistics of batch norms, are averaged too. Otherwise those of the
        model are used, which belong to its own weights.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnn as nn
    >>> model = nn.Dense(2, 1, seed=0)
    >>> ema = nn.EMA(model, decay=0.99)
    >>> ema.update()  # after each optimizer.step()
    >>> with ema.applied():
    ...     model(np.ones((1, 2), np.float32)).shape
    (1, 1)

    Raises
    ------
    TypeError, ValueError
        If ``model`` is not a layer, or the decay is out of range.
    """

    def __init__(self, model: Layer, decay: float = 0.999, *, use_buffers: bool = False) -> None:
        self.model = checks.instance("model", model, Layer)
        self.decay = checks.number("decay", decay, least=0, below=1)
        self.use_buffers = checks.flag("use_buffers", use_buffers)
        self._averages: dict[str, Array] = {}
        self._is_applied = False

    def update(self) -> None:
        """Move the averages towards the present values; call it after each step of the optimizer."""
        if self._is_applied:
            raise RuntimeError("EMA.update: the averages are applied to the model now; call it after the with block")
        require_owned(self, "the averages of an EMA")
        for name, value, b in self._values():
            average = self._averages.get(name)
            if average is None:
                self._averages[name] = copy_with_layout(value, value, b)
                continue
            if not b.owns(average):
                average = self._averages[name] = moved(average, b)
            update_in_place(partial(_approach, 1.0 - self.decay), [average], value, backend=b)

    def _values(self) -> Iterator[tuple[str, Array, Backend]]:
        """Name, value and backend of each parameter, and of each buffer that is averaged."""
        for name, parameter in self.model.named_parameters():
            yield name, parameter.read(), parameter.backend
        for path, layer in self.model.named_layers() if self.use_buffers else ():
            for name, array in layer.buffers.items():
                if dtype_name(array.dtype).startswith("float"):
                    yield full_name(path, name), array, layer.backend

    @contextmanager
    def applied(self) -> Iterator[Layer]:
        """Within the ``with`` block, the model has the averages; its own values are restored after it, in any case.

        Raises
        ------
        ValueError
            If there was no update yet.
        """
        if not self._averages:
            raise ValueError("EMA.applied: there are no averages yet; call update() after each step")
        parameters = dict(self.model.named_parameters())
        own = {name: parameter.read() for name, parameter in parameters.items()}
        buffers = [(layer, dict(layer.buffers)) for _, layer in self.model.named_layers()] if self.use_buffers else []
        was_applied, self._is_applied = self._is_applied, True
        try:
            for name, parameter in parameters.items():
                parameter.value = self._on(name, parameter.backend)
            for path, layer in self.model.named_layers() if self.use_buffers else ():
                for name in layer.buffers:
                    full = full_name(path, name)
                    if full in self._averages:
                        layer.buffers[name] = self._on(full, layer.backend)
            yield self.model
        finally:
            for name, parameter in parameters.items():
                parameter.value = own[name]
            for layer, arrays in buffers:
                layer.buffers.update(arrays)
            self._is_applied = was_applied

    def _on(self, name: str, b: Backend) -> Array:
        average = self._averages[name]
        return average if b.owns(average) else moved(average, b)

    def state_dict(self) -> dict[str, Any]:
        """The decay, and the averages by name, which later updates change in place."""
        return {"decay": self.decay, "averages": dict(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`, whose arrays may be of any backend; they are copied.

        Raises
        ------
        ValueError
            If its names or shapes are not those of this model; then nothing is replaced.
        """
        averages = state.get("averages") if isinstance(state, Mapping) else None
        if not _are_arrays(averages) or "decay" not in state:
            raise ValueError(
                f"EMA.load_state_dict: state must be what state_dict() returned, got {checks.shown(state)}"
            )
        decay = checks.number("decay", state["decay"], least=0, below=1)
        own = list(self._values())
        if averages and averages.keys() != {name for name, _, _ in own}:
            names = ", ".join(sorted({name for name, _, _ in own} ^ averages.keys()))
            raise ValueError(f"EMA.load_state_dict: the averages are not those of this model: {names}")
        for name, value, _ in own if averages else ():
            shape = tuple(averages[name].shape)
            if shape != tuple(value.shape):
                raise ValueError(f"EMA.load_state_dict: {name} has shape {shape}, expected {tuple(value.shape)}")
        self.decay = decay
        found = {name: (moved(averages[name], b), value, b) for name, value, b in own} if averages else {}
        self._averages = {name: copy_with_layout(array, value, b) for name, (array, value, b) in found.items()}

    def slots(self) -> Iterator[Slot]:
        """The averages, for `Backend.compile`."""
        yield Slot.constant("EMA.decay", self, "decay", lambda: self.decay)
        for name in self._averages:
            yield Slot(
                f"the average of {name}",
                (id(self), name),
                partial(self._averages.get, name, ABSENT),
                partial(self._averages.__setitem__, name),
            )

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay!r}, use_buffers={self.use_buffers!r})"


def _are_arrays(averages: Any) -> TypeGuard[Mapping[str, Array]]:
    return isinstance(averages, Mapping) and all(hasattr(array, "shape") for array in averages.values())


def _approach(part: float, average: Array, value: Array) -> tuple[Array]:
    average += (value - average) * part
    return (average,)
