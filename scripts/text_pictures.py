"""Pictures made of characters, for whatever terminal there is."""

import sys
from typing import Any

import numpy as np

_LARGEST, _BAR = 32, 30
_SHADES, _PLAIN_SHADES = " ░▒▓█", " .:+#"


def picture(image: np.ndarray[Any, Any]) -> str:
    """An image ``(C, H, W)`` in shades, two characters a pixel; empty where it is larger than 32 x 32."""
    if max(image.shape[1:]) > _LARGEST:
        return ""
    grey = image.astype(np.float64).mean(axis=0)
    low, high = float(grey.min()), float(grey.max())
    shades = _SHADES if _can_print(_SHADES) else _PLAIN_SHADES
    levels = np.rint((grey - low) * ((len(shades) - 1) / ((high - low) or 1.0))).astype(int)
    return "\n".join("".join(2 * shades[level] for level in row).rstrip() for row in levels)


def bar(share: float) -> str:
    """A bar for a share of 1."""
    return ("█" if _can_print("█") else "#") * round(share * _BAR)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
