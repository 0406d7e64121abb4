"""Put a net into a scikit-learn Pipeline, as an estimator of about thirty lines.

You learn that ``nn.fit`` and ``nn.predict`` accept NumPy arrays and return them, so that scaling, cross-validation and
grid search of scikit-learn work around a net. Every call of ``fit`` starts from the same seed, so results repeat.

Needs scikit-learn.
"""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import xpnn as nn


class NetClassifier(ClassifierMixin, BaseEstimator):
    """A small convolutional net for square grey images in rows of a table."""

    def __init__(self, channels: int = 8, lr: float = 5e-3, epochs: int = 3, backend: str = "numpy", seed: int = 0):
        self.channels, self.lr, self.epochs, self.backend, self.seed = channels, lr, epochs, backend, seed

    def fit(self, X: np.ndarray, y: np.ndarray) -> "NetClassifier":
        """Train a new net."""
        self.classes_, classes = np.unique(y, return_inverse=True)
        cells = X.shape[1] // 4 * self.channels
        self.net_ = nn.Sequential(
            nn.Conv2d(1, self.channels, 3, padding="same"),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dense(cells, len(self.classes_)),
            backend=self.backend,
            seed=self.seed,
        )
        optimizer = nn.Adam(self.net_, lr=self.lr)
        data = self._images(X), classes
        nn.fit(self.net_, data, optimizer=optimizer, epochs=self.epochs, seed=self.seed, progress=False)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probability of each class."""
        return nn.functional.softmax(nn.predict(self.net_, self._images(X)))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likeliest class of each row."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _images(self, X: np.ndarray) -> np.ndarray:
        side = int(X.shape[1] ** 0.5)
        return X.reshape(-1, 1, side, side).astype("float32")


def main() -> None:
    """Choose a learning rate by cross-validation, and test the pipeline that won."""
    x, y = load_digits(return_X_y=True)
    names = np.array([f"digit {k}" for k in y])
    x_train, x_test, y_train, y_test = train_test_split(x, names, test_size=0.25, random_state=0)
    pipeline = make_pipeline(MinMaxScaler(), NetClassifier())
    search = GridSearchCV(pipeline, {"netclassifier__lr": [1e-4, 5e-3]}, cv=2)
    search.fit(x_train, y_train)
    accuracy = search.score(x_test, y_test)
    print(f"best learning rate {search.best_params_['netclassifier__lr']}, {accuracy:.1%} of test images right")
    assert search.best_params_ == {"netclassifier__lr": 5e-3}
    assert accuracy > 0.9
    assert pipeline.fit(x_train, y_train).predict(x_test).shape == y_test.shape


if __name__ == "__main__":
    main()
