"""Image files decoded to arrays of bytes by Pillow."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...common.cores import available_cores
from ...common.files import file_size
from ..images import Index, positions
from .checks import DataError

T = TypeVar("T")
R = TypeVar("R")

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff"})
# Pillow may use only these decoders, whatever the first bytes of a file say.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N"})
# The EXIF tag for the orientation of the camera: 5 to 8 are a quarter turn.
ORIENTATION = 0x0112
# Images of more pixels are decoded one at a time: a thread needs about 10 bytes for each pixel.
LARGE = 1 << 24
_one_at_a_time = Lock()


@dataclass(frozen=True)
class Header:
    """Properties of an image that are read before it is decoded."""

    height: int
    width: int
    grey: bool


class Unreadable(Exception):
    """An image file that can't be decoded or is not accepted."""


def read_header(path: Path) -> Header:
    """Size of the upright image, and whether it is grey; raises `Unreadable`."""
    with _opened(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        width, height = reversed(image.size) if turned else image.size
        return Header(height, width, image.mode in GREY)


def decode(path: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """The upright image as ``(channels, height, width)``, stretched to that size; transparency is dropped."""
    with _opened(path) as image:
        # Decoding a JPEG to a half, quarter or eighth takes a fraction of the time.
        image.draft(image.mode, (2 * max(size), 2 * max(size)))
        with _one_at_a_time if image.width * image.height > LARGE else nullcontext():
            image.load()
            return pixels_of(image, size, channels)


def pixels_of(image: Any, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """The pixels of Pillow's image as `decode` returns them; raises `Unreadable`."""
    from PIL import ImageOps
    from PIL.Image import Resampling, fromarray

    height, width = size
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        # Pillow would clip these to 255.
        upright = fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise Unreadable(f"its pixels have 32 bits (mode {upright.mode}) and no known range")
    converted = upright.convert("L" if channels == 1 else "RGB")
    if converted.size != (width, height):
        converted = converted.resize((width, height), Resampling.BILINEAR)
    pixels = np.asarray(converted, np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ImageFiles:
    """Images in files, decoded when they are indexed, by one thread for each core.

    Parameters
    ----------
    paths : sequence of Path
    size : (int, int)
        Height and width.
    channels : int
        1 for grey, 3 for red, green and blue.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[Path], size: tuple[int, int], channels: int) -> None:
        self.paths, self.size, self.channels = tuple(paths), size, channels

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return len(self.paths), self.channels, *self.size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Index) -> NDArray[Any]:
        found, errors = self.read([self.paths[i] for i in positions(index, len(self)).tolist()])
        for path, error in errors:
            raise DataError(f"{path} can't be read ({error}); remove it and begin again")
        return found

    def read(self, paths: Sequence[Path]) -> tuple[NDArray[Any], list[tuple[Path, Unreadable]]]:
        """The images of all readable files, in order, and the error of each of the others."""
        found = np.empty((len(paths), self.channels, *self.size), np.uint8)
        results = on_threads(lambda i: self._read(paths[i], found[i]), range(len(paths)))
        good = [i for i, error in enumerate(results) if error is None]
        errors = [(path, error) for path, error in zip(paths, results, strict=True) if error is not None]
        return found if not errors else found[good], errors

    def _read(self, path: Path, target: NDArray[Any]) -> Unreadable | None:
        try:
            target[...] = decode(path, self.size, self.channels)
        except Unreadable as error:
            return error
        return None


def on_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``work(item)`` of each item, in order; Pillow releases the interpreter lock while it decodes."""
    threads = min(available_cores(), len(items))
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file as Pillow's image; any error within the block becomes `Unreadable`, with a message of one line."""
    from PIL import Image

    try:
        # Raises for a pipe, which `open` would wait for.
        file_size(path)
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and image.width * image.height > most:
                raise Unreadable(
                    f"{image.width} x {image.height} pixels, more than Pillow considers safe ({most}, "
                    "PIL.Image.MAX_IMAGE_PIXELS)"
                )
            yield image
    except Unreadable:
        raise
    except MemoryError:
        raise DataError(f"there is not enough memory to decode {path}") from None
    except Exception as error:
        # Decoders raise many kinds of errors: OSError, SyntaxError, struct.error, ValueError.
        raise Unreadable(_explained(error)) from None


def _explained(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image of a known format"
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(message.split()) or type(error).__name__
