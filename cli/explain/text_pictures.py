"""Pictures and bars made of characters, in ASCII if the terminal has no other."""

from typing import Any

import numpy as np

from ...common.terminal import can_print, columns

_LARGEST, _BAR = 32, 30
_SHADES, _PLAIN_SHADES = " ░▒▓█", " .:+#"


def picture(image: np.ndarray[Any, Any]) -> str:
    """An image ``(C, H, W)`` in shades of grey, two characters for a pixel.

    Empty for images above 32 x 32, and for those that are wider than the terminal.
    """
    if max(image.shape[1:]) > _LARGEST or 2 * image.shape[2] > (columns() or 2 * _LARGEST):
        return ""
    grey = image.astype(np.float64).mean(axis=0)
    low, high = float(grey.min()), float(grey.max())
    shades = _SHADES if can_print(_SHADES) else _PLAIN_SHADES
    levels = np.rint((grey - low) * ((len(shades) - 1) / ((high - low) or 1.0))).astype(int)
    return "\n".join("".join(2 * shades[level] for level in row).rstrip() for row in levels)


def bar(share: float) -> str:
    """A bar for a share between 0 and 1."""
    return ("█" if can_print("█") else "#") * round(share * _BAR)
