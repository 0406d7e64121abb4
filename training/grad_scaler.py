"""Loss scaling: gradients times a power of two, so that small ones are not lost where they are rounded to float16.

The smallest float16 is 6e-8, and gradients of that size become 0 where a layer rounds them to multiply. So the gradient
of the loss is multiplied by a scale, and the gradients of the parameters are divided by it before they are used. If the
scale is so large that gradients become infinite, the step is skipped and the scale halved. After many steps without
such a gradient it is doubled.

Source: P. Micikevicius et al., "Mixed precision training", 2018, with PyTorch's rules and names.
"""

from collections.abc import Mapping
from typing import Any

from ..common import checks
from ..common.types import Array
from .nan_check import is_finite
from .optimizers import Optimizer


class GradScaler:
    """Scales the loss in float16 training, and skips steps whose gradients became infinite.

    Parameters
    ----------
    init_scale : float
        The first scale, above 0.
    growth_factor, backoff_factor : float
        Factors of the scale after ``growth_interval`` good steps in a row, above 1, and after one with an infinite or
        NaN gradient, between 0 and 1.
    growth_interval : int
        At least 1.
    enabled : bool
        With False the scale is 1 and every step is taken.

    Examples
    --------
    >>> import xpnn as nn
    >>> model = nn.Dense(3, 2, backend=nn.get_backend("numpy", precision="float16"))
    >>> optimizer, loss, scaler = nn.Adam(model), nn.CrossEntropy(), nn.GradScaler()
    >>> x, target = model.backend.asarray([[0.5, 1.0, -2.0]]), model.backend.asarray([1])
    >>> value = loss(model(x), target)
    >>> dx = model.backward(scaler.scale(loss.backward()))
    >>> scaler.unscale_(optimizer)  # only to clip gradients before the step
    >>> norm = nn.clip_grad_norm(model, 1.0)
    >>> scaler.step(optimizer)
    True
    >>> scaler.update()
    >>> scaler.get_scale()
    65536.0
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._scale = checks.number("init_scale", init_scale, above=0.0)
        self.growth_factor = checks.number("growth_factor", growth_factor, above=1.0)
        self.backoff_factor = checks.number("backoff_factor", backoff_factor, above=0.0, below=1.0)
        self.growth_interval = checks.integer("growth_interval", growth_interval, 1)
        self.enabled = checks.flag("enabled", enabled)
        self._good_steps = self._skipped_steps = 0
        # Optimizers whose gradients are unscaled since `update`, and whether these are finite.
        self._unscaled: dict[Optimizer, bool] = {}

    def get_scale(self) -> float:
        """The scale."""
        return self._scale if self.enabled else 1.0

    @property
    def skipped_in_a_row(self) -> int:
        """Steps skipped since the last one that was taken."""
        return self._skipped_steps

    def scale(self, gradient: Array) -> Array:
        """An upstream gradient, such as that of the loss, times the scale: pass it to ``model.backward``."""
        return gradient * self._scale if self.enabled else gradient

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale; once between two calls of `update`.

        Only needed to use the gradients before `step`, as clipping does. Reads from the device whether all are finite.

        Raises
        ------
        RuntimeError
            If it was called since `update`.
        """
        checks.instance("optimizer", optimizer, Optimizer)
        if optimizer in self._unscaled:
            raise RuntimeError("GradScaler: the gradients of this optimizer are unscaled already; call update() first")
        self._unscaled[optimizer] = self._unscale(optimizer)

    def step(self, optimizer: Optimizer) -> bool:
        """``optimizer.step()``, unless a gradient is infinite or NaN; unscales first. Returns whether it was taken."""
        if optimizer not in self._unscaled:
            self.unscale_(optimizer)
        finite = self._unscaled[optimizer]
        if finite:
            optimizer.step()
        return finite

    def update(self) -> None:
        """Adjust the scale, after the step of each optimizer.

        Raises
        ------
        RuntimeError
            If no gradient was unscaled since the last call.
        """
        if not self.enabled:
            self._unscaled.clear()
            return
        if not self._unscaled:
            raise RuntimeError("GradScaler.update: no gradients were unscaled; call step(optimizer) first")
        if all(self._unscaled.values()):
            self._good_steps, self._skipped_steps = self._good_steps + 1, 0
            if self._good_steps == self.growth_interval:
                self._good_steps = 0
                # Not beyond what float32 holds.
                self._scale = min(self._scale * self.growth_factor, 2.0**127)
        else:
            self._good_steps, self._skipped_steps = 0, self._skipped_steps + 1
            self._scale *= self.backoff_factor
        self._unscaled.clear()

    def state_dict(self) -> dict[str, Any]:
        """Scale and counts, as plain numbers; settings in PyTorch's names."""
        return {
            "scale": self._scale,
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "_growth_tracker": self._good_steps,
            "skipped_in_a_row": self._skipped_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises
        ------
        ValueError
            If an entry is missing or out of range; then nothing is replaced.
        """
        checks.mapping("state", state, "give what state_dict() returned")
        try:
            loaded = GradScaler(*(state[name] for name in ("scale", "growth_factor", "backoff_factor")))
            loaded.growth_interval = checks.integer("growth_interval", state["growth_interval"], 1)
            loaded._good_steps = checks.integer("_growth_tracker", state["_growth_tracker"], 0)
            loaded._skipped_steps = checks.integer("skipped_in_a_row", state.get("skipped_in_a_row", 0), 0)
        except KeyError as error:
            raise ValueError(f"GradScaler.load_state_dict: state has no {error}") from None
        self.__dict__.update(loaded.__dict__, enabled=self.enabled)

    def _unscale(self, optimizer: Optimizer) -> bool:
        """Divide the gradients; returns whether all are finite, one number from each device."""
        if not self.enabled:
            return True
        inverse, finite = 1.0 / self._scale, True
        parameters = [each for each in optimizer.parameters.values() if each.grad is not None]
        for b in {each.backend for each in parameters}:
            own = [each for each in parameters if each.backend == b]
            with b.context(), b.unwarned():
                for parameter in own:
                    scaled: Array = parameter.grad
                    parameter.grad = scaled * inverse
                finite = bool(b.to_numpy(is_finite(b, [each.grad for each in own]))) and finite
        return finite

    def __repr__(self) -> str:
        return f"GradScaler({self.get_scale()!r})"
