"""Reading paths that may be no files, and files that may be larger than the memory."""

from pathlib import Path

import pytest
from hostile import NO_FILES, limits, no_file

import xpnn as nn
from xpnn.common import files
from xpnn.common.files import file_size, read_bytes


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_path_that_is_no_file_raises_an_error_that_says_what_it_is(tmp_path, kind):
    path = no_file(kind, tmp_path / "w")
    with limits():
        for open_it in (file_size, read_bytes, lambda path: nn.load(nn.Dense(2, 2), path)):
            with pytest.raises(OSError) as error:
                open_it(path)
            assert str(path) in str(error.value)
            if kind in ("a folder", "a pipe", "a device"):
                assert str(error.value) == f"no file {path}: it is {kind}"


def test_a_file_has_its_size_and_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert file_size(path) == file_size(str(path)) == 5
    assert read_bytes(path) == read_bytes(path, 5) == b"12345"


def test_a_file_beyond_a_limit_is_not_read(tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with limits():
        with pytest.raises(ValueError, match=f"has {1 << 40} bytes, too many: 100 at most"):
            read_bytes(path, 100)
        with pytest.raises(ValueError, match="more than the memory"):
            read_bytes(path)
        with pytest.raises(ValueError, match="is not a complete safetensors file"):
            nn.load(nn.Dense(2, 2), path)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no /proc on this system")
def test_a_file_with_more_bytes_than_its_size_is_refused():
    assert file_size("/proc/version") == 0
    with pytest.raises(ValueError, match="too many: 4 at most"):
        read_bytes("/proc/version", 4)


def test_memory_is_that_of_the_system(monkeypatch):
    monkeypatch.setattr(files, "host_capacity", lambda: (1000, 0))
    files.require_memory(1000, "x")
    with pytest.raises(ValueError, match="x has 1001 bytes, more than the memory of 1000 bytes"):
        files.require_memory(1001, "x")
    monkeypatch.setattr(files, "host_capacity", lambda: (0, 0))
    files.require_memory(1 << 60, "x")
