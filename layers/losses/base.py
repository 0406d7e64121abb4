"""The base of the losses, and their reductions.

A loss is called as ``loss(prediction, target)``; `Loss.backward` returns the gradient with respect to the prediction.
"""

from collections.abc import Callable
from math import nan, prod
from typing import Any, ClassVar, Literal, Self, TypeAlias, Unpack

from ...backends import Backend, BackendLike, ambient_backend, backend_of, get_backend, origins
from ...backends.execution.team import rows_of_all
from ...backends.lookup import require_plain
from ...common import checks
from ...common.types import Array, DType, Namespace
from ..core.array_checks import namespace, require_float, require_same_dtype, require_shape
from ..core.elementwise import scalar
from ..core.errors import backward_without_forward, with_owner
from ..core.grad_mode import grad_mode
from ..core.placement import Placement, checked_placement, has_backend_settings, place, wrong_backend_message
from ..core.release_after_backward import is_within_released
from .loss_weights import LossWeights

Reduction: TypeAlias = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def paired(xp: Namespace | None, prediction: Array, target: Array) -> Namespace:
    """The namespace of a prediction and a target, which must have one dtype and one shape."""
    xp = namespace(xp, prediction=prediction, target=target)
    require_same_dtype(prediction=prediction, target=target)
    require_shape(target, tuple(prediction.shape), "target")
    return xp


def reduce(losses: Array, reduction: Reduction, xp: Namespace, *, count: Array | None = None) -> Array:
    """The mean or sum of all losses, or the losses themselves.

    The mean divides by ``count``, the number of losses unless given. A mean of nothing is NaN.
    """
    checks.choice("reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return losses
    total = xp.sum(losses)
    if reduction == "sum":
        return total
    if count is None:
        return total / scalar(rows_of_all(prod(losses.shape)) or nan, losses, xp)
    return total / xp.where(count == 0.0, scalar(nan, losses, xp), count)


def upstream(dy: Array | float, prediction: Array, shape: tuple[int, ...]) -> Array | float:
    """The checked upstream gradient: a number as a float, or an array of the prediction's dtype and of ``shape``.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    if checks.is_number(dy):
        return float(dy)
    require_shape(dy, shape, "upstream gradient")
    require_same_dtype(**{"prediction": prediction, "upstream gradient": dy})
    return dy


def spread(
    slopes: Array,
    dy: Array | float,
    reduction: Reduction,
    xp: Namespace,
    *,
    shape: tuple[int, ...] | None = None,
    count: Array | None = None,
) -> Array:
    """The adjoint of `reduce`: ``slopes``, the derivatives of the single losses, times the upstream gradient ``dy``.

    ``shape`` is that of the losses, if the slopes have one axis more, the classes at axis 1.
    """
    checks.choice("reduction", reduction, REDUCTIONS)
    shape = tuple(slopes.shape) if shape is None else shape
    dy = upstream(dy, slopes, shape if reduction == "none" else ())
    if not isinstance(dy, float) and 0 < dy.ndim < slopes.ndim:
        dy = xp.expand_dims(dy, axis=1)
    slopes = slopes * dy
    if reduction != "mean":
        return slopes
    if count is None:
        return slopes / scalar(rows_of_all(prod(shape)) or nan, slopes, xp)
    return slopes / xp.where(count == 0.0, scalar(1.0, slopes, xp), count)


class Loss:
    """Base of the losses.

    A subclass names its two functions, ``function`` and ``gradient``, and in ``signature`` its constructor's arguments
    as (attribute, default), which are also keywords of the functions; or it defines ``_forward`` and ``_backward``.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
    **placement
        See `xpnn.layers.core.placement.Placement`. A loss without a backend computes on that of its prediction: in
        exact numerics if these made the prediction or, if it is not known what made that, the target; else in the
        numerics of the enclosing `use_backend`, or of the one in which the loss was made, if that is the same backend,
        or of ``XPNN_NUMERICS``. A prediction of exact numerics may be a view, such as some of its rows, but not the
        result of arithmetic of your own: then give the loss a backend. A loss that is given only its numerics uses
        these on the backend of any prediction.

    Raises
    ------
    TypeError, ValueError
        For arrays of another backend, dtypes or shapes that the loss does not accept, and for a prediction made by
        exact numerics if the loss was given a backend with fast numerics, but not ``numerics="fast"`` by name; the
        message names the loss.
    """

    function: ClassVar[Callable[..., Array]]
    gradient: ClassVar[Callable[..., Array]]
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("reduction", "mean"),)
    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init__(self, reduction: Reduction = "mean", **placement: Unpack[Placement]) -> None:
        self.reduction: str = checks.choice("reduction", reduction, self.reductions)
        own = checked_placement(placement, type(self).__name__)
        self._backend = place(None, own) if has_backend_settings(own) else None
        self._ambient = ambient_backend()
        # Whether fast numerics were requested by name, and whether the placement leaves the numerics open.
        self._is_fast = placement.get("numerics") == "fast"
        self._is_open = "numerics" not in own
        # Whether only dtype or numerics were given, which are used on the backend of any prediction.
        self._is_anywhere = has_backend_settings(own) and "backend" not in own and self._ambient is None
        self._saved: tuple[Backend, Array, Array, tuple[int, ...]] | None = None

    @property
    def backend(self) -> Backend | None:
        """The backend that was given to this loss; None if it uses that of its prediction."""
        return self._backend

    @property
    def follows(self) -> bool:
        """Whether this loss computes in exact numerics where its prediction was made in these."""
        return self._backend is None or self._is_open

    def terms(self, prediction: Array, target: Array) -> Array:
        """The divisor of the mean over this target, 0-d: the number of its entries, unless a subclass overrides it.

        The prediction may be for a part of the target's samples: only its number of classes and its dtype are used.
        """
        return self._number(float(prod(target.shape)), prediction, target)

    def counted(self, prediction: Array, target: Array, *, none_ignored: bool = False) -> Array | float:
        """`terms`, to be added up over many batches: a number on the host if it depends only on shapes, else 0-d.

        ``none_ignored``: it is known that the loss ignores none of these targets.
        """
        return float(prod(target.shape)) if type(self).terms is Loss.terms else self.terms(prediction, target)

    def _number(self, value: float, prediction: Array, target: Array) -> Array:
        """A 0-d array of the prediction's dtype and device."""
        b = self._place(prediction, target)
        with b.context():
            return scalar(value, prediction, b.xp)

    def to(self, backend: BackendLike, dtype: DType | str | None = None) -> Self:
        """Compute on that backend from now on; returns this loss.

        With a name, the loss keeps the dtype and numerics that it was given; a `Backend` has its own.
        """
        here, self._is_anywhere = self._backend, False
        if isinstance(backend, Backend):
            self._is_fast = self._is_open = False
        elif here is not None:
            backend = get_backend(backend, *here.settings)
        self._backend = get_backend(backend, dtype)
        self._saved = None
        return self

    def __call__(self, prediction: Array, target: Array) -> Array:
        """`forward`."""
        return self.forward(prediction, target)

    def forward(self, prediction: Array, target: Array) -> Array:
        """The loss, on the device: 0-d, or of the target's shape without reduction."""
        try:
            b = self._place(prediction, target)
            if b.accepts_directly(prediction) and type(target) is type(prediction):
                value = self._forward(prediction, target, b.xp, **self._options(b, prediction))
            else:
                value = self._checked_forward(b, prediction, target)
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        keeps = grad_mode() is not False
        self._saved = (b, b.plain(prediction), b.plain(target), tuple(value.shape)) if keeps else None
        if origins.watching:
            origins.record_maker(value, b, type(self).__name__)
        return value

    def _checked_forward(self, b: Backend, prediction: Array, target: Array) -> Array:
        for array, what in ((prediction, "prediction"), (target, "target")):
            if not b.owns(array):
                raise TypeError(wrong_backend_message(array, b, what))
        require_float(prediction, "prediction")
        b.require_stored(prediction, "prediction")
        b.require_stored(target, "target")
        with b.context():
            options = self._options(b, prediction)
            return b.down(self._forward(b.up(prediction), b.up(target), b.xp, **options))

    def backward(self, dy: Array | float = 1.0) -> Array:
        """The gradient with respect to the last prediction, for an upstream gradient ``dy``."""
        if self._saved is None:
            raise backward_without_forward(self)
        b, prediction, target, shape = self._saved
        try:
            if not checks.is_number(dy) and not b.owns(dy):
                raise TypeError(wrong_backend_message(dy, b, "upstream gradient"))
            dy = upstream(dy, prediction, shape)
            if not isinstance(dy, float):
                if b.numerics == "exact":
                    origins.require_exact(dy, "the upstream gradient", "this loss")
                dy = b.up(dy)
            with b.context():
                options = self._options(b, prediction)
                gradient = b.down(self._backward(dy, b.up(prediction), b.up(target), b.xp, **options))
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error
        if is_within_released():
            self._saved = None
        if origins.watching:
            if b.numerics == "exact" or not self._is_fast:
                origins.record_maker(gradient, b, type(self).__name__)
            known = origins.maker_of(prediction)
            if b.numerics == "fast" and not self._is_fast and (known is None or known.backend.numerics == "exact"):
                origins.count_fast_result()
        return gradient

    def release(self) -> None:
        """Free the arrays that are saved for backward."""
        self._saved = None

    def _place(self, prediction: Array, target: Array) -> Backend:
        """This loss's backend, else that of the exact numerics which made the arrays, else that of the enclosing
        `use_backend`, else that of the prediction."""
        require_plain(prediction, "prediction")
        own, found = self._backend, origins.maker_of(prediction) if origins.watching else None
        if own is not None and self._is_anywhere and not own.owns(prediction):
            own = get_backend(backend_of(prediction).spec, *own.settings)
        if own is None and found is None and origins.watching:
            found = origins.maker_of(target)
        exact = found is not None and found.backend.numerics == "exact"
        if found is not None and exact and (own is None or (self._is_open and own.spec == found.backend.spec)):
            made_by: Backend = found.backend
            return made_by
        if own is not None:
            if found is not None and exact and own.numerics == "fast" and not (self._is_fast or found.is_input):
                raise ValueError(
                    f"the prediction was computed in exact numerics by {found.name}, but this loss was given a "
                    "backend with fast numerics; pass it backend=model.backend, or none, or numerics='fast' to leave "
                    "exact numerics on purpose"
                )
            return own
        ambient = ambient_backend() or self._ambient
        return ambient if ambient is not None and ambient.owns(prediction) else backend_of(prediction)

    def _forward(self, prediction: Array, target: Array, xp: Namespace, **options: Any) -> Array:
        return type(self).function(prediction, target, reduction=self.reduction, xp=xp, **options)

    def _backward(self, dy: Array | float, prediction: Array, target: Array, xp: Namespace, **options: Any) -> Array:
        return type(self).gradient(dy, prediction, target, reduction=self.reduction, xp=xp, **options)

    def _options(self, b: Backend, prediction: Array) -> dict[str, Any]:
        """The functions' keywords except ``reduction``, weights as arrays of the prediction's backend."""
        values = {name: getattr(self, name) for name, _ in self.signature if name != "reduction"}
        for name, value in values.items():
            if isinstance(value, LossWeights):
                values[name] = b.up(value.on(b, prediction.dtype))
        return values

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name, default in self.signature if getattr(self, name) != default}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
