"""Batches: from arrays on the host to arrays where the model is.

The order of samples comes from the library's own generator, so it is the same on every machine and backend; batches
are put together on the host, some of them ahead in a background thread, and go to the device in one transfer each.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import is_array_api_obj
from numpy.typing import NDArray

from ..backends import Backend, BackendLike, Generator, get_backend
from ..backends.inputs import host_data, is_plain_numpy, is_sparse
from ..backends.upload import Uploader
from ..common import checks
from ..common.types import Array
from .augment import AnyTransform, Transform, goes_along, kept_in_evaluation, paired, require_paired
from .images import IN_MEMORY, Images
from .prefetch import Prefetch

#: Batches made ahead where that pays.
AHEAD = 2

HostBatch: TypeAlias = list[NDArray[Any]]


class DataLoader:
    """Batches ``(x, y)`` of arrays, in a new random order each time it is iterated.

    Parameters
    ----------
    x, y : array_like
        On the host, with as many samples along axis 0. Floats are converted to the backend's dtype. What is no array
        but has ``shape``, ``dtype`` and a length, and gives arrays when indexed with a slice or increasing integers,
        is read batch by batch: an `Images` of a dataset, a dataset of h5py. Masked arrays and other subclasses of
        NumPy's arrays are refused.
    batch_size : int
        Samples in a batch; the last batch holds what is left.
    shuffle : bool
        Whether to reorder the samples; the order of pass ``k`` depends on ``seed`` and ``k`` alone. `evaluate` and
        `predict` go through the samples in their order all the same (`in_order`).
    seed : int
        Of the order and of ``transform``.
    backend : str, Backend, namespace or None
        Where batches are put; `fit` puts them where the model is.
    scale : float, optional
        A batch of ``x`` is converted to float32 and multiplied by it.
    transform : callable, optional
        Called as ``transform(x, generator)`` with each batch of ``x`` in float32, after scaling, on the host; see
        `xpnn.augment`. What it draws depends on ``seed``, the pass and the batch's place in it. Where ``y`` has the
        spatial axes of ``x``, as masks have, it is called as ``transform.pair(x, y, generator)`` and gives both.
    prefetch : int, optional
        Batches made ahead by a thread in the background; 0 makes each when it is asked for. Unless given, 2 for a
        device, a transform or data that is read batch by batch, and otherwise 0, for then the thread costs more than
        it saves.
    drop_last : bool
        Whether to leave out the last batch of a pass if it is not full: a batch norm can't take one sample.

    Attributes
    ----------
    epoch : int
        Passes begun so far. Set it to begin elsewhere.

    Raises
    ------
    TypeError, ValueError
        For what is no array, lengths that differ, no samples, or more in a batch with ``drop_last``, a batch size below
        1, a negative ``prefetch``, or a transform that does not say what becomes of ``y`` where that has the spatial
        axes of ``x``.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        seed: int = 0,
        backend: BackendLike | None = None,
        scale: float | None = None,
        transform: AnyTransform | None = None,
        prefetch: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self.arrays: tuple[Images, ...] = (samples_of("x", x), samples_of("y", y))
        lengths = [len(array) if len(array.shape) else 0 for array in self.arrays]
        if lengths[0] != lengths[1] or not lengths[0]:
            raise ValueError(f"x and y need the same number of samples, at least 1; got {lengths[0]} and {lengths[1]}")
        if transform is not None and (not callable(transform) or inspect.isclass(transform)):
            hint = f"; make an object of it: {transform.__name__}()" if inspect.isclass(transform) else ""
            raise ValueError(
                f"transform must be a callable of a batch and a generator, got {checks.shown(transform)}{hint}"
            )
        self.batch_size = checks.integer("batch_size", batch_size, 1)
        self.shuffle = checks.flag("shuffle", shuffle)
        self.generator = Generator(seed).fold_in("shuffle")
        self.seed = int(seed)
        self.backend: Backend | None = None if backend is None else get_backend(backend)
        self.scale = None if scale is None else float(checks.number("scale", scale))
        self.transform = transform
        self.prefetch = None if prefetch is None else checks.integer("prefetch", prefetch, 0)
        self.drop_last = checks.flag("drop_last", drop_last)
        self.epoch = 0
        shapes = [tuple(array.shape) for array in self.arrays]
        if transform is not None:
            require_paired(transform, *shapes)
        #: Whether the transform changes targets too.
        self.changes_targets = transform is not None and goes_along(*shapes)
        self.require_batches()

    @property
    def samples(self) -> int:
        """Samples in one pass."""
        return len(self.arrays[0])

    def __len__(self) -> int:
        """Batches in one pass."""
        return self.samples // self.batch_size if self.drop_last else -(-self.samples // self.batch_size)

    def require_batches(self) -> None:
        """Raise `ValueError` unless a pass has a batch."""
        if not len(self):
            raise ValueError(
                f"drop_last=True leaves no batch of {self.batch_size}: there are {self.samples} samples; take a "
                f"batch_size of at most {self.samples}"
            )

    def may_aim_at(self, value: int) -> bool:
        """Whether a target may be that integer; False only where targets in memory were looked through."""
        targets = self.arrays[1]
        if not isinstance(targets, np.ndarray) or isinstance(targets, np.memmap) or self.changes_targets:
            return True
        return targets.dtype.kind not in "iu" or targets.nbytes > IN_MEMORY or bool((targets == value).any())

    def in_order(self, batch_size: int | None = None) -> "DataLoader":
        """A loader of all the same samples in the order of the data, for evaluation.

        It does not shuffle and drops nothing. Of a transform it applies what belongs to evaluation (`Transform.
        evaluation`); one that does not say, a function, is applied as it is, with the draws of the first pass. The
        passes of this loader are not counted.

        Parameters
        ----------
        batch_size : int, optional
            Samples in a batch; as many as here unless given.
        """
        loader = copy.copy(self)
        loader.epoch, loader.shuffle, loader.drop_last = 0, False, False
        loader.transform = kept_in_evaluation(self.transform)
        loader.changes_targets = self.changes_targets and loader.transform is not None
        if batch_size is not None:
            loader.batch_size = checks.integer("batch_size", batch_size, 1)
        return loader

    def __iter__(self) -> Iterator[Sequence[Array]]:
        return self.batches(self.backend or get_backend())

    def batches(self, b: Backend, start: int = 0) -> Iterator[Sequence[Array]]:
        """Pass number `epoch`, each batch on ``b``; it counts as begun when its first batch is asked for.

        Parameters
        ----------
        b : Backend
        start : int
            Batches to leave out: those that follow are the bits of the whole pass.
        """
        start = checks.integer("start", start, 0, len(self))
        depth = self._depth(b)
        # Copies that nothing overlaps are plain ones.
        return self._pass(b.uploader() if depth else Uploader(b), start, depth)

    def state_dict(self) -> dict[str, Any]:
        """`epoch`, and what decides on the batches of a pass; numbers and text alone."""
        return {"epoch": self.epoch, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the passes of the loader that gave this state.

        During pass ``k`` that loader had counted it as begun: to go on in its midst set ``epoch = k`` and call
        `batches` with ``start``.

        Raises
        ------
        ValueError
            Unless this loader makes the same batches.
        """
        checks.mapping("state", state, "give what state_dict() gave")
        for name, own in self._settings().items():
            if name not in state:
                raise ValueError(f"the loader's state has no {name}; it holds {', '.join(state) or 'nothing'}")
            if state[name] != own:
                raise ValueError(
                    f"this loader has {name} {own!r} and the state is of one with {state[name]!r}: its batches would "
                    "be others"
                )
        self.epoch = checks.integer("the loader's state: epoch", state.get("epoch"), 0)

    def _settings(self) -> dict[str, Any]:
        transform = self.transform
        named = repr(transform) if transform is None or isinstance(transform, Transform) else type(transform).__name__
        return {
            "seed": self.seed,
            "samples": self.samples,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "scale": self.scale,
            "transform": named,
        }

    def _depth(self, b: Backend) -> int:
        if self.prefetch is not None:
            return self.prefetch
        plain = self.transform is None and all(isinstance(array, np.ndarray) for array in self.arrays)
        return 0 if plain and b.is_host else AHEAD

    def _pass(self, uploader: Uploader, start: int, depth: int) -> Iterator[Sequence[Array]]:
        number = self.epoch
        self.epoch += 1
        sent = (uploader.send(parts) for parts in self._host_batches(number, start))
        if not depth:
            yield from map(uploader.receive, sent)
            return
        with Prefetch(sent, depth) as ahead:
            yield from map(uploader.receive, ahead)

    def _host_batches(self, number: int, start: int) -> Iterator[HostBatch]:
        """The batches of a pass, on the host."""
        order = self.generator.fold_in(number).permutation(self.samples) if self.shuffle else None
        randomness = Generator(self.seed).fold_in("augment").fold_in(number)
        for place in range(start, len(self)):
            chosen: Any = slice(place * self.batch_size, min((place + 1) * self.batch_size, self.samples))
            if order is not None:
                chosen = order[chosen]
            x, y = (_taken(array, chosen) for array in self.arrays)
            if self.scale is not None:
                x = np.multiply(x, self.scale, dtype=np.float32, casting="same_kind")
            if self.transform is not None:
                x, y = self._transformed(x.astype(np.float32, copy=False), y, randomness.fold_in(place))
            yield [x, y]

    def _transformed(self, x: NDArray[Any], y: NDArray[Any], generator: Generator) -> HostBatch:
        assert self.transform is not None
        if self.changes_targets:
            both = list(paired(self.transform, x, y, generator))
        else:
            both = [self.transform(x, generator), y]
        for changed in both:
            if not isinstance(changed, np.ndarray) or not is_plain_numpy(type(changed)) or len(changed) != len(x):
                raise ValueError(
                    f"{self.transform!r} must give an array of as many samples as its batch, {len(x)}, it gave "
                    f"{getattr(changed, 'shape', type(changed).__name__)}"
                )
        return both


def samples_of(name: str, data: Any) -> Images:
    """Samples along axis 0, on the host: what is read batch by batch as it is, all else as an array.

    Raises
    ------
    TypeError
        For a generator, text, no plain array, and other things that are no numbers; says what to do.
    """
    if is_lazy(data):
        return data  # type: ignore[no-any-return]  # is_lazy says that it is what Images asks for
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} must be an array of samples, got {checks.shown(data)}, which gives each of them once; make an "
            f"array of it: np.stack(list({name}))"
        )
    return host_data(data, name, convert=True)


def is_lazy(data: Any) -> bool:
    """Whether data is to be read batch by batch: it has a form and can be indexed, and is no array itself."""
    if isinstance(data, np.ndarray | np.generic) or is_array_api_obj(data) or is_sparse(data):
        return False
    has_form = all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__", "__len__"))
    # What pandas holds is indexed by its labels, not by place.
    return has_form and not hasattr(data, "iloc")


def _taken(array: Images, chosen: Any) -> NDArray[Any]:
    """The samples at a slice or at places in any order."""
    if isinstance(array, np.ndarray):
        taken: NDArray[Any] = array[chosen]
        return taken
    if isinstance(chosen, slice):
        return host_data(array[chosen], "what the data gives for a slice", convert=True)
    # Files are read from front to back, and HDF5 takes no other order.
    order = np.argsort(chosen)
    found = host_data(array[chosen[order]], "what the data gives for some places", convert=True)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return found[back]
