"""The page of all messages: each place that raises an error with a text, linked to its line."""

import ast
from collections.abc import Iterator
from pathlib import Path

from site_tree import PACKAGES, REFERENCE, ROOT, write_if_changed
from sphinx.application import Sphinx

# In their order on the page. Each package has a title, or the build fails.
TITLES = {
    "layers": "Layers, losses and functions",
    "training": "Training, data, optimizers, checkpoints",
    "distributed": "Several processes",
    "interop": "Files and other libraries",
    "backends": "Backends",
    "testing": "Comparisons",
    "cli": "The command",
    "common": "Arguments and environment variables, everywhere",
}
INTRO = """\
Every message
=============

Each place in the library that raises an error with a text, found in the sources when this page was built. ``...`` is
what differs from call to call. Messages say what was given, what is accepted and, if that is not obvious, what to do.
:doc:`/guide/troubleshooting` has the most frequent ones with an example and a cure.
"""


def messages(path: Path) -> Iterator[tuple[int, str, str]]:
    """Triples of line, class and text of what a file raises, or makes to be raised elsewhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            texts = [text for each in node.exc.args if (text := template(each))]
            if texts:
                yield node.lineno, ast.unparse(node.exc.func).rpartition(".")[2], "; ".join(texts)


def template(node: ast.expr) -> str:
    """A text with ``...`` for what is computed; "" for what holds no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(each) if isinstance(each, ast.Constant) else "..." for each in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (template(node.left) or "...") + (template(node.right) or "...")
    if isinstance(node, ast.IfExp):
        return " / ".join(filter(None, (template(node.body), template(node.orelse))))
    return ""


def page() -> str:
    """The page in reStructuredText."""
    lines = [INTRO]
    for package in sorted({*PACKAGES} - {"scripts"}, key=list(TITLES).index):
        lines += [TITLES[package], "-" * len(TITLES[package]), ""]
        for path in sorted((ROOT / package).rglob("*.py")):
            found = sorted(messages(path))
            if found:
                name = path.relative_to(ROOT).as_posix()
                lines += [f":tree:`{name}`", ""]
                for line, kind, text in found:
                    shown = " ".join(text.replace("`", "'").replace("\\", "\\\\").split())
                    lines += [f"- ``{kind}``, :tree:`line {line} <{name}#L-{line}>`: {literal(shown)}"]
                lines += [""]
    return "\n".join(lines)


def literal(text: str) -> str:
    """A text as it stands, in reStructuredText."""
    return "".join("\\" + each if each in "*_|<>:" else each for each in text)


def write(app: Sphinx) -> None:
    """Write the page."""
    write_if_changed(REFERENCE / "messages.rst", page())


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    # After the pages of the reference, which remove others from their folder.
    app.connect("builder-inited", write, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
