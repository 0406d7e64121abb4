"""Datasets of labelled images from files and folders, checked before anything is trained.

Nothing is downloaded or unpickled, and every size that a file claims is checked before it is used. From every source a
`Dataset` has images ``(N, C, H, W)`` in their stored dtype, a factor that scales them to at most 1, classes as integers
from 0, a held-out part that training never sees, and optionally a validation part.
"""

from ..images import Images
from .checks import DataError, check_labels
from .dataset import Dataset
from .sources import load_dataset

__all__ = ["DataError", "Dataset", "Images", "check_labels", "load_dataset"]
