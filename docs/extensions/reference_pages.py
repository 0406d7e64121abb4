"""The reference: a page for each idea of the library, from the docstrings of its files.

A page has the formula (the docstring of the module), functions with their gradients, classes, and the backends on which
each was tested, from `docs/catalogue.md`. Signatures carry the file and line of their definition.
"""

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docutils import nodes
from reference_families import FAMILIES
from site_tree import REFERENCE, write_if_changed
from sphinx import addnodes
from sphinx.application import Sphinx
from tree_links import DOCS, defined, place_of, relative

import xpnn as nn
from xpnn.common import other_names
from xpnn.interop import sklearn as estimators

#: Public families that `nn.__all__` does not have, by the module that users import.
FURTHER = {"models.torchvision": nn.models.torchvision, "interop.sklearn": estimators}


@dataclass
class Page:
    """A page of the reference: the full names on it, and the modules whose docstrings it begins with."""

    title: str
    modules: list[str]
    names: list[str] = field(default_factory=list)

    @property
    def docname(self) -> str:
        """The name of its file, without folder and ending."""
        return re.sub(r"\W+", "_", self.title.lower())


def public_names() -> Iterator[tuple[str, Any, str]]:
    """Triples of full name, object, and the module that defines it."""
    holders = {name: getattr(nn, name) for name in nn.__all__ if inspect.ismodule(getattr(nn, name))} | FURTHER
    found = {f"xpnn.{name}": (getattr(nn, name), nn.__name__) for name in nn.__all__ if name not in holders}
    for short, module in holders.items():
        for name in other_names.public(module):
            found[f"xpnn.{short}.{name}"] = getattr(module, name), module.__name__
    for name, (value, holder) in found.items():
        home = getattr(inspect.unwrap(value), "__module__", holder) if callable(value) else holder
        yield name, value, "xpnn.interop.sklearn" if name.startswith("xpnn.interop.sklearn.") else home


def pages() -> dict[str, list[Page]]:
    """All pages by family; raises `LookupError` for a public name that is on none, or a page that is empty."""
    places: dict[str, Page] = {}
    made: dict[str, list[Page]] = {}
    for family, titles in FAMILIES.items():
        for title, keys in titles.items():
            modules = list(dict.fromkeys("xpnn." + key.partition(":")[0] for key in keys.split()))
            made.setdefault(family, []).append(page := Page(title, modules))
            places.update({f"xpnn.{key}": page for key in keys.split()})
    for name, _, module in sorted(public_names(), key=line_of):
        # Two public names for one class would be two entries of the index.
        candidates = (key for key in places if key == module or (key.startswith(module + ":") and fits(name, key)))
        key = next(candidates, None)
        if key is None:
            raise LookupError(f"no page in docs/extensions/reference_families.py has {name}, of {module}")
        places[key].names.append(name)
    for page in (each for group in made.values() for each in group):
        if not page.names:
            raise LookupError(f"the page {page.title!r} of docs/extensions/reference_families.py has no public name")
    return made


def fits(name: str, key: str) -> bool:
    """Whether a name begins as the key of a page says."""
    return name.rpartition(".")[2].startswith(key.partition(":")[2])


def line_of(entry: tuple[str, Any, str]) -> tuple[str, int, str]:
    """Sorts names by module and line of definition."""
    name, value, module = entry
    place = place_of(value)
    return module, int(place[1][2:] or 0) if place else 0, name


def base_with_parameters(value: type) -> type | None:
    """The class whose docstring explains the arguments of a class that has no list of them itself."""
    for each in value.__mro__:
        if re.search(r"^\s*Parameters\n\s*-+$", each.__dict__.get("__doc__") or "", re.M):
            return each if each is not value and each.__module__.startswith("xpnn.") else None
        if "__init__" in each.__dict__:
            return None
    return None


def own_members(value: type) -> list[str]:
    """Public methods and properties with a docstring, of a class and of its bases that have no entry; no overrides."""
    public = [base for base in value.__mro__[1:] if is_public(base)]
    elsewhere = {inner for base in public for inner in base.__mro__}
    found: dict[str, None] = {}
    for each in value.__mro__:
        for name, member in vars(each).items() if each not in elsewhere else ():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            # What another library adds, such as scikit-learn's methods for metadata, is in its documentation.
            own = inspect.isfunction(function) and function.__module__.startswith("xpnn.") and function.__doc__
            overrides = any(hasattr(base, name) for base in public)
            if own and function.__name__ == name and not name.startswith("_") and not overrides:
                found[name] = None
    return list(found)


def body(page: Page, tested: dict[str, dict[str, str]], cases: Counter[str]) -> str:
    """The text of a page in reStructuredText."""
    lines = [page.title, "=" * len(page.title), ""]
    for module in page.modules:
        found = importlib.import_module(module)
        docstring = inspect.cleandoc(found.__doc__ or "")
        if len(page.modules) == 1 or "\n\n" in docstring:
            lines += [f".. py:currentmodule:: {module}", "", docstring, ""]
    files = ", ".join(f":tree:`{source_of(module)}`" for module in page.modules)
    lines += [f"Source: {files}", "", ".. py:currentmodule:: xpnn", ""]
    shown = set()
    order = sorted(page.names, key=lambda name: page.modules.index(home_of(name, page)))
    # Functions first: layers are made of them, and refer to them.
    for name in sorted(order, key=lambda name: inspect.isclass(defined(name))):
        value = defined(name)
        if inspect.isclass(value):
            if (base := base_with_parameters(value)) and base not in shown and not is_public(base):
                lines += [f".. autoclass:: {base.__module__}.{base.__qualname__}", ""]
                shown.add(base)
            lines += [f".. autoclass:: {name}"]
            if listed := own_members(value):
                lines += [f"   :members: {', '.join(listed)}"]
            lines += [""]
        else:
            lines += [f".. auto{'function' if callable(value) else 'data'}:: {name}", ""]
    rows = [(short, tested[short]) for name in page.names if (short := name.rpartition(".")[2]) in tested]
    if rows:
        columns = list(rows[0][1])
        lines += ["Tested on", "---------", ""]
        lines += ["Forward and all gradients, or a hundred steps, compared with float64 (:doc:`/catalogue`).", ""]
        lines += [".. list-table::", "   :header-rows: 1", ""]
        lines += row(["", "cases", *columns])
        for short, backends in rows:
            lines += row([f"``{short}``", str(cases[short]), *(backends[column] for column in columns)])
        lines += ["", "CuPy is tested with the same cases on an emulated device (:doc:`/gpu`).", ""]
    return "\n".join(lines)


def row(cells: list[str]) -> list[str]:
    """Lines of one row of a list-table."""
    return ["   * - " + cells[0], *("     - " + cell for cell in cells[1:])]


def home_of(name: str, page: Page) -> str:
    """The module of the page that defines a name."""
    home = getattr(inspect.unwrap(value), "__module__", "") if callable(value := defined(name)) else ""
    return home if home in page.modules else page.modules[-1]


def is_public(value: type) -> bool:
    """Whether a class has an entry of its own."""
    return getattr(nn, value.__name__, None) is value


def source_of(module: str) -> str:
    """The path in the tree of a module."""
    path = Path(importlib.import_module(module).__file__ or "").resolve()
    return path.relative_to(DOCS.parent).as_posix()


def catalogue() -> dict[str, dict[str, str]]:
    """What `docs/catalogue.md` says: for each subject the dtypes by backend."""
    lines = [line for line in (DOCS / "catalogue.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    header, _, *rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {name: dict(zip(header[1:], cells, strict=True)) for name, *cells in rows}


def write(app: Sphinx) -> None:
    """Write the pages whose text has changed, and remove those that are no more."""
    tested, made = catalogue(), pages()
    cases = Counter(case.subject for case in nn.testing.cases())
    texts = {page.docname: body(page, tested, cases) for group in made.values() for page in group}
    texts["index"] = index(made)
    for path in REFERENCE.glob("*.rst"):
        if path.stem not in {*texts, "messages", "command"}:
            path.unlink()
    for name, text in texts.items():
        write_if_changed(REFERENCE / f"{name}.rst", text)


def index(made: dict[str, list[Page]]) -> str:
    """The first page: all public names, by family and page."""
    lines = [
        "Reference",
        "=========",
        "",
        "Every public name after ``import xpnn as nn``, by family; also :ref:`by name <genindex>`.",
        "",
    ]
    for family, group in made.items():
        lines += [family, "-" * len(family), "", ".. list-table::", "   :widths: 30 70", ""]
        for page in group:
            lines += row([f":doc:`{page.docname}`", ", ".join(map(link, page.names))])
        lines += ["", ".. toctree::", "   :hidden:", "   :caption: " + family, ""]
        lines += [f"   {page.docname}" for page in group] + [""]
    lines += [
        *("The command and messages", "-" * 24, "", ".. toctree::", "   :caption: The command and messages", ""),
        *("   command", "   messages", ""),
    ]
    return "\n".join(lines)


def link(name: str) -> str:
    """A link to a public name, which is shown as users write it."""
    short = name.removeprefix("xpnn.")
    return f":py:obj:`{short if '.' in short else 'nn.' + short} <{name}>`"


def add_lines(app: Sphinx, doctree: nodes.document) -> None:
    """Put the file and line of a definition behind each signature of the reference."""
    docname = app.env.docname
    if not docname.startswith("reference/") or app.builder.format != "html":
        return
    for signature in doctree.findall(addnodes.desc_signature):
        full = ".".join(filter(None, (signature.get("module"), signature.get("fullname"))))
        if place := place_of(defined(full)):
            page, anchor = place
            path = page.removeprefix("source/") + ".py"
            link = nodes.reference("", "", internal=True, refuri=relative(app, docname, page, anchor))
            link += nodes.inline("", f"{path}:{anchor[2:]}" if anchor else path, classes=["source-line"])
            signature += link


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    app.connect("doctree-read", add_lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
