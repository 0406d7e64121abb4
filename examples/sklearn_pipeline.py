"""Put a net into a scikit-learn Pipeline.

You learn that a net of your own, a function of a sample's shape and the number of outputs, is an estimator with
`NetClassifier`, so that scaling, cross-validation and grid search of scikit-learn work around it. With a
``random_state`` results repeat.

Needs scikit-learn.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import xpnn as nn
from xpnn.interop.sklearn import NetClassifier


def small_net(sample: tuple[int, ...], outputs: int) -> nn.Sequential:
    """A convolutional net for square grey images in rows of a table."""
    side = int(sample[0] ** 0.5)
    return nn.Sequential(
        nn.Reshape(1, side, side),
        nn.Conv2d(1, 8, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(8 * (side // 2) ** 2, outputs),
    )


def main() -> None:
    """Choose a learning rate by cross-validation, and test the pipeline that won."""
    x, y = load_digits(return_X_y=True)
    x, names = x.astype("float32"), np.array([f"digit {k}" for k in y])
    x_train, x_test, y_train, y_test = train_test_split(x, names, test_size=0.25, random_state=0)
    net = NetClassifier(small_net, epochs=3, backend="numpy", random_state=0)
    pipeline = make_pipeline(MinMaxScaler(), net)
    search = GridSearchCV(pipeline, {"netclassifier__lr": [1e-4, 5e-3]}, cv=2)
    search.fit(x_train, y_train)
    accuracy = search.score(x_test, y_test)
    print(f"best learning rate {search.best_params_['netclassifier__lr']}, {accuracy:.1%} of test images right")
    assert search.best_params_ == {"netclassifier__lr": 5e-3}
    assert accuracy > 0.9
    assert pipeline.fit(x_train, y_train).predict(x_test).shape == y_test.shape


if __name__ == "__main__":
    main()
