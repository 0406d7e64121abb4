"""Freezing: parameters of a layer for which backward computes no gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

from .parameter import Parameter


class Freezable:
    """Base of layers, whose parameters can be frozen all together."""

    @abstractmethod
    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters, those of layers within too, with their full names."""

    def _no_requires_grad(self, *value: bool) -> Any:
        raise AttributeError(
            f"{type(self).__name__} has no requires_grad, its parameters have; freeze() and unfreeze() set it for all"
        )

    #: Of parameters only; for a layer an `AttributeError` that says so.
    requires_grad = property(_no_requires_grad, _no_requires_grad)

    def freeze(self) -> Self:
        """Set ``requires_grad`` of all parameters, those of layers within too, to False; returns this layer.

        A batch norm in training still uses and tracks the statistics of batches: set its mode by `eval`.
        """
        return self._set_requires_grad(False)

    def unfreeze(self) -> Self:
        """Set ``requires_grad`` of all parameters, those of layers within too, to True; returns this layer."""
        return self._set_requires_grad(True)

    def _set_requires_grad(self, value: bool) -> Self:
        for _, parameter in self.named_parameters():
            parameter.requires_grad = value
        return self
