"""What the README shows runs as it stands there, on any backend."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_example_runs(at, tmp_path, monkeypatch):
    if at.read_only:
        pytest.skip("the example makes its own arrays")
    code, *_ = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert 'backend="auto"' in code
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace('backend="auto"', f"backend={at.backend.spec!r}"), names)
    assert names["dx"].shape == (64, 1, 28, 28)
    assert (tmp_path / "model.safetensors").exists()
    assert names["model"].backend.spec == "numpy"


def test_every_indented_command_is_one_line():
    """CI takes the first indented line under a heading as the command to try."""
    text = README.read_text(encoding="utf-8")
    for heading in ("Train", "Test"):
        command = re.search(rf"^{heading}[^#]*?^    (.+)$", text, re.M | re.S).group(1)
        assert command.startswith("python3 -m venv .venv && ")
