"""Which backend a layer computes on, and what to say of an array that lives on another.

The first that is given counts: the layer's own keyword, its container's, the enclosing `use_backend`'s, the
environment variable ``XPNN_BACKEND``'s, numpy.
"""

from typing import Any, TypedDict, cast

from ...backends import Backend, BackendLike, backend_of, get_backend, to_host
from ...backends.backend import FLOATS
from ...backends.inputs import unsupported
from ...common import checks
from ...common.types import Array, DType


class Placement(TypedDict, total=False):
    """Keywords that every layer and container takes.

    ``backend``: a name, `Backend` or array namespace. ``dtype``: ``"float32"`` or ``"float64"``, of the parameters.
    ``numerics``: ``"fast"``. ``seed``: an integer; with a parameter's full name it determines its initial bits.
    """

    backend: BackendLike | None
    dtype: DType | str | None
    numerics: str | None
    seed: int | None


def checked(placement: Placement, owner: str) -> Placement:
    """Only what is given, its backend opened; `TypeError` for a keyword that no layer takes.

    A `Backend` brings its dtype and numerics with it; a name leaves them open for a container to say.
    """
    unknown = placement.keys() - Placement.__annotations__.keys()
    if unknown:
        raise TypeError(f"{owner} does not take {', '.join(sorted(unknown))}")
    given = cast(Placement, {key: value for key, value in placement.items() if value is not None})
    if "seed" in given:
        given["seed"] = checks.seed("seed", given["seed"])
    if "backend" not in given and says_where(given):
        # Whether a container names another backend is known later; a word that none takes, now.
        get_backend("numpy", given.get("dtype", "float32"), given.get("numerics", "fast"))
    if isinstance(given.get("backend"), Backend):
        whole = get_backend(given["backend"], given.get("dtype"), given.get("numerics"))
        return {**given, "backend": whole, "dtype": whole.dtype_name, "numerics": whole.numerics}
    if "backend" in given:
        given["backend"] = get_backend(given["backend"], given.get("dtype"), given.get("numerics"))
    return given


def says_where(placement: Placement) -> bool:
    """Whether it names a backend or one of its settings."""
    return bool(placement.keys() & {"backend", "dtype", "numerics"})


def place(ambient: Backend | None, *placements: Placement) -> Backend:
    """The backend by the ambient one and placements, later ones first."""
    joined: Placement = {}
    for placement in placements:
        joined = {**joined, **placement}
    return get_backend(joined.get("backend", ambient), joined.get("dtype"), joined.get("numerics"))


def foreign(x: Any, b: Backend, what: str) -> str:
    """What to say of an argument that is not an array of ``b``, with the call that moves it."""
    try:
        other = backend_of(x).spec
    except TypeError:
        return unsupported(x, f"the {what}", b.spec)
    if other == b.spec:
        return unsupported(x, f"the {what}", b.spec)
    source = "x" if other == "numpy" else f"nn.get_backend({other!r}).to_numpy(x)"
    return (
        f"the {what} is on {other}, this is on {b.spec}; move the array with "
        f"nn.get_backend({b.spec!r}).asarray({source}), or this with .to({other!r})"
    )


def moved(array: Array, target: Backend) -> Array:
    """A copy of an array of any backend on the target, floats in its dtype."""
    host = to_host(array)
    return target.asarray(host.astype(target.dtype_name if host.dtype.name in FLOATS else host.dtype))
