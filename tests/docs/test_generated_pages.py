"""What pages of the site say about names, errors and the reference follows from the library."""

import ast
import builtins
import doctest
import importlib
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import xpnn as nn

ROOT = Path(nn.__file__).parent
DOCS = ROOT / "docs"
TROUBLE = DOCS / "guide/troubleshooting.md"
# Raised and handled within the library.
HANDLED = {"NeedsOpset", "Unreadable", "Terminated", "Interrupted", "Ended", "Stopped"}


@pytest.fixture
def extension(monkeypatch):
    """A function that imports a module of docs/extensions."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(DOCS / "extensions")])
    return importlib.import_module


def test_the_table_of_pytorchs_names_is_that_of_today(extension):
    table = extension("pytorch_table")
    text = table.PAGE.read_text(encoding="utf-8")
    assert text == table.with_table(text), "run python docs/extensions/pytorch_table.py"


def test_the_table_has_every_name_of_pytorch(extension, torch):
    table = extension("pytorch_table")
    if not torch.__version__.startswith("2.13."):
        pytest.skip(f"the page is about PyTorch 2.13, this is {torch.__version__}")
    assert table.stored_names() == table.torch_names()


def test_answers_of_the_table_of_pytorchs_names(extension):
    table = extension("pytorch_table")
    assert table.here("torch.nn", "Conv2d") == ["Conv2d"]
    assert table.here("torch.nn", "Linear") == ["Dense"]
    assert table.here("torch.nn", "LazyConv2d") == ["Conv2d"]
    assert table.here("torch.nn", "LSTM") == []
    assert table.here("torch.nn.functional", "max_pool2d") == ["functional.max_pool"]
    assert table.here("torch.nn.init", "kaiming_uniform_") == ["initialisers.he_uniform"]
    for module, names in table.stored_names().items():
        for name in names:
            assert set(table.here(module, name)) <= table.public_names(), name


def test_errors_on_the_page_are_raised_with_these_messages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNN_BACKEND", "numpy")
    blocks = re.findall(r"^```pycon\n(.*?)^```$", TROUBLE.read_text(encoding="utf-8"), re.M | re.S)
    test = doctest.DocTestParser().get_doctest("".join(blocks), {}, TROUBLE.name, str(TROUBLE), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    result = runner.summarize()
    assert result.attempted > 25 and result.failed == 0


def exceptions():
    """Names of all classes of exceptions of the package, of which others may know."""
    known = {name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, Exception)}
    classes = {}
    for package in ROOT.glob("*/__init__.py"):
        for path in package.parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    classes[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    found = set()
    while more := {name for name, bases in classes.items() if bases & (known | found)} - found:
        found |= more
    return {name for name in found if not name.startswith("_")}


def test_every_class_of_errors_is_on_the_page():
    found = exceptions()
    assert {"BackendUnavailable", "NumberRead", "NotMeasured"} <= found
    text = TROUBLE.read_text(encoding="utf-8")
    missing = {name for name in found - HANDLED if not re.search(rf"`(?:[\w.]+\.)?{name}`", text)}
    assert not missing


def test_every_public_name_has_a_page_of_the_reference(extension):
    pytest.importorskip("sphinx", reason="the reference is written by extensions of Sphinx")
    reference = extension("reference_pages")
    names = [name for pages in reference.pages().values() for page in pages for name in page.names]
    assert len(names) == len(set(names))
    public = {f"xpnn.{name}" for name in nn.__all__ if not isinstance(getattr(nn, name), type(nn))}
    assert public <= set(names)
    assert {"xpnn.functional.conv_backward", "xpnn.augment.Flip", "xpnn.interop.sklearn.NetClassifier"} <= set(names)


def test_a_public_name_without_a_page_is_an_error(extension, monkeypatch):
    pytest.importorskip("sphinx", reason="the reference is written by extensions of Sphinx")
    reference = extension("reference_pages")
    families = {name: dict(pages) for name, pages in reference.FAMILIES.items()}
    del families["Convolution"]["Transposed convolution"]
    monkeypatch.setattr(reference, "FAMILIES", families)
    with pytest.raises(LookupError, match=r"no page .* has xpnn\.functional\.conv_transpose"):
        reference.pages()


def test_pages_of_the_reference_have_formula_gradient_and_backends(extension):
    pytest.importorskip("sphinx", reason="the reference is written by extensions of Sphinx")
    reference = extension("reference_pages")
    page = next(page for page in reference.pages()["Convolution"] if page.title == "Convolution")
    text = reference.body(page, reference.catalogue(), Counter())
    formula = text.index("sum over c, k of")
    forward, backward = (text.index(f"autofunction:: xpnn.functional.{name}\n") for name in ("conv", "conv_backward"))
    assert (
        formula
        < forward
        < backward
        < text.index("autoclass:: xpnn.Conv2d")
        < text.index("* - ``Conv2d``\n     - 0\n     - float32 float64")
    )
    # The arguments are explained once, by the base of the three classes.
    assert "autoclass:: xpnn.layers.convolution.conv.Conv\n" in text


def test_messages_are_found_with_their_lines(extension, tmp_path):
    pytest.importorskip("sphinx", reason="the list of messages is written by an extension of Sphinx")
    messages = extension("error_messages")
    (tmp_path / "code.py").write_text(
        'def f(x):\n    if x:\n        raise ValueError(f"x must be 0, got {x}")\n    raise TypeError("a" + str(x))\n'
    )
    assert sorted(messages.messages(tmp_path / "code.py")) == [
        (3, "ValueError", "x must be 0, got ..."),
        (4, "TypeError", "a..."),
    ]
    assert messages.page().count("\n- ") > 600


def test_members_of_a_class_are_described_once(extension):
    pytest.importorskip("sphinx", reason="the reference is written by extensions of Sphinx")
    reference = extension("reference_pages")
    assert {"forward", "backward", "state_dict", "freeze"} <= set(reference.own_members(nn.Layer))
    # What a base has that is on another page, and what replaces it, is described there.
    assert reference.own_members(nn.Conv2d) == ["forward_and_relu"] and reference.own_members(nn.Adam) == []
    assert reference.own_members(nn.MSE) == []


def test_pictures_of_the_course_in_readme_are_of_pages_that_exist(extension):
    course = extension("course_pictures")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, drawn in course.PICTURES.items():
        assert f"docs/pictures/{name}" in readme and (DOCS / "pictures" / name).is_file()
        assert (DOCS / "course" / f"{drawn.rpartition('_')[0]}.py").is_file()


def test_readme_links_every_page_of_the_course():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = sorted((DOCS / "course").glob("plot_*.py"))
    assert pages and all(f"(docs/course/{page.name})" in readme for page in pages)
