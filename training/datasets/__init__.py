"""Labelled images from where people have them, checked before anything is trained.

Nothing is downloaded, nothing is unpickled, and no size that a file claims is believed. Whatever the source, a
`Dataset` holds images ``(N, C, H, W)`` as they are stored, one number that scales them to at most 1, classes as
integers from 0, a held-out part that training never sees, and perhaps a part for choosing.
"""

from ..images import Images
from .checks import DataError, check_labels
from .dataset import Dataset
from .sources import load_dataset

__all__ = ["DataError", "Dataset", "Images", "check_labels", "load_dataset"]
