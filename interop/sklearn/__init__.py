"""Nets as estimators of scikit-learn: `NetClassifier` and `NetRegressor`.

This package trains, so it stands above `xpnn.training`. It is imported by its name only, as scikit-learn takes a second
to load: ``from xpnn.interop.sklearn import NetClassifier``.
"""

from importlib import import_module

try:
    import_module("sklearn")
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "xpnn.interop.sklearn needs scikit-learn: pip install 'scikit-learn>=1.6'", name=error.name
    ) from None

from .classifier import NetClassifier
from .regressor import NetRegressor

__all__ = ["NetClassifier", "NetRegressor"]
