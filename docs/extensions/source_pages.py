"""A page for each file of Python in the tree, with an anchor for each line: ``source/layers/dense.html#L-20``.

Documentation points at files and lines of the tree that it was built from, wherever that is, and so needs no address of
a code host.
"""

from collections.abc import Iterator
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from site_tree import PACKAGES, ROOT
from sphinx.application import Sphinx

FOLDERS = (*PACKAGES, "examples")


def files() -> list[str]:
    """Paths in the tree of all files that have a page."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "__init__.py", *found])


def page_of(path: str) -> str | None:
    """The name of the page of a file or folder of the tree, if it has one."""
    path = path.strip("/")
    if (ROOT / path).is_dir():
        return f"source/{path}/index" if path.split("/")[0] in FOLDERS else None
    inside = path == "__init__.py" or path.split("/")[0] in FOLDERS
    return "source/" + path.removesuffix(".py") if inside and path.endswith(".py") and (ROOT / path).is_file() else None


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """What Sphinx writes in addition to the documents: files, and lists of folders."""
    formatter = HtmlFormatter(linenos="inline", linespans="L", cssclass="highlight source")
    folders: dict[str, list[str]] = {}
    for path in files():
        name = page_of(path)
        code = highlight((ROOT / path).read_text(encoding="utf-8"), PythonLexer(stripnl=False), formatter)
        folder, _, last = path.rpartition("/")
        folders.setdefault(folder, []).append(last)
        yield name, {"title": path, "body": f'<h1 class="path">{path}</h1>{code}', "parents": []}, "page.html"
    for folder, names in folders.items():
        if folder:
            links = "".join(f'<li><a href="{name.removesuffix(".py")}.html">{name}</a></li>' for name in names)
            body = f'<h1 class="path">{folder}/</h1><ul>{links}</ul>'
            yield f"source/{folder}/index", {"title": folder, "body": body, "parents": []}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
