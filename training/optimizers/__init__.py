"""Optimizers: update rules in order of complexity, one file each, on a common base, and gradient clipping.

A new optimizer is a file with a subclass of `Optimizer` (`base.py` says which methods it defines) and a line in each
of the lists here; its name in `OPTIMIZERS` is that of ``xpnn train --optimizer``.
"""

from .adagrad import Adagrad
from .adam import Adam, AdamW
from .base import Optimizer
from .clipping import clip_grad_norm, clip_grad_value
from .rmsprop import RMSprop
from .sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm", "clip_grad_value"]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}
