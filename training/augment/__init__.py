"""Transforms of batches of images on the host, before the transfer to the device: random changes and normalisation.

A transform is called with a batch ``(N, C, H, W)`` in float32 and a `Generator`. It returns a new batch of this form
and does not write to its arguments. All randomness comes from the generator. `DataLoader` makes one generator for each
batch of each pass, so a batch has the same bits on every backend, with or without threads and after an interruption.

Targets may have the height and width of the images: masks ``(N, H, W)`` or ``(N, K, H, W)``, or images to be restored.
Transforms that move pixels (`Flip`, `PadAndCrop`) then move those of the target in the same way. Transforms that change
only values (`Normalise`, `Cutout`) leave the target unchanged. A custom transform must declare what it does: a class
with a method ``pair(x, target, generator)`` changes both, a `Transform` with ``moves_pixels = False`` only the images.
Other transforms are refused for such targets.
"""

from .normalise import Normalise
from .random_changes import Cutout, Flip, PadAndCrop
from .transform import Compose, Transform

__all__ = ["Compose", "Cutout", "Flip", "Normalise", "PadAndCrop", "Transform"]
