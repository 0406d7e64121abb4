"""Batches of samples, made on the host and transferred to the device of the model.

The order of samples comes from the library's own generator, so it is the same on every machine and backend. Batches are
made on the host, some of them ahead of use in a background thread, and each is copied to the device in one transfer.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..backends import Backend, BackendLike, Generator, get_backend
from ..backends.upload import Uploader
from ..common import checks
from .augment.transform import AnyTransform, evaluation_or_all
from .host_batches import HostBatch, make_batch, name_of, paired_input, require_transform
from .images import IN_MEMORY, Images
from .inputs import for_each_input, from_arguments, several_inputs
from .prefetch import Prefetch
from .samplers import Sampler, checked_positions
from .samples import samples_of
from .share import WHOLE, Share

#: Batches that are made ahead unless ``prefetch`` is given.
AHEAD = 2


class DataLoader:
    """Batches ``(x, y)`` of arrays, in a new random order each time it is iterated.

    Parameters
    ----------
    x, y : array_like
        On the host, with the same number of samples along axis 0. Floats are converted to the backend's dtype. An
        object that is no array but has ``shape``, ``dtype`` and a length, and returns arrays when it is indexed with a
        slice or increasing integers, is read batch by batch: an `Images` of a dataset, a dataset of h5py. Masked arrays
        and other subclasses of NumPy's arrays are refused. For a net with several inputs ``x`` is a tuple of these, and
        batches are ``((x1, x2), y)``.
    batch_size : int
        Samples in a batch; the last batch may be smaller.
    shuffle : bool
        Whether to reorder the samples; the order of pass ``k`` depends only on ``seed`` and ``k``. `evaluate` and
        `predict` use the order of the data in any case (`in_order`).
    seed : int
        Seed of the order and of ``transform``.
    backend : str, Backend, namespace or None
        Where batches are put; `fit` puts them on the model's device.
    scale : float, optional
        Each batch of ``x`` is converted to float32 and multiplied by this number. With several inputs it is a tuple of
        a number, or None, for each.
    transform : callable, optional
        Called as ``transform(x, generator)`` with each batch of ``x`` in float32, after scaling, on the host; see
        `xpnn.augment`. The generator depends on ``seed``, the pass and the batch's position in it. If ``y`` has the
        spatial axes of ``x``, as masks have, ``transform.pair(x, y, generator)`` is called instead and returns both.
        With several inputs it is a tuple of a transform, or None, for each.
    prefetch : int, optional
        Number of batches that a background thread makes ahead; with 0 each is made when it is requested. The default is
        2 for a device, a transform or data that is read batch by batch, and otherwise 0, because the thread would cost
        more than it saves.
    drop_last : bool
        Whether to leave out the last batch of a pass if it is not full: batch norm requires more than one sample.
    sampler : Sampler, optional
        Decides which samples a pass has, in which order, instead of ``shuffle``: `WeightedRandomSampler`.
    joint : bool, optional
        Whether ``transform`` moves the pixels of ``y`` as those of ``x``. Unless given it does if ``y`` has the spatial
        axes of ``x``. With True that is required, and of several inputs all are changed by the same draws; with False
        ``y`` is left as it is.

    Attributes
    ----------
    epoch : int
        Number of passes begun so far. Set it to start from another pass.

    Raises
    ------
    TypeError, ValueError
        For arguments that are no arrays, lengths that differ, no samples, fewer samples than one batch with
        ``drop_last``, a batch size below 1, a negative ``prefetch``, or a transform that does not declare what it does
        to ``y`` although ``y`` has the spatial axes of ``x``; for ``joint=True`` if ``y`` does not have them.
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
        sampler: Sampler | None = None,
        joint: bool | None = None,
    ) -> None:
        target = samples_of("y", y)
        inputs = several_inputs(x, len(target) if len(target.shape) else 0) or (x,)
        self.arrays: tuple[Images, ...] = (*(samples_of("x", each) for each in inputs), target)
        lengths = [len(array) if len(array.shape) else 0 for array in self.arrays]
        if lengths[0] != lengths[-1] or not lengths[0]:
            raise ValueError(
                f"x and y must have the same number of samples, at least 1, got {lengths[0]} and {lengths[-1]}"
            )
        transforms = for_each_input("transform", transform, len(inputs))
        for each in transforms:
            require_transform(each)
        self.batch_size = checks.integer("batch_size", batch_size, 1)
        self.shuffle = checks.flag("shuffle", shuffle)
        self.generator = Generator(seed).fold_in("shuffle")
        self.seed = int(seed)
        self.backend: Backend | None = None if backend is None else get_backend(backend)
        scales = for_each_input("scale", scale, len(inputs))
        numbers = [None if each is None else float(checks.number("scale", each)) for each in scales]
        self.scale: Any = None if scale is None else numbers[0] if len(inputs) == 1 else tuple(numbers)
        self.transform: Any = transform if transform is None or len(inputs) == 1 else transforms
        self.prefetch = None if prefetch is None else checks.integer("prefetch", prefetch, 0)
        self.drop_last = checks.flag("drop_last", drop_last)
        self.sampler = sampler
        if sampler is not None:
            self._require_sampler(sampler)
        self.joint = None if joint is None else checks.flag("joint", joint)
        self.epoch = 0
        # The input whose transform changes targets too.
        self._paired = paired_input(self.arrays, transforms, self.joint)
        self.require_batches()

    def _require_sampler(self, sampler: Any) -> None:
        """Raise unless a sampler is one, for as many samples as there are."""
        if not isinstance(sampler, Sampler):
            advice = "make one, such as nn.WeightedRandomSampler(weights, num_samples)"
            raise TypeError(f"sampler must be a Sampler, got {checks.shown(sampler)}; {advice}")
        weights = getattr(sampler, "weights", None)
        if weights is not None and len(weights) != len(self.targets):
            raise ValueError(f"sampler has {len(weights)} weights, and there are {len(self.targets)} samples")

    @property
    def targets(self) -> Images:
        """``y``."""
        return self.arrays[-1]

    @property
    def samples(self) -> int:
        """Samples in one pass."""
        return len(self.targets) if self.sampler is None else len(self.sampler)

    @property
    def changes_targets(self) -> bool:
        """Whether the transform changes targets too."""
        return self._paired is not None

    def __len__(self) -> int:
        """Batches in one pass."""
        return self.samples // self.batch_size if self.drop_last else -(-self.samples // self.batch_size)

    def require_batches(self) -> None:
        """Raise `ValueError` if a pass has no batch."""
        if not len(self):
            raise ValueError(
                f"drop_last=True leaves no batch of {self.batch_size}: there are {self.samples} samples; use a "
                f"batch_size of at most {self.samples}"
            )

    def may_have_target(self, value: int) -> bool:
        """Whether any target may equal ``value``; False only if all targets are in memory and none does."""
        targets = self.targets
        if not isinstance(targets, np.ndarray) or isinstance(targets, np.memmap) or self.changes_targets:
            return True
        return targets.dtype.kind not in "iu" or targets.nbytes > IN_MEMORY or bool((targets == value).any())

    def in_order(self, batch_size: int | None = None) -> "DataLoader":
        """A loader of the same samples in the order of the data, for evaluation.

        It does not shuffle and drops no samples. It applies the part of the transform that belongs to evaluation
        (`Transform.evaluation`); a function, which has no such part, is applied unchanged, with the draws of the first
        pass. Passes of the new loader do not count for this one.

        Parameters
        ----------
        batch_size : int, optional
            Samples in a batch; the default is the batch size of this loader.
        """
        loader = copy.copy(self)
        loader.epoch, loader.shuffle, loader.drop_last, loader.sampler = 0, False, False, None
        several = isinstance(self.transform, tuple)
        loader.transform = (
            tuple(map(evaluation_or_all, self.transform)) if several else evaluation_or_all(self.transform)
        )
        if self._paired is not None and loader._transforms()[self._paired] is None:
            loader._paired = None
        if batch_size is not None:
            loader.batch_size = checks.integer("batch_size", batch_size, 1)
        return loader

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return self.batches(self.backend or get_backend())

    def batches(self, b: Backend, start: int = 0, share: Share = WHOLE) -> Iterator[Sequence[Any]]:
        """Pass number `epoch`, each batch on ``b``; the pass counts as begun when its first batch is requested.

        A batch is the two arrays x and y, or with several inputs a tuple of these and y.

        Parameters
        ----------
        b : Backend
        start : int
            Number of batches to skip; the others have the same bits as in a whole pass.
        share : Share
            Which of the batches, or which samples of each.
        """
        start = checks.integer("start", start, 0, len(self))
        depth = self._depth(b)
        # Without prefetching no copy overlaps with a computation, so plain copies are enough.
        return self._pass(b.uploader() if depth else Uploader(b), start, share, depth)

    def state_dict(self) -> dict[str, Any]:
        """`epoch` and the settings that determine the batches of a pass, as numbers and text."""
        return {"epoch": self.epoch, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the passes of the loader that returned this state.

        A state that was saved during pass ``k`` counts this pass as begun: to continue within it set ``epoch = k`` and
        call `batches` with ``start``.

        Raises
        ------
        ValueError
            If this loader would make other batches.
        """
        checks.mapping("state", state, "give the result of state_dict()")
        for name, own in self._settings().items():
            if name not in state and own is None and name in ("sampler", "joint"):
                # Of an earlier version.
                continue
            if name not in state:
                raise ValueError(f"the loader's state has no {name}; it holds {', '.join(state) or 'nothing'}")
            if state[name] != own:
                raise ValueError(
                    f"this loader has {name} {own!r} and the state is of one with {state[name]!r}: the batches would "
                    "differ"
                )
        self.epoch = checks.integer("the loader's state: epoch", state.get("epoch"), 0)

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "samples": self.samples,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "scale": list(self.scale) if isinstance(self.scale, tuple) else self.scale,
            "transform": name_of(self.transform),
            "sampler": None if self.sampler is None else repr(self.sampler),
            "joint": self.joint,
        }

    def _transforms(self) -> tuple[AnyTransform | None, ...]:
        return for_each_input("transform", self.transform, len(self.arrays) - 1)

    def _depth(self, b: Backend) -> int:
        if self.prefetch is not None:
            return self.prefetch
        plain = self.transform is None and all(isinstance(array, np.ndarray) for array in self.arrays)
        return 0 if plain and b.is_host else AHEAD

    def _pass(self, uploader: Uploader, start: int, share: Share, depth: int) -> Iterator[Sequence[Any]]:
        number = self.epoch
        self.epoch += 1
        sent = (uploader.send(parts) for parts in self._host_batches(number, start, share))
        if not depth:
            yield from map(self._batch, map(uploader.receive, sent))
            return
        with Prefetch(sent, depth) as ahead:
            yield from map(self._batch, map(uploader.receive, ahead))

    def _batch(self, arrays: Sequence[Any]) -> Sequence[Any]:
        return arrays if len(arrays) == 2 else from_arguments(arrays)

    def _host_batches(self, number: int, start: int, share: Share) -> Iterator[HostBatch]:
        """The batches of a pass, on the host."""
        order: Any = None
        if self.sampler is not None:
            order = checked_positions(self.sampler, number, len(self.targets))
        elif self.shuffle:
            order = self.generator.fold_in(number).permutation(self.samples)
        randomness = Generator(self.seed).fold_in("augment").fold_in(number)
        scales, transforms = for_each_input("scale", self.scale, len(self.arrays) - 1), self._transforms()
        changes = any(transform is not None for transform in transforms)
        for position in share.batches(start, len(self)):
            first, last = position * self.batch_size, min((position + 1) * self.batch_size, self.samples)
            # A transform draws for all samples of a batch.
            a, b = (0, last - first) if changes else share.bounds(last - first)
            index: Any = slice(first + a, first + b)
            if order is not None:
                index = order[index]
            generators = partial(self._generator_of, randomness, position)
            batch = make_batch(self.arrays, index, scales, transforms, generators, self._paired)
            if changes and share.splits:
                a, b = share.bounds(last - first)
                batch = [each[a:b] for each in batch]
            yield batch

    def _generator_of(self, randomness: Generator, position: int, number: int) -> Generator:
        """The generator of the transform of input ``number``: with ``joint`` all inputs have the same draws."""
        of_batch = randomness.fold_in(position)
        return of_batch.fold_in(number) if number and not self.joint else of_batch
