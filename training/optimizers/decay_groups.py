"""Groups that leave biases and norms out of weight decay."""

from typing import Any

from ...common import checks
from ...layers.core.layer import Layer
from ...layers.core.parameter import Parameter
from ...layers.normalisation.norm import Norm
from ...layers.normalisation.rms_norm import RMSNorm
from .parameters import trainable


def decay_groups(model: Layer, weight_decay: float = 0.01) -> list[dict[str, Any]]:
    """Two groups for an optimizer, so that biases and the parameters of norms do not decay.

    ``nn.AdamW(nn.decay_groups(model, weight_decay=0.05), lr=1e-3)``.

    Parameters
    ----------
    model : Layer
    weight_decay : float
        Of the first group, at least 0.

    Returns
    -------
    list of dict
        ``{"params": names with Parameters, "weight_decay": weight_decay}``, and the same with 0 for all parameters
        called ``bias`` (or ``..._bias``) and all of normalisation layers. A parameter of two layers is in the second
        group if one of its names belongs there.

    Raises
    ------
    ValueError
        If ``weight_decay`` is out of range, or the model has no parameters.
    """
    checks.instance("model", model, Layer)
    weight_decay = checks.number("weight_decay", weight_decay, least=0)
    every = trainable(model, "decay_groups")
    spared = {
        parameter
        for prefix, layer in model.named_layers()
        for name, parameter in layer.parameters.items()
        if isinstance(layer, Norm | RMSNorm) or name.endswith("bias")
    }
    parts: list[dict[str, Parameter]] = [
        {name: each for name, each in every.items() if (each in spared) == is_spared} for is_spared in (False, True)
    ]
    return [{"params": parts[0], "weight_decay": weight_decay}, {"params": parts[1], "weight_decay": 0.0}]
