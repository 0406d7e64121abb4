"""The checker of the built site notices what it promises to."""

import subprocess
import sys
from pathlib import Path

import pytest

import xpnn as nn

CHECK = Path(nn.__file__).parent / "docs/extensions/check_site.py"
GOOD = '<h1 id="top">A</h1><a href="b.html#there">b</a><img src="p.png" alt="a picture"><script src="s.js"></script>'


@pytest.fixture
def check(tmp_path):
    """A function that checks a site whose first page has something more; its status and lines."""
    (tmp_path / "b.html").write_text('<p id="there"><a href="https://example.org">elsewhere</a></p>')
    (tmp_path / "_static").mkdir()
    for name in ("p.png", "s.js", "_static/macros.html"):
        (tmp_path / name).write_text("{{")

    def run(more="", style=""):
        (tmp_path / "a.html").write_text(GOOD + more)
        (tmp_path / "_static/s.css").write_text(style)
        result = subprocess.run([sys.executable, CHECK, tmp_path], capture_output=True, text=True)
        return result.returncode, result.stdout.splitlines()

    return run


def test_a_good_site_passes(check):
    assert check() == (0, ["2 pages, 0 problems"])


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('<a href="c.html">c</a>', "a.html links to c.html, which does not exist"),
        ('<a href="b.html#here">b</a>', "a.html links to b.html#here, a place that is not on the page"),
        ('<a href="#nowhere">b</a>', "a.html links to #nowhere, a place that is not on the page"),
        ('<script src="https://cdn.org/m.js"></script>', "a.html loads https://cdn.org/m.js"),
        ('<link rel="stylesheet" href="//cdn.org/m.css">', "a.html loads //cdn.org/m.css"),
        ('<img src="q.png" alt="a picture">', "a.html loads q.png, which does not exist"),
        ('<img src="p.png">', "a.html: no alternative text for p.png"),
    ],
)
def test_a_mistake_is_found(check, more, problem):
    assert check(more) == (1, [problem, "2 pages, 1 problems"])


def test_a_style_that_loads_from_elsewhere_is_found(check):
    status, (line, _) = check(style="/* url(https://a.org) */ p { background: url('https://cdn.org/f.woff') }")
    assert (status, line) == (1, "_static/s.css loads https://cdn.org/f.woff")


def test_a_folder_without_pages_is_no_site(tmp_path):
    assert subprocess.run([sys.executable, CHECK, tmp_path], capture_output=True).returncode == 1
