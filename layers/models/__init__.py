"""Models by name, built from the shape of an image and the number of classes; `torchvision` has published ones."""

from collections.abc import Callable

from ..core.layer import Layer
from . import torchvision as torchvision
from .lenet import lenet, lenet5
from .mlp import mlp
from .mobilenet import mobilenet_v2
from .resnet import resnet18
from .unet import unet
from .vgg import vgg11_bn
from .vit import vit

#: The models that classify images.
BUILDERS: dict[str, Callable[..., Layer]] = {
    "lenet": lenet,
    "lenet5": lenet5,
    "mlp": mlp,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "vgg11_bn": vgg11_bn,
    "vit": vit,
}

__all__ = ["BUILDERS", "lenet", "lenet5", "mlp", "mobilenet_v2", "resnet18", "unet", "vgg11_bn", "vit"]
