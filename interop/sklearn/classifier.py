"""A net as a classifier of scikit-learn."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight

from ...backends import BackendLike, to_host
from ...common.types import Array
from ...layers.activations import LogSoftmax, Softmax
from ...layers.losses import CrossEntropy, Loss
from ...training.optimizers import Optimizer
from .arrays import is_dispatched, kept_at
from .estimator import NetEstimator
from .labels import all_classes, labels_of, require_known, require_same_classes, require_two_classes
from .nets import Model


class NetClassifier(ClassifierMixin, NetEstimator):
    """Classifier that trains a net on the cross-entropy.

    Parameters
    ----------
    model : str, callable, Layer or None, default=None
        The net, which must return a logit for each class, ``(N, K)``: a name of `xpnn.models` such as ``"lenet"``; a
        function called as ``model(shape, outputs)`` with the shape of one sample, ``(F,)`` or ``(C, H, W)``, and the
        number of classes, which returns a `Layer` (`xpnn.models.lenet` is one); or a `Layer`, of which a copy is
        trained, from the weights that it has. None: two hidden layers of 256 and 128 for tables, and
        `xpnn.models.lenet` for images ``(N, C, H, W)``.
    epochs : int, default=10
        Passes over the data.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=32
        Samples in a batch.
    optimizer : str or callable, default="adam"
        A name of an optimizer of xpnn in small letters, such as ``"sgd"``, or what is called as
        ``optimizer(net, lr=lr)`` to make one, such as ``functools.partial(xpnn.SGD, momentum=0.9)``.
    backend : str, Backend or None, default=None
        Where the net computes, such as ``"cupy"``. None: where X is, if scikit-learn dispatches arrays
        (``sklearn.config_context(array_api_dispatch=True)``); else that of `xpnn.use_backend` or ``XPNN_BACKEND``, or
        NumPy.
    random_state : int, RandomState instance or None, default=None
        Determines initial weights, dropout, the order of samples and the samples held out. An integer gives the same
        results in each call of `fit`, on one backend, or with ``numerics="exact"`` on all.
    dtype : {"float32", "float64"}, default=None
        In which the net computes. None: float32 if X is float32 or a backend's setting demands it, else float64, as in
        scikit-learn. Give "float32" for speed.
    numerics : {"fast", "exact"}, default=None
        "exact" computes the same bits on every backend, in float32. None: fast, or as ``XPNN_NUMERICS`` says.
    early_stopping : bool, default=False
        Whether to hold out a part of the data, the same share of each class, and stop when the loss of that has not
        improved by ``tol`` for ``n_iter_no_change`` epochs. The net then has the weights of the best epoch.
    validation_fraction : float, default=0.1
        The part that is held out.
    n_iter_no_change : int, default=10
        Epochs without an improvement before training stops.
    tol : float, default=1e-4
        What counts as an improvement.
    warm_start : bool, default=False
        Whether another call of `fit` continues with the net and optimizer of the last one.
    verbose : bool, default=False
        Whether to show progress on standard error.
    class_weight : dict, "balanced" or None, default=None
        Weights of classes, which are multiplied with those of samples; "balanced" gives all classes the same total.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        The class labels.
    model_ : Layer
        The trained net, in evaluation mode.
    n_features_in_ : int
        Length of axis 1 of X: features of a table, channels of images.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if X was a data frame with names that are all strings.
    n_iter_ : int
        Epochs that the net was trained.
    loss_ : float
        Loss of the last epoch.
    loss_curve_ : list of float
        Loss of each epoch.
    validation_loss_curve_ : list of float or None
        Loss of the part held out, in the epochs of the last fit; None without ``early_stopping``.
    history_ : History
        All that was measured in the last fit.

    See Also
    --------
    NetRegressor : A net that predicts numbers.

    Notes
    -----
    Weights of samples are scaled to a mean of 1, and samples of weight 0 are left out.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from xpnn.interop.sklearn import NetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = make_pipeline(StandardScaler(), NetClassifier(backend="numpy", random_state=0)).fit(X, y)
    >>> classifier.score(X, y) > 0.9
    True
    """

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
        class_weight: Any = None,
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
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a net.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)
        y : array-like of shape (n_samples,)
            Class labels: numbers or strings.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self : NetClassifier
        """
        goes_on = self._continues()
        X, y = self._checked(X, y, reset=not goes_on)
        labels = labels_of(y)
        classes = np.unique(labels)
        if goes_on:
            require_same_classes(self._labels, classes)
        weights = self._sample_weights(sample_weight, X, labels)
        require_two_classes(type(self).__name__, classes if weights is None else np.unique(labels[weights > 0.0]))
        self.classes_ = kept_at(self._home, classes)
        return self._train(X, self._codes(labels), weights, epochs=self.epochs, goes_on=goes_on)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one more epoch, on these samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), default=None
            All classes that will be seen, required in the first call.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self : NetClassifier
        """
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        goes_on = hasattr(self, "model_")
        known = all_classes(classes, self._labels if goes_on else None)
        require_two_classes(type(self).__name__, known)
        X, y = self._checked(X, y, reset=not goes_on)
        labels = labels_of(y)
        require_known(labels, known)
        if not goes_on:
            self.classes_ = kept_at(self._home, known)
        weights = self._sample_weights(sample_weight, X, labels)
        return self._train(X, self._codes(labels), weights, epochs=1, goes_on=goes_on)

    def predict(self, X: Any) -> Any:
        """The likeliest class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)

        Returns
        -------
        y : array of shape (n_samples,)
            Labels; of the library of X if scikit-learn dispatches and they are numbers, else of NumPy.
        """
        logits, X = self._outputs(X, "predict")
        b = self.model_.backend
        with b.context():
            index = b.xp.argmax(logits, axis=1)
        labels = self._labels
        if not is_dispatched(X) or labels.dtype.kind not in "iufb":
            return labels[b.to_numpy(index)]
        with b.context():
            return self._like(X, b.xp.take(b.asarray(labels), index, axis=0))

    def predict_proba(self, X: Any) -> Any:
        """Probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)

        Returns
        -------
        p : array of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        logits, X = self._outputs(X, "predict_proba")
        return self._like(X, Softmax(axis=1, backend=self.model_.backend).eval()(logits))

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithm of the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)

        Returns
        -------
        log_p : array of shape (n_samples, n_classes)
        """
        logits, X = self._outputs(X, "predict_log_proba")
        return self._like(X, LogSoftmax(axis=1, backend=self.model_.backend).eval()(logits))

    def decision_function(self, X: Any) -> Any:
        """Logits of the classes; of two classes the difference, which is positive for the second.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, channels, height, width)

        Returns
        -------
        scores : array of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        logits, X = self._outputs(X, "decision_function")
        if self.classes_.shape[0] == 2:
            with self.model_.backend.context():
                logits = logits[:, 1] - logits[:, 0]
        return self._like(X, logits)

    def _number_of_outputs(self) -> int:
        return int(self.classes_.shape[0])

    def _loss_and_targets(
        self, targets: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> tuple[Loss, NDArray[Any]]:
        if weights is None:
            return CrossEntropy(), targets
        # The loss of a target of probabilities is proportional to their sum, here the weight.
        shares = np.zeros((len(targets), self._number_of_outputs()))
        shares[np.arange(len(targets)), targets] = weights
        return CrossEntropy(), shares

    @property
    def _labels(self) -> NDArray[Any]:
        """``classes_`` on the host."""
        return self.classes_ if isinstance(self.classes_, np.ndarray) else to_host(self.classes_)

    def _codes(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        return np.searchsorted(self._labels, labels).astype(np.int64)

    def _sample_weights(self, sample_weight: Any, X: Array, labels: NDArray[Any]) -> NDArray[np.float64] | None:
        weights = self._weights(sample_weight, X)
        if self.class_weight is None:
            return weights
        of_classes: NDArray[np.float64] = compute_sample_weight(self.class_weight, labels)
        return of_classes if weights is None else weights * of_classes
