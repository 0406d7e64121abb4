"""New images for a trained net, prepared as those of training: files, folders, arrays, Pillow's images.

A picture is stretched to the size of the net's images, turned upright and converted to its channels, as in a folder of
training images. Its bytes are multiplied by the factor of training if that had bytes too, and otherwise by 1/255, so
that white is the largest value of training. An array of another dtype holds values of the training data before they
are scaled, in the net's size.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends import to_host
from ...common import checks
from ..datasets.checks import DataError
from ..datasets.decode import ENDINGS, Unreadable, decode, pixels_of
from ..datasets.folder_layout import images_below

# Training data whose largest value is at least this is taken to be bytes.
_BYTES = 128.0


@dataclass(frozen=True)
class NewImage:
    """One image to classify: the name by which it is reported, and a path, an array ``(H, W, C)``... or an image."""

    name: str
    source: Any


class Preparation:
    """What training did to an image ``(C, H, W)``, except normalisation.

    Parameters
    ----------
    image : (int, int, int)
        Channels, height and width.
    scale : float
        The factor of training, one over the largest value of its data or 1/255.
    """

    def __init__(self, image: tuple[int, int, int], scale: float) -> None:
        self.image, self.scale = image, scale
        #: About the largest value of the training data.
        self.largest = 1.0 / scale
        self.byte_scale = scale if _BYTES <= self.largest <= 255.5 else 1.0 / 255.0

    def __call__(self, item: NewImage) -> NDArray[np.float32]:
        """The image in float32, scaled.

        Raises
        ------
        Unreadable
            If it can't be used; the message says why.
        """
        channels, height, width = self.image
        if isinstance(item.source, Path):
            self._require_colours()
            return self._scaled(decode(item.source, (height, width), channels), self.byte_scale)
        if _is_pillow(item.source):
            self._require_colours()
            try:
                pixels = pixels_of(item.source, (height, width), channels)
            except (OSError, ValueError, SyntaxError) as error:
                raise Unreadable(" ".join(str(error).split())) from None
            return self._scaled(pixels, self.byte_scale)
        return self._of_array(item.source)

    def _of_array(self, array: NDArray[Any]) -> NDArray[np.float32]:
        channels, height, width = self.image
        if array.dtype.kind not in "uif":
            raise Unreadable(f"an image holds integers or floats, got {array.dtype}")
        if array.size == 0:
            raise Unreadable(f"the image is empty, of shape {array.shape}")
        is_picture = array.dtype == np.uint8
        planes = self._channels_first(array, is_picture)
        most = float(np.max(array))
        if is_picture:
            if self.largest < _BYTES and 0.0 < most <= self.largest:
                raise Unreadable(
                    f"bytes up to {most:g}, and the net was trained on values up to {self.largest:g}: it is not clear "
                    "whether 255 is white; give floats for values of the training data, or a Pillow image for a picture"
                )
            if planes.shape != self.image:
                self._require_colours()
                planes = _resized(planes, (height, width), channels)
            return self._scaled(planes, self.byte_scale)
        if planes.shape != self.image:
            raise Unreadable(
                f"the array has shape {array.shape}, the net's images are {channels} x {height} x {width}; only bytes "
                "(uint8) are resized"
            )
        with np.errstate(over="ignore"):
            narrow = planes.astype(np.float32)
        if not np.isfinite(narrow).all():
            raise Unreadable("the array holds NaN or infinite values")
        if self.largest >= _BYTES and array.dtype.kind == "f" and 0.0 < most <= 1.0:
            raise Unreadable(
                f"floats up to {most:g}, and the net was trained on values up to {self.largest:g}: multiply by 255, or "
                "give bytes (uint8)"
            )
        return self._scaled(planes, self.scale)

    def _channels_first(self, array: NDArray[Any], is_picture: bool) -> NDArray[Any]:
        """``(C, H, W)`` of an array in that form, ``(H, W, C)`` or ``(H, W)``."""
        if array.ndim == 2:
            return array[None]
        last = (1, 3, 4) if is_picture else (self.image[0],)
        if array.shape == self.image or (array.shape[-1] not in last and array.shape[0] in (1, self.image[0])):
            return array
        if array.shape[-1] in last:
            return array.transpose(2, 0, 1)
        raise Unreadable(
            f"the array has shape {array.shape}; an image is (H, W, C), (H, W), or {self.image} as the net was trained"
        )

    def _require_colours(self) -> None:
        if self.image[0] not in (1, 3):
            raise Unreadable(f"the net's images have {self.image[0]} channels, a picture has 1 or 3; give arrays")

    def _scaled(self, planes: NDArray[Any], scale: float) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.multiply(planes, scale, dtype=np.float32, casting="same_kind")
        return found


def listed_images(items: Any) -> list[NewImage]:
    """All images of an argument: one item or several; the images of a folder in sorted order, with those below.

    Raises
    ------
    FileNotFoundError
        For a path that is not there.
    DataError
        For a folder without images.
    TypeError, ValueError
        For anything that is no image.
    """
    every = list(items) if isinstance(items, list | tuple | Iterator) else [items]
    return [found for number, item in enumerate(every) for found in _listed(item, number)]


def _listed(item: Any, number: int) -> Iterator[NewImage]:
    if isinstance(item, str | os.PathLike):
        path = Path(os.fsdecode(item))
        if path.is_dir():
            files = images_below(path)
            if not files:
                raise DataError(f"{path} holds no image ({', '.join(sorted(ENDINGS))})")
            yield from (NewImage(str(file), file) for file in files)
        elif not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        else:
            yield NewImage(str(path), path)
    elif _is_pillow(item):
        yield NewImage(f"image {number}", item)
    elif hasattr(item, "shape") and hasattr(item, "dtype"):
        array = to_host(item)
        if array.ndim not in (2, 3, 4):
            raise ValueError(f"an image is (H, W, C), (H, W) or (C, H, W), several are (N, ...), got {array.shape}")
        if array.ndim == 4:
            yield from (NewImage(f"image {number}[{i}]", each) for i, each in enumerate(array))
        else:
            yield NewImage(f"image {number}", array)
    else:
        raise TypeError(f"items are paths, folders, arrays or Pillow images, got {checks.shown(item)}")


def _is_pillow(item: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "PIL" for kind in type(item).__mro__) and hasattr(item, "getexif")


def _resized(planes: NDArray[Any], size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Bytes ``(C, H, W)`` as a picture of the net's size and channels."""
    try:
        from PIL.Image import fromarray
    except ImportError as error:
        raise Unreadable(
            f"pictures are resized by Pillow, which is not installed ({error}): pip install 'pillow>=10.1'"
        ) from None
    if planes.shape[0] not in (1, 3, 4):
        raise Unreadable(f"a picture has 1, 3 or 4 channels, got {planes.shape[0]}")
    pixels = planes[0] if planes.shape[0] == 1 else planes.transpose(1, 2, 0)
    return pixels_of(fromarray(np.ascontiguousarray(pixels)), size, channels)
