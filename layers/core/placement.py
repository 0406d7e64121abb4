"""Which backend a layer computes on.

The first of these that is given: the layer's own keyword, its container's, the enclosing `use_backend`, the environment
variable ``XPNN_BACKEND``, numpy.
"""

from functools import cached_property
from typing import Any, Self, TypedDict, Unpack, cast

from ...backends import Backend, BackendLike, Generator, ambient_backend, backend_of, get_backend, origins, to_host
from ...backends.backend import FLOATS
from ...backends.dlpack import is_shareable
from ...backends.inputs import unsupported
from ...common import checks
from ...common.types import Array, DType, dtype_name


class Placement(TypedDict, total=False):
    """Keywords that every layer and container accepts.

    ``backend``: a name, `Backend` or array namespace. ``dtype``: ``"float32"`` or ``"float64"``, of the parameters.
    ``numerics``: ``"fast"`` or ``"exact"``. ``seed``: an integer, which together with the full name of a parameter
    determines its initial values.
    """

    backend: BackendLike | None
    dtype: DType | str | None
    numerics: str | None
    seed: int | None


class Placed:
    """Base of what has a backend, dtype, numerics and seed, of its own or from its container.

    Parameters
    ----------
    **placement
        See `Placement`.
    """

    def __init__(self, **placement: Unpack[Placement]) -> None:
        self._own_placement = checked_placement(placement, type(self).__name__)
        self._inherited_placement: Placement = {}
        self._ambient = ambient_backend()
        # Full name in the outermost container.
        self._path = ""
        # Whether numerics="fast" was given, here or to a container, so that fast numerics are on purpose.
        self._is_fast = placement.get("numerics") == "fast"

    @cached_property
    def backend(self) -> Backend:
        """Where this layer computes; determined on first use."""
        return place(self._ambient, self._inherited_placement, self._own_placement)

    @property
    def _backend(self) -> Backend | None:
        """`backend`, if it is determined already."""
        return vars(self).get("backend")

    @property
    def generator(self) -> Generator:
        """This layer's stream of random numbers, which depends on its seed and its full name in the model."""
        seed = self._own_placement.get("seed", self._inherited_placement.get("seed"))
        return Generator(0 if seed is None else seed).fold_in(self._path)

    def to(self, backend: BackendLike, dtype: DType | str | None = None) -> Self:
        """Move parameters, gradients, optimizer states and buffers; returns this layer.

        A name keeps the layer's dtype and numerics; a `Backend` sets them to its own.
        """
        if not isinstance(backend, Backend):
            here = self.backend
            backend = get_backend(backend, *here.settings)
        else:
            self._is_fast = False
        target = get_backend(backend, dtype)
        self._own_placement = {**self._own_placement, "backend": target}
        self._own_placement.pop("dtype", None)
        self._own_placement.pop("numerics", None)
        self._move(target)
        return self

    def _enter_container(self, path: str, inherited: Placement) -> None:
        """Become the part of a container named ``path``; its placement applies where this has none of its own."""
        self._path, self._inherited_placement = path, inherited
        if self._backend is not None and has_backend_settings(inherited):
            self._move(place(self._ambient, inherited, self._own_placement))

    def _move(self, target: Backend) -> None:
        """Compute on ``target`` from now on; a subclass moves its arrays."""
        vars(self)["backend"] = target


def checked_placement(placement: Placement, owner: str) -> Placement:
    """The keywords that are not None, with the backend opened; `TypeError` for a keyword that does not exist.

    A `Backend` determines dtype and numerics too; a name leaves them to the container.
    """
    unknown = placement.keys() - Placement.__annotations__.keys()
    if unknown:
        raise TypeError(f"{owner} got an unexpected keyword argument: {', '.join(sorted(unknown))}")
    given = cast(Placement, {key: value for key, value in placement.items() if value is not None})
    if "seed" in given:
        given["seed"] = checks.seed("seed", given["seed"])
    if "backend" not in given and has_backend_settings(given):
        # The container may name another backend, but a value that no backend accepts is refused here.
        get_backend("numpy", given.get("dtype", "float32"), given.get("numerics", "fast"))
    if isinstance(given.get("backend"), Backend):
        whole = get_backend(given["backend"], given.get("dtype"), given.get("numerics"))
        return {**given, "backend": whole, "dtype": whole.dtype_name, "numerics": whole.numerics}
    if "backend" in given:
        given["backend"] = get_backend(given["backend"], given.get("dtype"), given.get("numerics"))
    return given


def has_backend_settings(placement: Placement) -> bool:
    """Whether a backend or one of its settings is among the keywords."""
    return "backend" in placement or "dtype" in placement or "numerics" in placement


def place(ambient: Backend | None, *placements: Placement) -> Backend:
    """The backend for these placements, of which later ones take precedence, and the ambient backend otherwise."""
    joined: Placement = {}
    for placement in placements:
        joined = {**joined, **placement}
    return get_backend(joined.get("backend", ambient), joined.get("dtype"), joined.get("numerics"))


def wrong_backend_message(x: Any, b: Backend, what: str) -> str:
    """The message for an argument that is not an array of ``b``, with the call that moves it there."""
    try:
        other = backend_of(x).spec
    except TypeError:
        return unsupported(x, f"the {what}", b.spec)
    if other == b.spec:
        return unsupported(x, f"the {what}", b.spec)
    source = "x" if other == "numpy" else f"nn.get_backend({other!r}).to_numpy(x)"
    shares = is_shareable(x, b)
    sharing = f"; without a copy: nn.get_backend({b.spec!r}).from_dlpack(x)" if shares else ""
    return (
        f"the {what} is on {other}, this is on {b.spec}; move the array with "
        f"nn.get_backend({b.spec!r}).asarray({source}), or this with .to({other!r}){sharing}"
    )


def moved(array: Array, target: Backend) -> Array:
    """A copy on the target of an array of any backend, with floats in the target's dtype."""
    host = to_host(array)
    return target.asarray(host.astype(target.dtype_name if host.dtype.name in FLOATS else host.dtype))


def backend_of_value(value: Array) -> Backend:
    """The backend of a value without a layer: the one with exact numerics that computed it, else that of the enclosing
    `use_backend` if it owns the array, else that of the array's library."""
    found, ambient = origins.maker_of(value), ambient_backend()
    if found is not None and found.backend.numerics == "exact":
        made_by: Backend = found.backend
        return made_by
    name = dtype_name(value.dtype)
    if ambient is not None and ambient.owns(value) and (ambient.numerics == "fast" or name == ambient.dtype_name):
        return get_backend(ambient, name)
    return get_backend(backend_of(value), name)


def moved_state(array: Array, backend: Backend) -> Array:
    """An array of an optimizer's state on a backend, in its dtype; 0-d counts and powers keep their own dtype."""
    if array.ndim == 0 and backend.has(dtype_name(array.dtype)):
        return backend.asarray(to_host(array))
    return moved(array, backend)
