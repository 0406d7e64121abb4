"""The wheel has every package of the library and the command, and neither scripts nor tests."""

import tomllib
from pathlib import Path

import xpnn as nn

ROOT = Path(nn.__file__).parent
# Folders of a checkout only.
NOT_INSTALLED = {"scripts", "tests"}


def test_the_wheel_has_every_package_but_scripts_and_tests():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    tops = [file.parent for file in ROOT.glob("*/__init__.py") if file.parent.name not in NOT_INSTALLED]
    files = [file for top in tops for file in top.rglob("__init__.py")]
    found = {".".join(("xpnn", *file.parent.relative_to(ROOT).parts)) for file in files} | {"xpnn"}
    assert sorted(listed) == sorted(found)
    assert not any(name.startswith(("xpnn.scripts", "xpnn.tests")) for name in listed)
