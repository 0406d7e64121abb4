"""A branch for each input of a net with several inputs.

``y`` is the concatenation of ``branch_i(x_i)`` along an axis, or their sum; the gradient of input i is that of its
branch.
"""

from __future__ import annotations

from typing import Any

from ...common.types import Array
from ..core.errors import with_owner
from ..core.output_shape import Shape, is_several
from .dataflow import Flow
from .parallel import Parallel


class PerInput(Parallel):
    """Branches with an input each, whose outputs are concatenated or added.

    It is called with a tuple of arrays, one for each branch, with the same number of samples, and `backward` returns a
    tuple of their gradients. A `Sequential` that begins with it is a net with several inputs: `fit`, `evaluate` and
    `predict` pass it batches ``((x1, x2), y)`` (`DataLoader`).

    Parameters
    ----------
    *branches, join, axis, **placement
        As for `Parallel`. `Identity` passes an input on as it is.

    Raises
    ------
    TypeError, ValueError
        From `forward`, for anything but a tuple of as many arrays as branches, or outputs that can't be joined.

    Examples
    --------
    >>> import xpnn as nn
    >>> image = nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU(), nn.Flatten())
    >>> model = nn.Sequential(nn.PerInput(image, nn.Identity()), nn.Dense(4 * 8 * 8 + 5, 2), backend="numpy", seed=0)
    >>> b = model.backend
    >>> tuple(model((b.xp.zeros((3, 1, 8, 8), dtype=b.dtype), b.xp.zeros((3, 5), dtype=b.dtype))).shape)
    (3, 2)
    """

    def forward(self, x: Any) -> Array:
        """The outputs of the branches for their inputs, concatenated or added."""
        self.saved = self._output = None
        self._check_numerics()
        try:
            self._require_inputs(x)
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        return self._joined([branch.forward(each) for branch, each in zip(self.children.values(), x, strict=True)])

    def backward(self, dy: Array, *, input_grad: bool = True) -> Any:
        """The gradients of all inputs, a tuple; None with ``input_grad=False``."""
        self._check_gradient(dy)
        gradients = self._backward_each(self._with_parts(dy), input_grad)
        return None if gradients is None else tuple(gradients)

    def _output_shape(self, shape: Any) -> Shape:
        if not is_several(shape) or len(shape) != len(self.children):
            given = f"{len(shape)} shapes were" if is_several(shape) else "one shape was"
            raise ValueError(
                f"PerInput has several inputs, {len(self.children)}, but {given} given; give a tuple of shapes"
            )
        return self._joined_shape(
            [branch.output_shape(each) for branch, each in zip(self.children.values(), shape, strict=True)]
        )

    def _flow(self, flow: Flow, path: str, inputs: tuple[str, ...]) -> str:
        outputs = [flow.child(self, name, path, (each,)) for name, each in zip(self.children, inputs, strict=True)]
        return self._join_flow(flow, path, outputs)

    def _input_names(self) -> tuple[str, ...]:
        count = len(self.children)
        return ("input",) if count == 1 else tuple(f"input{i}" for i in range(1, count + 1))

    def _require_inputs(self, x: Any) -> None:
        if not isinstance(x, tuple | list):
            raise TypeError(f"input must be a tuple of {len(self.children)} arrays, got one {type(x).__name__}")
        if len(x) != len(self.children):
            raise ValueError(f"input must be a tuple of {len(self.children)} arrays, one for each branch, got {len(x)}")
        for number, each in enumerate(x, start=1):
            self._check_array(each, f"input {number}")
        samples = [int(each.shape[0]) for each in x if each.ndim]
        if len({*samples}) > 1 or len(samples) < len(x):
            raise ValueError(f"inputs must have the same number of samples, got {', '.join(map(str, samples))}")
