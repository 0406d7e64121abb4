"""Links from names to where they are defined, without marks in the text.

- A link of a Markdown page to a file outside of ``docs/`` leads to the page of that file.
- A path of the tree in code, ``layers/dense.py``, leads to its page, and a public name, ``nn.Dense``, to the reference.
- A name in a docstring that the reference does not have, `xpnn.layers.windows.geometry`, leads to its line.
"""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from site_tree import ROOT
from source_pages import page_of
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)(#[^)\s]*)?\)")
#: Pages of the site that are files of the root of the tree.
ROOT_PAGES = {"README.md": "index", "CONTRIBUTING.md": "contributing"}
#: Folders whose first page is written when the site is built.
GENERATED = {"docs/course": "lessons/index.rst"}
NAME = re.compile(r"(?:nn|xpnn)((?:\.[A-Za-z]\w*)+)(?:\(.*\))?")


def rewrite_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn links to files that are no pages of Sphinx into links to their pages."""
    path = Path(app.env.doc2path(docname))
    # Programs of the course name each other by their folder in the tree, where readers of a program find them.
    if docname.startswith("lessons/"):
        source[0] = source[0].replace("sphx_glr_course_", "sphx_glr_lessons_")
    if path.suffix != ".md":
        return
    folder = path.parent
    if docname == "contributing":
        source[0], folder = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), ROOT

    def replaced(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        found = (folder / target).resolve()
        if not found.exists() or not found.is_relative_to(ROOT):
            return match[0]
        name = found.relative_to(ROOT).as_posix()
        if name in ROOT_PAGES:
            page = ROOT_PAGES[name]
            return f"[{text}](/{page}.md{anchor if page != 'index' else ''})"
        if name in GENERATED:
            return f"[{text}](/{GENERATED[name]})"
        if found.parent == DOCS / "course":
            return f"[{text}](/lessons/{found.stem}.rst)"
        if found.is_relative_to(DOCS) and found.suffix == ".md":
            return f"[{text}](/{found.relative_to(DOCS).as_posix()}{anchor})"
        if found.is_relative_to(DOCS) and found.is_file():
            return match[0]
        return f"{{tree}}`{text.strip('`')} <{name}>`"

    source[0] = LINK.sub(replaced, source[0])


def tree_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """A file or folder of the tree: its page, a copy of a file of results, or else only its name."""
    shown, path = match.groups() if (match := re.fullmatch(r"(.+) <(.+)>", text, re.S)) else (text, text)
    if not (ROOT / path.partition("#")[0]).exists():
        raise ValueError(f"there is no {path} in the tree")
    return [nodes.inline("", "", nodes.literal("", shown) if shown == path else nodes.Text(shown), tree=path)], []


class Linked(SphinxPostTransform):
    """Links paths and public names in code."""

    default_priority = 20

    def run(self, **kwargs: Any) -> None:
        """Put a reference around each node that names something with a page."""
        if self.app.builder.format != "html":
            return
        for node in list(self.document.findall(lambda each: isinstance(each, nodes.literal | nodes.inline))):
            if any(isinstance(above, nodes.reference | nodes.title | pending_xref) for above in ancestors(node)):
                continue
            text = node.get("tree") or (node.astext() if isinstance(node, nodes.literal) else "")
            if text and (uri := self.uri_of(text)):
                link = nodes.reference("", "", internal=True, refuri=uri)
                node.replace_self(link)
                link += node
        if self.env.docname.startswith("lessons/"):
            self.add_lines()

    def add_lines(self) -> None:
        """In the course, put the file and line of a function behind the first link to it: the formula is there."""
        seen = set()
        for node in list(self.document.findall(nodes.reference)):
            name = node.get("reftitle", "")
            # Names in code are links too, made by sphinx-gallery.
            if any("sphx-glr-backref" in mark for inner in node.findall(nodes.Element) for mark in inner["classes"]):
                continue
            if name in seen or not name.startswith("xpnn.") or not (place := place_of(defined(name))):
                continue
            seen.add(name)
            page, anchor = place
            link = nodes.reference("", "", internal=True, refuri=relative(self.app, self.env.docname, page, anchor))
            shown = page.removeprefix("source/") + ".py" + anchor.replace("#", "").replace("L-", ":")
            link += nodes.inline("", shown, classes=["source-line"])
            parent, index = node.parent, node.parent.index(node)
            parent[index + 1 : index + 1] = [nodes.Text(" ("), link, nodes.Text(")")]

    def uri_of(self, text: str) -> str | None:
        """The address of what a piece of code names, relative to this page."""
        if match := NAME.fullmatch(text):
            found = public_place(self.env, "xpnn" + match[1])
        elif re.fullmatch(r"[\w/.-]+(#L-\d+)?", text):
            found = file_place(text)
        else:
            return None
        return relative(self.app, self.env.docname, *found) if found else None


def ancestors(node: nodes.Node) -> list[nodes.Node]:
    """The nodes around a node."""
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def relative(app: Sphinx, docname: str, page: str, anchor: str) -> str:
    """An address relative to a page."""
    return app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")


def file_place(text: str) -> tuple[str, str] | None:
    """The page of a path of the tree."""
    if text in ROOT_PAGES:
        return ROOT_PAGES[text], ""
    if text.startswith("docs/") and text.endswith(".md") and (ROOT / text).is_file():
        return text.removeprefix("docs/").removesuffix(".md"), ""
    path, _, line = text.partition("#")
    page = page_of(path) if "/" in path else None
    return (page, line) if page else None


def public_place(env: BuildEnvironment, name: str) -> tuple[str, str] | None:
    """The place in the reference of a public name, or of the class whose method it is."""
    objects = env.domains.python_domain.objects
    found = objects.get(name) or objects.get(name.rpartition(".")[0])
    return (found.docname, found.node_id) if found and name.count(".") else None


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.reference | None:
    """What a name in a docstring means that is no full public name."""
    if node.get("refdomain") != "py" or app.builder.format != "html":
        return None
    target = node["reftarget"].removeprefix("nn.").removesuffix("()")
    for prefix in ("xpnn.", "xpnn.functional.", ""):
        if prefix + target in env.get_domain("py").objects and (place := public_place(env, prefix + target)):
            break
    else:
        place = line_of(target, node.get("py:module"))
    if place is None:
        return None
    link = nodes.reference("", "", internal=True, refuri=relative(app, node["refdoc"], *place))
    link += content
    return link


def line_of(target: str, module: str | None) -> tuple[str, str] | None:
    """The line of the tree that defines a name, which is a full one or stands in a module or beside it."""
    bases = [""] if target.startswith("xpnn.") else []
    if module:
        parts = module.split(".")
        bases += [".".join(parts[:length]) + "." for length in range(len(parts), 0, -1)]
    for base in bases:
        if (found := defined(base + target)) is not None:
            return place_of(found)
    return None


def defined(name: str) -> Any:
    """The object with a full name, or None."""
    parts = name.split(".")
    for modules in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:modules]))
            for part in parts[modules:]:
                found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        return found
    return None


def place_of(value: Any) -> tuple[str, str] | None:
    """The page and anchor of the lines that define an object."""
    try:
        value = inspect.unwrap(value)
        path = Path(inspect.getsourcefile(value) or "").resolve()
        line = 0 if inspect.ismodule(value) else inspect.getsourcelines(value)[1]
    except (TypeError, OSError):
        return None
    page = page_of(path.relative_to(ROOT).as_posix()) if path.is_relative_to(ROOT) else None
    return (page, f"L-{line}" if line else "") if page else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_role("tree", tree_role)
    app.connect("source-read", rewrite_links)
    app.connect("missing-reference", resolve)
    app.add_post_transform(Linked)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
