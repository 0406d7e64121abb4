"""Files that a command writes are refused before the work or written whole."""

import json
import os

import pytest

from xpnn.cli.output_files import append, target
from xpnn.common.files import write_whole


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    file.chmod(0o640)
    write_whole(file, "new")
    assert file.read_text() == "new" and file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    file.write_text("old")
    monkeypatch.setattr(type(file), "replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link(tmp_path):
    file, link = tmp_path / "a", tmp_path / "b"
    file.write_text("old")
    link.symlink_to(file)
    write_whole(link, "new")
    assert link.is_symlink() and file.read_text() == "new"


def test_devices_are_written_to_and_not_replaced(tmp_path):
    null = target("json", os.devnull)
    write_whole(null, "new")
    assert not null.is_file()


@pytest.mark.parametrize("path", ["absent/a.json", "."])
def test_a_file_that_can_t_be_written_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"--json {path}"):
        target("json", path)


def test_an_option_that_is_not_given_has_no_file():
    assert target("json", None) is None


def test_lines_are_added_one_by_one_with_infinities_and_nan_as_words(tmp_path):
    file = tmp_path / "rows.jsonl"
    append(file, {"ulps": float("inf"), "nested": [float("nan"), -float("inf"), 1.5]})
    append(file, {"a": "two\nlines"})
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first == {"ulps": "inf", "nested": ["nan", "-inf", 1.5]} and second == {"a": "two\nlines"}


def test_a_device_that_is_full_is_named():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_whole("/dev/full", "new")
