"""Gradient clipping, on the device: nothing is read back to the host.

By value, each entry is clamped to ``[-limit, limit]``. By norm, all gradients are scaled by
``min(1, max_norm / (norm + 1e-6))``, where ``norm`` is that of all their entries as one vector.

Source: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", 2013.
"""

from math import inf, prod

from ...backends import Backend, operations_of, origins
from ...backends.execution.blocks import concat_all
from ...backends.lookup import require_plain
from ...common import checks
from ...common.types import Array, Namespace
from ...layers.core.array_checks import require_float
from ...layers.core.elementwise import clamp, scalar, zero
from ...layers.core.parameter import Parameter
from .parameters import Trainable, trainable


def clip_grad_value(parameters: Trainable, limit: float) -> None:
    """Clamp every entry of every gradient to ``[-limit, limit]``; NaN stays NaN.

    Parameters
    ----------
    parameters : Layer, mapping of str to Parameter, iterable of Parameter, or a group of an optimizer
        Those without a gradient, and frozen ones, are skipped.
    limit : float
        At least 0.

    Raises
    ------
    ValueError
        If there are no parameters, or ``limit`` is out of range.
    """
    limit = checks.number("limit", limit, least=0)
    for parameter in trainable(parameters, "clip_grad_value").values():
        if parameter.grad is not None and parameter.requires_grad:
            _require_gradient(parameter.grad)
            b = parameter.backend
            with b.context():
                _replace(parameter, b.down(clamp(b.up(parameter.grad), -limit, limit, b.xp)))


def clip_grad_norm(parameters: Trainable, max_norm: float, norm_type: float = 2.0) -> Array:
    """Scale all gradients so that their norm together is at most ``max_norm``.

    Parameters
    ----------
    parameters : Layer, mapping of str to Parameter, iterable of Parameter, or a group of an optimizer
        On one backend; those without a gradient, and frozen ones, are skipped. To clip groups separately, call this for
        each of ``optimizer.param_groups``.
    max_norm : float
        At least 0.
    norm_type : float
        ``p`` of the norm, at least 1; ``math.inf`` for the largest entry.

    Returns
    -------
    array
        The norm before scaling, 0-d, on the device; 0 if no parameter has a gradient.

    Raises
    ------
    ValueError
        If there are no parameters, they are on several backends, or a number is out of range.
    """
    max_norm = checks.number("max_norm", max_norm, least=0)
    norm_type = checks.number("norm_type", norm_type, least=1, infinite=True)
    every = list(trainable(parameters, "clip_grad_norm").values())
    found = [p for p in every if p.grad is not None and p.requires_grad]
    for parameter in found:
        _require_gradient(parameter.grad)
    b = every[0].backend
    others = [p.backend for p in found if p.backend != b]
    if others:
        raise ValueError(
            f"clip_grad_norm: parameters must be on one backend, got some of {described(b)} and some of "
            f"{described(others[0])}; clip those of each backend separately"
        )
    xp = b.xp
    with b.context():
        if not found:
            return zero(every[0].value, xp)
        gradients = [p.grad for p in found]
        prepared = operations_of(xp).prepare("gradient norm", None, b.dtype_name) if norm_type == 2.0 else None
        if prepared is not None and prepared.accepts(gradients):
            total, scaled = prepared(gradients, max_norm)
            for parameter, gradient in zip(found, scaled, strict=True):
                _replace(parameter, gradient)
            return total
        parts = concat_all([xp.reshape(_norm(b.up(p.grad), norm_type, xp), (1,)) for p in found], 0, xp)
        total = _norm(parts, norm_type, xp)
        factor = scalar(max_norm, total, xp) / (total + 1e-6)
        factor = xp.where(factor < 1.0, factor, xp.ones_like(factor))
        factor = xp.where(xp.isnan(total), total, factor)
        for parameter in found:
            _replace(parameter, b.down(b.up(parameter.grad) * factor))
        return b.down(total)


def _replace(parameter: Parameter, gradient: Array) -> None:
    """Set a gradient that was computed from the parameter's own."""
    origins.copy_maker(parameter.grad, gradient)
    parameter.grad = gradient


def _require_gradient(gradient: Array) -> None:
    require_plain(gradient, "a gradient")
    require_float(gradient, "a gradient")


def described(b: Backend) -> str:
    """Device, numerics and dtype of a backend, for a message."""
    return f"{b.spec} in {b.numerics} numerics, {b.dtype_name}"


def _norm(x: Array, p: float, xp: Namespace) -> Array:
    if not prod(x.shape):
        return zero(x, xp)
    size = xp.abs(x)
    if p == inf:
        return xp.max(size)
    if p == 1:
        return xp.sum(size)
    # In float32 squares of gradients overflow from 1e19 on, and the factor would be 0.
    largest = xp.max(size)
    unit = xp.where(xp.logical_and(largest > 0.0, largest < inf), largest, xp.ones_like(largest))
    parts = size / unit
    if p == 2:
        return xp.sqrt(xp.sum(parts * parts)) * unit
    return xp.pow(xp.sum(xp.pow(parts, float(p))), 1.0 / p) * unit
