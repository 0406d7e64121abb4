"""A trained net in the folder of a run: its weights, its description, and new images prepared as in training."""

from .classifier import Classifier
from .loading import load_classifier

__all__ = ["Classifier", "load_classifier"]
