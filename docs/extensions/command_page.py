"""The page of the command: what ``xpnn --help`` and the help of each of its commands say."""

import argparse

from site_tree import REFERENCE, write_if_changed
from sphinx.application import Sphinx

from xpnn.cli.main import build_parser

INTRO = """\
The command ``xpnn``
====================

What ``xpnn COMMAND --help`` prints. :doc:`/environment` has the environment variables and exit statuses.
"""


def page() -> str:
    """The page in reStructuredText."""
    parser = build_parser()
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    lines = [INTRO, *block(parser)]
    for name, each in commands.choices.items():
        title = f"xpnn {name}"
        lines += [title, "-" * len(title), "", *block(each)]
    return "\n".join(lines)


def block(parser: argparse.ArgumentParser) -> list[str]:
    """The help of a parser as a literal block, whatever the width of this terminal."""
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
    return ["::", "", *("    " + line if line else "" for line in parser.format_help().splitlines()), ""]


def write(app: Sphinx) -> None:
    """Write the page."""
    write_if_changed(REFERENCE / "command.rst", page())


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
