"""Fit and predict arrays of a backend under array_api_dispatch; prints what `test_sklearn_dispatch.py` asserts."""

import json
import sys

import numpy as np
import sklearn

import xpnn as nn
from xpnn.interop.sklearn import NetClassifier, NetRegressor

FEATURES = 500


def main(spec: str) -> None:
    """Print the results as JSON."""
    b = nn.get_backend(spec)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, FEATURES))
    y = (x[:, 0] + x[:, 1] > 0).astype("int64")
    there, labels = b.asarray(x), b.asarray(y)
    settings = {"epochs": 2, "random_state": 0}
    found = {"bytes of x": x.nbytes}
    with sklearn.config_context(array_api_dispatch=True):
        before = b.transfers
        classifier = NetClassifier(**settings).fit(there, labels)
        results = [classifier.predict(there), classifier.predict_proba(there), classifier.decision_function(there)]
        regressor = NetRegressor(**settings).fit(there, b.asarray(x[:, :2]))
        results += [regressor.predict(there), classifier.classes_, regressor.y_mean_]
        found["bytes to host"] = b.transfers["to_host"][1] - before["to_host"][1]
        found["bytes to device"] = b.transfers["to_device"][1] - before["to_device"][1]
        found["kinds"] = [type(each) is type(there) for each in results]
        text = NetClassifier(**settings).fit(there, np.array(["no", "yes"])[y]).predict(there)
        found["text"] = sorted({str(each) for each in text}) if isinstance(text, np.ndarray) else []
        try:
            classifier.predict(x)
        except ValueError as error:
            found["refused"] = str(error)
    here = NetClassifier(backend="numpy", **settings).fit(x, y)
    numbers = NetRegressor(backend="numpy", **settings).fit(x, x[:, :2])
    pairs = [(results[1], here.predict_proba(x)), (results[3], numbers.predict(x))]
    found["labels equal"] = b.to_numpy(results[0]).tolist() == here.predict(x).tolist()
    found["largest difference"] = max(float(np.abs(b.to_numpy(p) - q).max()) for p, q in pairs)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
