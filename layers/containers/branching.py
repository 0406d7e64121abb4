"""The base class of containers that pass one input to several branches."""

from __future__ import annotations

from collections.abc import Sequence

from ...common.types import Array
from ..core.errors import with_owner
from ..core.layer import Layer
from .container import Container, is_trained
from .sums import sum_of


class Branching(Container):
    """Base of containers that pass one input to several branches.

    It checks arrays itself, because a branch that is the identity has no layer that would check them.
    """

    def _check_input(self, x: Array) -> None:
        """Check an input, and free what the last forward saved."""
        self.saved = self._output = None
        self._check_numerics()
        try:
            self._check_array(x, "input")
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error

    def _check_gradient(self, dy: Array) -> None:
        """Check an upstream gradient."""
        try:
            self._check_upstream_gradient(dy)
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error

    def _sum(self, arrays: Sequence[Array], relu: bool = False) -> Array:
        """The sum of arrays of one shape, or its ReLU."""
        return self._record_gradient(sum_of(arrays, self.backend, relu))

    def _backward_all(self, branches: Sequence[tuple[Layer | None, Array]], input_grad: bool) -> Array | None:
        """The sum of the branches' input gradients for pairs (branch, ``dy``), where None is the identity."""
        gradients = self._backward_each(branches, input_grad)
        return None if gradients is None else self._sum(gradients)

    def _backward_each(self, branches: Sequence[tuple[Layer | None, Array]], input_grad: bool) -> list[Array] | None:
        """The input gradient of each branch; None, and no more than the parameters need, without ``input_grad``."""
        gradients = []
        # The last branch first: a layer in several branches must have its calls in reverse (`repeated_calls`).
        for branch, dy in reversed(branches):
            if input_grad:
                gradients.append(dy if branch is None else branch.backward(dy))
            elif branch is not None and is_trained(branch):
                branch.backward(dy, input_grad=False)
            elif branch is not None:
                branch._skip_backward()
        return gradients[::-1] if input_grad else None
