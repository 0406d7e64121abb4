"""What `NetClassifier` and `NetRegressor` have in common: from checked arrays to a trained net and its outputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import isfinite
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...backends import Backend, BackendLike, use_backend
from ...common import checks
from ...common.types import Array
from ...layers.core.grad_mode import no_grad
from ...layers.core.layer import Layer
from ...layers.losses import Loss
from ...training import optimizers
from ...training.data_loader import DataLoader
from ...training.early_stopping import EarlyStopping
from ...training.evaluation import BATCH, in_mode
from ...training.fit import fit as fit_net
from ...training.inputs import some_samples
from .arrays import accepted_dtypes, home_of, like, namespace_of, on_device, open_backend, require_home, with_dtype_of
from .device_loader import DeviceLoader
from .nets import Model, build_net
from .sample_weights import checked_weights

#: Optimizers by the names that an estimator accepts, in small letters.
OPTIMIZERS: dict[str, type[optimizers.Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(optimizers).items()
    if isinstance(kind, type) and issubclass(kind, optimizers.Optimizer) and kind is not optimizers.Optimizer
}


class NetEstimator(BaseEstimator, ABC):
    """Base of the estimators; a subclass says what targets and losses are."""

    def __init__(
        self,
        model: Model = None,
        epochs: int = 10,
        lr: float = 1e-3,
        batch_size: int = 32,
        optimizer: str | Callable[..., optimizers.Optimizer] = "adam",
        backend: BackendLike | None = None,
        random_state: Any = None,
        *,
        dtype: Any = None,
        numerics: str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.backend = backend
        self.random_state = random_state
        self.dtype = dtype
        self.numerics = numerics
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may do with this estimator."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    @abstractmethod
    def _number_of_outputs(self) -> int:
        """Of the net, once the targets are known."""

    @abstractmethod
    def _loss_and_targets(
        self, targets: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> tuple[Loss, NDArray[Any]]:
        """The loss, and the targets as it reads them; the weights of samples have a mean of 1."""

    def _continues(self) -> bool:
        """Whether `fit` begins with the net of the last one."""
        return bool(self.warm_start) and hasattr(self, "model_")

    def _checked(self, X: Any, y: Any, *, reset: bool, **options: Any) -> tuple[Array, Array]:
        """X and y as arrays; opens the backend if ``reset``."""
        if reset:
            b = open_backend(self.backend, X, self.dtype, self.numerics)
            follows = self.dtype is None and not isinstance(self.backend, Backend)
            dtypes = accepted_dtypes(b, follows, namespace_of(X))
        else:
            dtypes = getattr(namespace_of(X), self.model_.backend.dtype_name)
        X, y = validate_data(self, X, y, reset=reset, dtype=dtypes, allow_nd=True, **options)
        if reset:
            self._backend = with_dtype_of(b, X)
            self._sample_shape, self._home = tuple(X.shape[1:]), home_of(X)
        self._require_sample_shape(X)
        return X, y

    def _require_sample_shape(self, X: Array) -> None:
        if tuple(X.shape[1:]) != self._sample_shape:
            raise ValueError(
                f"X has samples of shape {tuple(X.shape[1:])}, but {type(self).__name__} is expecting samples of shape "
                f"{self._sample_shape} as input"
            )

    def _train(
        self, X: Array, targets: NDArray[Any], sample_weight: NDArray[np.float64] | None, *, epochs: int, goes_on: bool
    ) -> Self:
        """Train on checked arrays: a new net, or the present one.

        Parameters
        ----------
        X : array
        targets : NumPy array
            ``(N,)`` or ``(N, K)``.
        sample_weight : NumPy array, optional
            Samples of weight 0 are left out.
        epochs : int
        goes_on : bool
            Whether to continue with the present net and the present state of the optimizer.
        """
        early = checks.flag("early_stopping", self.early_stopping)
        rows = np.arange(len(targets)) if sample_weight is None else np.flatnonzero(sample_weight)
        if not goes_on:
            self._seed, self._passes = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)), 0
        train, held_out = self._split(rows, targets) if early else (rows, None)
        if not goes_on:
            self._make_net()
        if sample_weight is not None:
            # With a mean of 1 the mean over samples is the weighted mean.
            sample_weight = sample_weight / sample_weight[train].mean()
        inputs = on_device(X, self._backend)

        def batches(some: NDArray[np.int64], shuffle: bool) -> tuple[Loss, DataLoader]:
            weights = None if sample_weight is None else sample_weight[some]
            loss, prepared = self._loss_and_targets(targets[some], weights)
            return loss, self._loader(inputs, some, prepared, shuffle)

        loss, loader = batches(train, True)
        loader.epoch = self._passes
        history = fit_net(
            self.model_,
            loader,
            validation=None if held_out is None else batches(held_out, False)[1],
            loss=loss,
            optimizer=self._optimizer,
            epochs=epochs,
            early_stopping=self._stopping() if early else None,
            progress=bool(self.verbose),
        )
        self._passes += len(history.rows)
        self._record(history, goes_on)
        return self

    def _make_net(self) -> None:
        make = self.optimizer
        if not callable(make):
            make = OPTIMIZERS[checks.choice("optimizer", make, tuple(OPTIMIZERS))]
        net = build_net(self.model, self._sample_shape, self._number_of_outputs(), self._backend, self._seed)
        made = checks.instance("the result of optimizer", make(net, lr=self.lr), optimizers.Optimizer)
        # Set together, last: an estimator with a net can go on.
        self.model_: Layer = net.eval()
        self._optimizer: optimizers.Optimizer = made

    def _loader(self, inputs: Array, rows: NDArray[np.int64], targets: NDArray[Any], shuffle: bool) -> DataLoader:
        settings: dict[str, Any] = {"shuffle": shuffle, "seed": self._seed}
        if isinstance(inputs, np.ndarray):
            chosen = inputs if len(rows) == len(inputs) else inputs[rows]
            return DataLoader(chosen, targets, self.batch_size, **settings)
        return DeviceLoader(inputs, rows, targets, self.batch_size, **settings)

    def _split(
        self, rows: NDArray[np.int64], targets: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Rows to train on, and those held out to decide when to stop."""
        fraction = checks.number("validation_fraction", self.validation_fraction, above=0.0)
        stratify = targets[rows] if is_classifier(self) else None
        train, held_out = train_test_split(rows, test_size=fraction, random_state=self._seed, stratify=stratify)
        return np.sort(train), np.sort(held_out)

    def _stopping(self) -> EarlyStopping:
        patience = checks.integer("n_iter_no_change", self.n_iter_no_change, 1)
        return EarlyStopping(patience, "validation_loss", threshold=self.tol, restore_best=True)

    def _record(self, history: Any, goes_on: bool) -> None:
        """Set the attributes that tell how training went."""
        self.history_ = history
        losses = [float(value) for value in history["train_loss"]]
        self.loss_curve_: list[float] = [*(self.loss_curve_ if goes_on else ()), *losses]
        self.loss_ = self.loss_curve_[-1]
        self.n_iter_ = self._passes
        self.validation_loss_curve_ = list(history["validation_loss"]) if self.early_stopping else None
        if not isfinite(self.loss_):
            raise ValueError(
                "Training produced weights that are not finite. The input data may contain large values and need to be "
                "preprocessed, or lr is too large."
            )

    def _outputs(self, X: Any, method: str) -> tuple[Array, Array]:
        """The net's outputs on its device, ``(N, K)``, and the checked X."""
        check_is_fitted(self, "model_")
        require_home(X, self._home, type(self).__name__, method)
        b = self.model_.backend
        dtype = getattr(namespace_of(X), b.dtype_name)
        X = validate_data(self, X, reset=False, dtype=dtype, allow_nd=True)
        self._require_sample_shape(X)
        inputs, parts = on_device(X, b), []
        with use_backend(b), in_mode(self.model_, False), no_grad():
            for start in range(0, inputs.shape[0], BATCH):
                parts.append(self.model_.forward(b.asarray(some_samples(inputs, start, start + BATCH))))
            with b.context():
                return (parts[0] if len(parts) == 1 else b.xp.concat(parts, axis=0)), X

    def _like(self, X: Array, result: Array) -> Any:
        """A result on the device of the net as an array of X's library."""
        return like(X, result, self.model_.backend)

    def _weights(self, sample_weight: Any, X: Array) -> NDArray[np.float64] | None:
        return checked_weights(sample_weight, X.shape[0])
