"""The tree from which the site is built: its packages, and the folder of pages that are written by the build."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
#: The folders of the package `xpnn`.
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def write_if_changed(path: Path, text: str) -> None:
    """Write a page, unless it has that text: Sphinx reads pages again that are newer than its own."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
