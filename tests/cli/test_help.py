"""``--help`` of every command and script shows the defaults and fits the terminal."""

import argparse
import re

import pytest

from xpnn.cli.bench import peak_memory
from xpnn.cli.main import COMMANDS, main
from xpnn.cli.standalone.help_text import Help, shown
from xpnn.scripts import exact_matrix, gpu_check, train_cifar10, train_mnist
from xpnn.scripts.gpu import run_checks

SCRIPTS = {
    script.__name__.removeprefix("xpnn.scripts."): script.main
    for script in (exact_matrix, gpu_check, train_cifar10, train_mnist, peak_memory, run_checks)
}
ALL = {
    "xpnn": lambda arguments: main(arguments),
    **{f"xpnn {name}": lambda arguments, name=name: main([name, *arguments]) for name in COMMANDS},
    **SCRIPTS,
}


@pytest.fixture
def help_of(capsys, monkeypatch):
    """The help of a command on a terminal with that many columns, and its parser."""

    def tell(name, columns):
        parsers = []
        monkeypatch.setenv("COLUMNS", str(columns))
        format_help = argparse.ArgumentParser.format_help
        monkeypatch.setattr(
            argparse.ArgumentParser, "format_help", lambda self: (parsers.append(self), format_help(self))[1]
        )
        with pytest.raises(SystemExit) as exit:
            ALL[name](["--help"])
        assert exit.value.code == 0
        return capsys.readouterr().out, parsers[-1]

    return tell


@pytest.mark.parametrize("name", ALL)
def test_useful_defaults_are_in_the_help(name, help_of):
    text, parser = help_of(name, 400)
    assert parser.formatter_class is Help
    assert not re.search(r"None|\(default: \)|\[\]\)|\{\}\)|default: (False|True)|==SUPPRESS==", text)
    options = [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]
    for action in options:
        (line,) = [
            " ".join(part.split())
            for part in re.split(r"\n(?=  \S)", text.partition("options:")[2])
            if re.match(rf"\s*(-\w, )?{action.option_strings[-1]}(?![\w-])", part)
        ]
        assert line.count("default") <= 1, line
        # Each option says what it is for.
        assert len(line.partition("(default")[0].split()) > 2, line
        if shown(action):
            assert "default" in line or "unless given" in line, line


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", ALL)
def test_help_fits_the_terminal(name, help_of, columns):
    text, _ = help_of(name, columns)
    assert [line for line in text.splitlines() if len(line) > columns] == []


@pytest.mark.parametrize(
    "option, default",
    [
        ({"default": None}, ""),
        ({"default": ""}, ""),
        ({"default": [], "nargs": "*"}, ""),
        ({"action": "store_true"}, ""),
        ({"default": argparse.SUPPRESS}, ""),
        ({"default": 0}, "0"),
        ({"default": 0.0}, "0.0"),
        ({"default": "50%"}, "50%"),
        ({"default": ["a", "b"], "nargs": "+"}, "a b"),
        ({"default": ["a", "b"]}, "a,b"),
        ({"default": [("a", 1), ("b", 2)]}, "a:1,b:2"),
    ],
)
def test_a_default_is_shown_as_it_would_be_given(option, default):
    parser = argparse.ArgumentParser(formatter_class=Help)
    action = parser.add_argument("--option", help="what it is", **option)
    assert shown(action) == default
    assert (f"(default: {default})" in parser.format_help()) is bool(default)


def test_a_default_in_the_help_text_is_shown_once():
    parser = argparse.ArgumentParser(formatter_class=Help)
    parser.add_argument("--out", default="x", help="where to write (default: a new folder)")
    assert parser.format_help().count("default") == 1


def test_the_help_of_the_command_names_its_environment_variables(help_of):
    text, _ = help_of("xpnn", 200)
    for variable in ("XPNN_BACKEND", "XPNN_NUMERICS", "XPNN_NUM_THREADS", "XPNN_NUMBA", "XPNN_CUDA_KERNELS"):
        assert variable in text
