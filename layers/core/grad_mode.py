"""Whether forward keeps what backward needs: by the modes of layers, or as `enable_grad` and `no_grad` say.

By default a layer keeps it in training and not in evaluation. A layer in evaluation within a container in training
keeps it too, because the container's backward passes through it; so the forward of a container in training sets the
same variable as `enable_grad`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, overload

P = ParamSpec("P")
R = TypeVar("R")

_mode: ContextVar[bool | None] = ContextVar("xpnn_grad_mode", default=None)
#: True within `enable_grad` and within the forward of a container in training, False within `no_grad`, else None.
grad_mode = _mode.get
#: Set the mode; returns a token, with which `reset_grad_mode` restores the one before.
set_grad_mode, reset_grad_mode = _mode.set, _mode.reset


def is_grad_enabled() -> bool:
    """False within `no_grad`, True elsewhere, as in PyTorch; outside of `enable_grad` modes of layers decide too."""
    return grad_mode() is not False


class GradMode:
    """A context manager, and decorator of functions and generators, that sets the mode of this thread."""

    value: ClassVar[bool | None] = None

    def __init__(self) -> None:
        self._before: list[bool | None] = []

    def __enter__(self) -> Self:
        self._before.append(_mode.get())
        _mode.set(self.value)
        return self

    def __exit__(self, *raised: object) -> None:
        _mode.set(self._before.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, each call of which runs in this mode."""
        kind = type(self)
        if inspect.isgeneratorfunction(function):
            return _generator_in_mode(function, kind)

        @wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            with kind():
                return function(*args, **keywords)

        return call


def _generator_in_mode(function: Callable[..., Any], mode: type[GradMode]) -> Callable[..., Any]:
    """A generator function whose code runs in a mode, and the code that iterates over it does not."""

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        generator = function(*args, **keywords)
        resume: Callable[[Any], Any] = generator.send
        given: Any = None
        while True:
            try:
                with mode():
                    value = resume(given)
            except StopIteration as stop:
                return stop.value
            try:
                given, resume = (yield value), generator.send
            except GeneratorExit:
                with mode():
                    generator.close()
                raise
            except BaseException as error:
                given, resume = error, generator.throw

    return call


class _Enabled(GradMode):
    value = True


class _Disabled(GradMode):
    value = False


def by_mode() -> GradMode:
    """Within the ``with`` block, modes of layers decide, as outside of `enable_grad` and `no_grad`."""
    return GradMode()


@overload
def enable_grad() -> GradMode: ...


@overload
def enable_grad(function: Callable[P, R]) -> Callable[P, R]: ...


def enable_grad(function: Any = None) -> Any:
    """Within the ``with`` block, every forward keeps what backward needs, in evaluation too.

    Modes stay as they are: dropout is the identity in evaluation, a batch norm uses its running statistics, which are
    constants in its backward. In evaluation layers are then computed one by one, so that outputs may differ in rounding
    from those of folded batch norms (`xpnn.layers.containers.fusion`).

    It is also a decorator, ``@nn.enable_grad()`` or ``@nn.enable_grad``. Blocks may be nested, and the innermost
    decides. It applies to this thread, and to work that runs in its context.

    Examples
    --------
    The gradient of the largest output with respect to the input, of a trained net:

    >>> import xpnn as nn
    >>> model = nn.Sequential(nn.Dense(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dense(4, 2), seed=1).eval()
    >>> x = model.backend.asarray([[1.0, -2.0, 0.5]], "float32")
    >>> with nn.enable_grad():
    ...     y = model(x)
    >>> dx = model.backward(model.backend.asarray([[1.0, 0.0]], "float32"))
    >>> dx.shape
    (1, 3)
    """
    return _Enabled() if function is None else _Enabled()(function)


@overload
def no_grad() -> GradMode: ...


@overload
def no_grad(function: Callable[P, R]) -> Callable[P, R]: ...


def no_grad(function: Any = None) -> Any:
    """Within the ``with`` block, no forward keeps anything for backward, not even in training.

    Modes stay as they are: in training dropout drops, and a batch norm uses and tracks the statistics of the batch. A
    forward needs no more memory than in evaluation. A backward afterwards raises a `RuntimeError`. Losses keep nothing
    either.

    It is also a decorator, ``@nn.no_grad()`` or ``@nn.no_grad``. Blocks may be nested, and the innermost decides. It
    applies to this thread, and to work that runs in its context.

    Examples
    --------
    Features of a part of a net that is not trained:

    >>> import xpnn as nn
    >>> features = nn.Sequential(nn.Dense(3, 4), nn.ReLU(), seed=1)
    >>> with nn.no_grad():
    ...     y = features(features.backend.asarray([[1.0, -2.0, 0.5]], "float32"))
    >>> features[0].saved is None
    True
    """
    return _Disabled() if function is None else _Disabled()(function)
