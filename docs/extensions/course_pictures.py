"""Copy pictures of the course to where README shows them: ``python docs/extensions/course_pictures.py``.

A code host shows files of the tree only, and what the course draws is not part of it. Build the site first.
"""

import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
#: File in docs/pictures: the picture of a page of the course, by the number that sphinx-gallery gives it.
PICTURES = {
    "course-edges.png": "plot_01_images_and_kernels_005",
    "course-weights.png": "plot_04_dense_matrix_004",
    "course-backward.png": "plot_05_backward_004",
}


def main() -> None:
    """Replace the pictures by those of the last build."""
    for name, drawn in PICTURES.items():
        shutil.copyfile(DOCS / f"lessons/images/sphx_glr_{drawn}.png", DOCS / "pictures" / name)


if __name__ == "__main__":
    sys.exit(main())
