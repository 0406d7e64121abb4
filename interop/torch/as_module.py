"""A model as a layer of a PyTorch net: `as_torch_module`."""

from __future__ import annotations

from typing import Any

from ...common import checks
from ...layers.core.layer import Layer
from ..packages import torch_for


def as_torch_module(model: Layer) -> Any:
    """A module of PyTorch whose forward and backward are the model's, without a copy of any array.

    Parameters of the module are tensors in the memory of the model's, with the same names, so optimizers of PyTorch
    train the model; gradients arrive in their ``grad``. The module may stand within other modules. Batch norm and
    dropout follow ``train()`` and ``eval()``. A pickle or a copy of the module has a copy of the model.

    Parameters
    ----------
    model : Layer
        On NumPy for tensors on the CPU, on CuPy for those on the same GPU, or on a backend of PyTorch. What it computes
        there is in the model's dtype and numerics.

    Returns
    -------
    torch.nn.Module
        Called with one tensor, or one for each input of the model. Its attribute ``model`` is the model.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch is not installed.
    TypeError, ValueError
        If it is not a layer; from the module for inputs that the model does not accept.
    RuntimeError
        From backward, for a second derivative; after an input, a parameter or an output that a layer keeps was changed
        in place; after the model set a parameter to another array; and if the model was called again since its forward
        and has one layer in several places. From the module, if a parameter was replaced by another tensor, set to one
        of another shape, dtype or device, or set to other arrays on both sides. From ``to``, ``cuda``, ``double`` and
        so on: the model must be moved before.

    Notes
    -----
    Unlike `to_torch`, which makes a net of PyTorch's own modules, this computes with the layers themselves, in exact
    numerics too.
    """
    torch_for("as_torch_module")
    checks.instance("model", model, Layer)
    # Imports PyTorch.
    from .wrapped import ModelModule

    return ModelModule(model)
