"""NumPy's archives of arrays, of which nothing is unpickled."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from .checks import DataError
from .dataset import Dataset, from_arrays


def load_npz(path: Path) -> Dataset:
    """Arrays ``x``, ``y`` and perhaps ``x_test``, ``y_test`` of an ``.npz`` file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "x_test", "y_test") if name in file.files}
            names = ", ".join(file.files) or "nothing"
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file of numbers ({error})") from None
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise DataError(f"{path} has no array {' and no '.join(missing)}; it holds {names}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{path} has only one of x_test and y_test")
    held_out = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
    return from_arrays(path.name, arrays["x"], arrays["y"], held_out)
