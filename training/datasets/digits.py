"""The handwritten digits that come with scikit-learn."""

from .checks import DataError
from .dataset import Dataset, from_arrays


def load_digits(classes: int | None = None) -> Dataset:
    """1,797 grey images, 8 x 8, of ten classes."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise DataError(
            f"the digits come with scikit-learn, which is not installed ({error}): pip install 'scikit-learn>=1.4'"
        ) from None
    bunch = load()
    return from_arrays("digits", bunch.images, bunch.target, None, classes=classes)
