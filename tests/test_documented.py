"""The examples, commands, names, files and links in README, pages and docstrings work, without a GPU too.

The Python of a page is in fenced blocks, which run one after another.
"""

import argparse
import ast
import contextlib
import doctest
import importlib
import inspect
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.config_file import from_file
from xpnn.cli.main import build_parser, with_joined_name
from xpnn.common import other_names

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
# What the build of the site writes is neither.
NOT_PACKAGE = ("tests", "build", "site", "docs/lessons")
PACKAGE = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not path.relative_to(ROOT).as_posix().startswith((".", *(f"{folder}/" for folder in NOT_PACKAGE)))
]
FENCED = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PUBLIC = ("augment", "distributed", "functional", "initialisers", "metrics", "models", "random", "testing")


def text_of(page):
    return PAGES[page].read_text(encoding="utf-8")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("xpnn", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def all_texts():
    """All pages, and all docstrings and messages of the package."""
    yield from ((page, text_of(page)) for page in PAGES)
    for path in PACKAGE:
        texts = (node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if is_text(node))
        yield path.relative_to(ROOT).as_posix(), "\n".join(texts)


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.fixture
def no_gpu(monkeypatch, tmp_path):
    """A folder to work in, with some photos, on a machine without a GPU."""
    from xpnn.backends import registry
    from xpnn.backends.cupy import CupyBackend

    def no_device(cls, device):
        raise nn.BackendUnavailable("cupy", "no NVIDIA driver/device", "use another backend")

    monkeypatch.setattr(CupyBackend, "connect", classmethod(no_device))
    monkeypatch.setattr(registry, "_opened", {})
    monkeypatch.chdir(tmp_path)
    image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")
    for name, shade in (("ant", 40), ("bee", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            image.new("RGB", (9, 8), (shade, i, 0)).save(tmp_path / "photos" / name / f"{i}.png")


@pytest.mark.parametrize("page", [page for page in PAGES if FENCED.search(text_of(page))])
def test_examples_of_a_page_run_as_they_stand_without_a_gpu(page, no_gpu, request):
    if "import torch" in text_of(page):
        request.getfixturevalue("torch")
    names = {}
    for code in FENCED.findall(text_of(page)):
        exec(compile(code.replace("epochs=40", "epochs=1"), page, "exec"), names)
    assert names["model"].backend.spec == "numpy"
    if "tiny" in names:
        y = names["tiny"]((3, 8, 6), 5, backend="numpy", seed=0)(np.zeros((2, 3, 8, 6), np.float32))
        assert y.shape == (2, 5)


@pytest.mark.parametrize("page", PAGES)
def test_python_in_a_page_is_fenced(page):
    outside = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    for line in re.findall(r"^ {4}(\S.*)$", outside, re.M):
        assert not re.match(r"(import|from|nn\.|model\b|data\.|transform\b|step\b)", line), line


def test_the_packages_own_example_runs_without_a_gpu(no_gpu):
    names = {}
    exec(textwrap.dedent(nn.__doc__.partition("::\n")[2]), names)
    assert names["logits"].shape == (64, 10) and names["model"].backend.spec == "numpy"


WITH_PROMPT = [path for path in PACKAGE if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.M)]


@pytest.mark.parametrize("path", WITH_PROMPT, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_in_docstrings_give_what_they_say(path):
    module = importlib.import_module(module_name(path))
    result = doctest.testmod(module, extraglobs=vars(nn.augment))
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_is_imported_by_the_name_that_it_has_here(name):
    module = importlib.import_module(f"xpnn.{name}")
    assert module is getattr(nn, name)
    for public in getattr(module, "__all__", ()):
        names = {}
        exec(f"from xpnn.{name} import {public} as found", names)
        assert names["found"] is getattr(module, public)


def test_functions_are_the_same_by_every_path():
    import xpnn.functional
    import xpnn.layers.functional
    from xpnn.functional import conv

    assert xpnn.functional is xpnn.layers.functional is nn.functional is nn.layers.functional
    assert conv is nn.functional.conv


def test_every_module_among_the_public_names_can_be_imported():
    modules = {name for name in nn.__all__ if inspect.ismodule(getattr(nn, name))}
    assert modules == set(PUBLIC)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.pyi")), ids=lambda path: path.stem)
def test_the_pyi_file_names_the_same_module(path):
    (statement,) = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(statement, ast.ImportFrom) and statement.level == 1 and statement.names[0].name == "*"
    assert importlib.import_module(f"xpnn.{statement.module}") is importlib.import_module(f"xpnn.{path.stem}")


def test_import_lines_in_texts_work():
    found = 0
    for where, text in all_texts():
        for line in re.findall(r"(?:from xpnn[\w.]* import \w+(?:, \w+)*|import xpnn[\w.]*(?: as \w+)?)", text):
            found += 1
            try:
                exec(line, {})
            except ImportError as error:
                pytest.fail(f"{where}: {line}: {error}")
    assert found > 10


def exists(parts):
    """Whether names lead from the package to something, through attributes or modules."""
    for modules in range(len(parts), -1, -1):
        with contextlib.suppress(ImportError, AttributeError):
            at = importlib.import_module(".".join(("xpnn", *parts[:modules])))
            for part in parts[modules:]:
                at = getattr(at, part)
            return True
    # A module may need a package that is not installed on this machine.
    return Path(nn.__file__).with_name(parts[0]).joinpath(*parts[1:]).with_suffix(".py").is_file()


def test_names_of_the_package_in_texts_exist():
    found = 0
    for where, text in all_texts():
        for name in re.findall(r"(?<![\w.])(?:nn|xpnn)((?:\.[A-Za-z]\w*)+)", text):
            parts = name[1:].split(".")
            assert exists(parts) or parts[0] in other_names.PACKAGE, f"{where} names nn{name}"
            found += 1
    assert found > 50


def test_files_that_pages_name_exist():
    folders = "backends|cli|common|docs|examples|interop|layers|scripts|testing|tests|training"
    for page in PAGES:
        for name in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w/.-]+\.(?:py|md|png|json|html))", text_of(page)):
            # A name in capitals stands for others: layers/FAMILY/NAME.py.
            assert re.search("[A-Z]{4}", name) or (ROOT / name).is_file(), f"{page} names {name}"
        for name in re.findall(r"python -m xpnn\.([\w.]+)", text_of(page)):
            assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), f"{page} names {name}"


def anchors(page):
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files_and_headings_that_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text_of(page)):
        target, _, anchor = "".join(link).partition("#")
        if "://" in target:
            continue
        path = (PAGES[page].parent / target).resolve() if target else PAGES[page]
        assert path.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(path.relative_to(ROOT.resolve()).as_posix()), f"{page} links to {target}#{anchor}"


def test_readme_names_every_public_class():
    readme = re.sub(r"\b(\w+)1d/2d/3d", r"\1 \g<1>1d \g<1>2d \g<1>3d", text_of("README.md"))
    shown = set(re.findall(r"\w+", readme))
    names: dict[type, set[str]] = {}
    for name in nn.__all__:
        if isinstance(value := getattr(nn, name), type) and not issubclass(value, Exception):
            names.setdefault(value, set()).add(name)
    for base in (nn.Backend, nn.Container, nn.Layer, nn.Loss, nn.Optimizer, nn.Parameter):
        del names[base]
    assert [each for each in names.values() if not each & shown] == []


def test_readme_names_every_example():
    for path in (ROOT / "examples").glob("*.py"):
        assert f"`{path.name}`" in text_of("README.md")


def test_sessions_that_pages_and_scripts_name_are_in_the_noxfile():
    nodes = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
    sessions = {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.decorator_list}
    scripts = [ROOT / ".pre-commit-config.yaml", ROOT / ".ci/run", ROOT / ".ci/nightly"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*PAGES.values(), *scripts])
    named = set(re.findall(r"nox (?:-R )?-s ([a-z]+)", text))
    named |= set(re.search(r"set -- (.+); fi", text).group(1).split())
    assert {"quick", "lint", "types"} < named <= sessions


def commands(text):
    """Calls of the command on a page: indented lines, which are complete, and code within lines, which may not be."""
    lines = re.sub(r"\\\n\s*", " ", text)
    yield from ((call, True) for call in re.findall(r"^ {4}(xpnn .*)$", lines, re.M))
    yield from ((" ".join(code.split()), False) for code in re.findall(r"`(xpnn [^`]+)`", lines))


@pytest.mark.parametrize("page", PAGES)
def test_calls_of_the_command_on_a_page_are_accepted(page):
    subparsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    for call, whole in commands(text_of(page)):
        words = with_joined_name(shlex.split(call.replace("\\|", "|"), comments=True)[1:])
        if words[0].endswith(":"):
            continue
        parser = subparsers[words[0].strip("[],")]
        known = {option for action in parser._actions for option in action.option_strings}
        options = {word.strip("[],").partition("=")[0] for word in words[1:] if word.strip("[").startswith("--")}
        assert options <= known, f"{page}: {call}"
        if whole:
            parser.parse_args(words[1:])


def test_the_file_of_options_on_the_page_is_accepted(tmp_path):
    (tmp_path / "run.toml").write_text(
        re.search(r"^```toml\n(.*?)^```$", text_of("docs/training.md"), re.M | re.S).group(1)
    )
    subparsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    options = subparsers["train"].parse_args(from_file(tmp_path / "run.toml", subparsers["train"]))
    assert (options.model, options.clip_norm, options.augment) == ("my_nets:tiny", 5.0, ["flip", "crop"])


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def names_of(extra):
    """The packages of an extra, including those of extras that it names."""
    for requirement in EXTRAS[extra]:
        name = re.match(r"[\w-]+", requirement).group().lower()
        if name == "xpnn":
            for within in re.search(r"\[(.+)\]", requirement).group(1).split(","):
                yield from names_of(within)
        else:
            yield name


def required_by(name):
    """The requirements of a package in pyproject.toml."""
    every = [*PYPROJECT["project"]["dependencies"], *(each for extra in EXTRAS.values() for each in extra)]
    return {each for each in every if re.match(r"[\w-]+", each).group().lower() == name}


def test_hints_to_install_name_packages_of_an_extra_with_its_bounds():
    """``pip install xpnn[extra]`` would put a copy in the place of an editable checkout, or a stranger's package."""
    found = set()
    for path in PACKAGE:
        for text in (node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if is_text(node)):
            assert not re.search(r"xpnn\[", text), f"{path.name}: {text}"
            for wanted in re.findall(r"pip install (?!--)[\"']?([\w-]+(?:\[\w+\])?[^\"' ;),]*)", text):
                name = re.match(r"[\w-]+", wanted).group()
                # PyTorch is optional everywhere, and in no extra.
                if name == "torch":
                    continue
                assert wanted in required_by(name), f"{path.name}: pip install {wanted}"
                found.add(name)
    assert found >= {"numba", "matplotlib", "scikit-learn", "pillow", "tensorboard", "cupy-cuda13x", "array-api-strict"}


def test_pages_install_the_checkout_with_existing_extras_or_a_package_of_one():
    found = set()
    for page in PAGES:
        text = text_of(page)
        assert not re.search(r"xpnn\[|file://", text), page
        for extras in re.findall(r"\.\[([\w,]+)\]", text):
            assert set(extras.split(",")) <= set(EXTRAS), f"{page}: .[{extras}]"
            found |= set(extras.split(","))
        for extra in re.findall(r"extra `\[?(\w+)\]?`", text):
            assert extra in EXTRAS, f"{page}: {extra}"
        for wanted in re.findall(r"pip install \"(?!\.)([^\"]+)\"", text):
            assert wanted in required_by(re.match(r"[\w-]+", wanted).group()), f"{page}: {wanted}"
    assert found >= set(EXTRAS) - {"dev"}


def test_extras_that_extras_name_exist():
    for extra in EXTRAS:
        assert set(names_of(extra))
