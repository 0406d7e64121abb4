"""Puts MathJax beside the pages, so that formulas need no network.

The package sphinx-mathjax-offline has all of MathJax 3, 24 MB. A page loads one program of it and the fonts that it
shows, which are 1.5 MB together; nothing else is copied.
"""

import importlib.metadata
import shutil
from pathlib import Path

from sphinx.application import Sphinx

PACKAGE = "sphinx-mathjax-offline"
WITHIN = f"{PACKAGE}/static/mathjax/"


def copy(app: Sphinx, error: Exception | None) -> None:
    """Copy the program and its fonts to where ``mathjax_path`` says."""
    if error or app.builder.format != "html":
        return
    for file in importlib.metadata.files(PACKAGE) or ():
        name = file.as_posix().removeprefix(WITHIN)
        if name == "tex-chtml.js" or name.startswith("output/chtml/fonts/"):
            target = Path(app.outdir, "_static/mathjax", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
