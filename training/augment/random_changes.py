"""Random changes of training images: flips, shifts and squares cut out.

References
----------
T. DeVries, G. W. Taylor, "Improved regularization of convolutional neural networks with Cutout", 2017,
arXiv:1708.04552.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ...backends import Generator
from ...common import checks
from .transform import Batch, Transform


class Flip(Transform):
    """Exchange left and right in each image with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = checks.number("p", p, least=0, most=1)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws one number for each image."""
        return self._flip(x, self._draw(len(x), generator))

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """Flip image and target together."""
        self._require_images(x)
        chosen = self._draw(len(x), generator)
        return self._flip(x, chosen), self._flip(target, chosen)

    def _draw(self, n: int, generator: Generator) -> NDArray[np.bool_]:
        return np.asarray(generator.uniform((n,), dtype="float32", backend="numpy") < self.p)

    def _flip(self, batch: Batch, chosen: NDArray[np.bool_]) -> Batch:
        flipped = batch.copy()
        flipped[chosen] = batch[chosen, ..., ::-1]
        return flipped

    def __repr__(self) -> str:
        return f"Flip({self.p!r})"


class PadAndCrop(Transform):
    """Shift each image by up to ``padding`` pixels up or down and left or right, with zeros at the free edge.

    This is the same as padding the image with ``padding`` zeros on each side and cropping to the old size at a random
    position.

    Parameters
    ----------
    padding : int
        At least 0.
    target_fill : number
        The value at the free edge of a mask that is shifted together with its image, such as the ``ignore_index`` of
        the loss.
    """

    def __init__(self, padding: int = 4, *, target_fill: float = 0) -> None:
        self.padding = checks.integer("padding", padding, 0)
        self.target_fill = checks.number("target_fill", target_fill)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws a row and a column for each image."""
        rows, columns = self._draw(len(x), generator)
        return self._shift(x, rows, columns, 0)

    def pair(self, x: Batch, target: Batch, generator: Generator) -> tuple[Batch, Batch]:
        """Shift image and target together."""
        self._require_images(x)
        rows, columns = self._draw(len(x), generator)
        if target.dtype.kind in "iu" and not _holds(target.dtype, self.target_fill):
            raise ValueError(
                f"{self!r}: a target of {target.dtype.name} can't hold target_fill; give an integer in range"
            )
        return self._shift(x, rows, columns, 0), self._shift(target, rows, columns, self.target_fill)

    def _draw(self, n: int, generator: Generator) -> NDArray[np.int64]:
        return _draw_integers(generator, 2, n, 2 * self.padding + 1)

    def _shift(self, batch: Batch, rows: NDArray[np.int64], columns: NDArray[np.int64], fill: float) -> Batch:
        """Crop images ``(N, C, H, W)`` or masks ``(N, H, W)``, padded with ``fill``, at these rows and columns."""
        x = batch if batch.ndim > 3 else batch[:, None]
        height, width = x.shape[2:]
        edge = self.padding
        padded = np.full((*x.shape[:2], height + 2 * edge, width + 2 * edge), fill, x.dtype)
        padded[:, :, edge : edge + height, edge : edge + width] = x
        crops = sliding_window_view(padded, (height, width), axis=(2, 3))
        return np.ascontiguousarray(crops[np.arange(len(x)), :, rows, columns]).reshape(batch.shape)

    def __repr__(self) -> str:
        return f"PadAndCrop({self.padding}{f', target_fill={self.target_fill!r}' if self.target_fill else ''})"


class Cutout(Transform):
    """Set a square of ``size`` pixels to zero in each image, at a random centre and cropped at the image's edges.

    Masks are unchanged.
    """

    moves_pixels = False

    def __init__(self, size: int) -> None:
        self.size = checks.integer("size", size, 1)

    def apply(self, x: Batch, generator: Generator) -> Batch:
        """Draws a row and a column for each image."""
        n, _, height, width = x.shape
        centre_rows, centre_columns = _draw_integers(generator, 2, n, np.array([[height], [width]]))
        inside = self._covers(centre_rows, height)[:, :, None] & self._covers(centre_columns, width)[:, None, :]
        return np.where(inside[:, None], np.zeros((), x.dtype), x)

    def _covers(self, centres: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
        """For each image, which of ``n`` rows or columns its square covers."""
        first = centres[:, None] - self.size // 2
        pixels = np.arange(n)
        return (first <= pixels) & (pixels < first + self.size)

    def __repr__(self) -> str:
        return f"Cutout({self.size})"


def _holds(dtype: Any, value: float) -> bool:
    """Whether an integer dtype represents a value exactly."""
    limits = np.iinfo(dtype)
    return int(value) == value and limits.min <= value <= limits.max


def _draw_integers(generator: Generator, draws: int, n: int, below: Any) -> NDArray[np.int64]:
    """Uniform integers ``(draws, n)`` from 0 to ``below - 1``; ``below`` must fit in 32 bits."""
    integers: NDArray[np.int64] = (generator.bits((draws, n), "numpy") * below) >> 32
    return integers
