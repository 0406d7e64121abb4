"""A net as a regressor of scikit-learn."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import MultiOutputMixin, RegressorMixin

from ...backends import BackendLike, to_host
from ...common import checks
from ...layers.losses import MSE, Loss
from ...training.optimizers import Optimizer
from .arrays import is_dispatched, kept_at
from .estimator import NetEstimator
from .nets import Model
from .weighted_mse import WeightedMSE


class NetRegressor(MultiOutputMixin, RegressorMixin, NetEstimator):
    """Regressor that trains a net on the mean squared error.

    Parameters
    ----------
    model : str, callable, Layer or None, default=None
        The net, which must return the numbers of each sample, ``(N, K)``; as for `NetClassifier`, where a function is
        called with the number of columns of y in place of the number of classes.
    epochs, lr, batch_size, optimizer, backend, random_state, dtype, numerics
        As for `NetClassifier`.
    early_stopping, validation_fraction, n_iter_no_change, tol, warm_start, verbose
        As for `NetClassifier`.
    scale_y : bool, default=True
        Whether the net is trained on y with mean 0 and standard deviation 1, and its outputs are scaled back. The units
        of y then do not matter. `partial_fit` and ``warm_start`` keep the scale of the first call.

    Attributes
    ----------
    model_ : Layer
        The trained net, in evaluation mode. With ``scale_y`` its outputs times ``y_scale_`` plus ``y_mean_`` are the
        predictions.
    y_mean_, y_scale_ : array of shape (n_outputs,)
        0 and 1 without ``scale_y``.
    n_outputs_ : int
        Columns of y.
    n_features_in_, feature_names_in_, n_iter_, loss_, loss_curve_, validation_loss_curve_, history_
        As for `NetClassifier`; losses are those of the scaled y.

    See Also
    --------
    NetClassifier : A net that predicts classes.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnn.interop.sklearn import NetRegressor
    >>> X = np.linspace(-1.0, 1.0, 200)[:, None]
    >>> regressor = NetRegressor(epochs=40, backend="numpy", random_state=0).fit(X, 1000.0 * X[:, 0] ** 2)
    >>> regressor.score(X, 1000.0 * X[:, 0] ** 2) > 0.9
    True
    """

    n_outputs_: int

    def __init__(
        self,
        model: Model = None,
        epochs: int = 10,
        lr: float = 1e-3,
        batch_size: int = 32,
        optimizer: str | Callable[..., Optimizer] = "adam",
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
        scale_y: bool = True,
    ) -> None:
        super().__init__(
            model,
            epochs,
            lr,
            batch_size,
            optimizer,
            backend,
            random_state,
            dtype=dtype,
            numerics=numerics,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            verbose=verbose,
        )
        self.scale_y = scale_y

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a net.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self : NetRegressor
        """
        return self._fit(X, y, sample_weight, self.epochs, self._continues())

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one more epoch, on these samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self : NetRegressor
        """
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        return self._fit(X, y, sample_weight, 1, hasattr(self, "model_"))

    def predict(self, X: Any) -> Any:
        """The numbers of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_outputs)
            As the y of `fit`; of the library of X if scikit-learn dispatches, else of NumPy.
        """
        outputs, X = self._outputs(X, "predict")
        b = self.model_.backend
        with b.context():
            mean, scale = (b.up(b.asarray(to_host(a)[None, :], b.dtype_name)) for a in (self.y_mean_, self.y_scale_))
            outputs = b.down(b.up(outputs) * scale + mean)
            if self._is_vector:
                outputs = b.xp.reshape(outputs, (-1,))
        return self._like(X, outputs)

    def _fit(self, X: Any, y: Any, sample_weight: Any, epochs: int, goes_on: bool) -> Self:
        X, y = self._checked(X, y, reset=not goes_on, multi_output=True, y_numeric=True)
        numbers = np.asarray(to_host(y) if is_dispatched(y) else y, dtype=np.float64)
        columns = numbers.reshape(len(numbers), -1)
        if goes_on and columns.shape[1] != self.n_outputs_:
            raise ValueError(f"y must have {self.n_outputs_} columns as in the previous call, got {columns.shape[1]}")
        weights = self._weights(sample_weight, X)
        if not goes_on:
            self._is_vector, self.n_outputs_ = numbers.ndim == 1, columns.shape[1]
            self._set_scale(columns, weights)
        mean, scale = to_host(self.y_mean_), to_host(self.y_scale_)
        return self._train(X, (columns - mean) / scale, weights, epochs=epochs, goes_on=goes_on)

    def _set_scale(self, columns: NDArray[np.float64], weights: NDArray[np.float64] | None) -> None:
        mean, scale = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
        if checks.flag("scale_y", self.scale_y):
            mean = np.average(columns, axis=0, weights=weights)
            deviation = np.sqrt(np.average((columns - mean) ** 2, axis=0, weights=weights))
            # A column that does not vary is only shifted.
            scale = np.where(deviation > 10.0 * np.finfo(np.float64).eps * np.abs(mean), deviation, 1.0)
        self.y_mean_, self.y_scale_ = kept_at(self._home, mean), kept_at(self._home, scale)

    def _number_of_outputs(self) -> int:
        return int(self.n_outputs_)

    def _loss_and_targets(
        self, targets: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> tuple[Loss, NDArray[Any]]:
        if weights is None:
            return MSE(), targets
        return WeightedMSE(), np.concatenate([targets, weights[:, None]], axis=1)
