"""Checkpoints are written atomically, verified before they are used, and never lost."""

import hashlib
import json
import multiprocessing
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hostile import NO_FILES, limits, no_file

from xpnn.training.checkpoint_file import CheckpointError, canonical, digest_of
from xpnn.training.checkpoints import Checkpoints


def arrays(step):
    rng = np.random.default_rng(step)
    return {"model/weight": rng.random((40, 30)).astype(np.float32), "tally/loss": np.float32(step)}


def filled(folder, steps, scores=None, **settings):
    checkpoints = Checkpoints(folder, **settings)
    with checkpoints:
        for step in steps:
            checkpoints.write(step, arrays(step), {"epoch": step, "x": 0.1}, (scores or {}).get(step))
    return checkpoints


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != ".lock"}


def test_a_checkpoint_is_read_with_the_same_bits(tmp_path):
    found = filled(tmp_path, [7]).read(7)
    assert (found.step, found.facts) == (7, {"epoch": 7, "x": 0.1})
    assert found.arrays.keys() == arrays(7).keys()
    assert all(np.array_equal(found.arrays[name], array) for name, array in arrays(7).items())
    assert found.arrays["tally/loss"].shape == ()


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = filled(tmp_path, [1, 2, 3, 4, 5], {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.9}, keep=2)
    assert checkpoints.steps() == [2, 4, 5]
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert filled(tmp_path / "other", [1, 2, 3], keep=1).steps() == [3]


def test_a_checkpoint_of_the_same_step_replaces_the_last(tmp_path):
    checkpoints = filled(tmp_path, [3])
    with checkpoints:
        checkpoints.write(3, {"a": np.ones(2)}, {"epoch": 9})
    assert checkpoints.read(3).facts == {"epoch": 9}


def test_each_file_has_its_checksum(tmp_path):
    checkpoints = filled(tmp_path, [1])
    content = json.loads((tmp_path / "step-00000001.json").read_text())
    assert hashlib.sha256((tmp_path / content["arrays"]).read_bytes()).hexdigest() == content["sha256"]
    assert checkpoints.read(1).path.name == "step-00000001.json"


def damaged(folder, suffix, how):
    path = max(folder.glob(f"step-*{suffix}"))
    whole = bytearray(path.read_bytes())
    if how == "truncated":
        whole = whole[: len(whole) // 2]
    elif how == "empty":
        whole = bytearray()
    elif how == "one bit":
        whole[len(whole) * 2 // 3] ^= 4
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(whole)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit", "missing"])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, suffix, how):
    checkpoints = filled(tmp_path, [1, 2])
    damaged(tmp_path, suffix, how)
    notes = []
    found = checkpoints.newest(notes.append)
    assert found.step == 1
    if (suffix, how) != (".json", "missing"):
        assert len(notes) == 1 and "going back to step 1" in notes[0] and str(tmp_path) in notes[0]
        # Renamed, not deleted, and no longer counted among those that are kept.
        assert checkpoints.steps() == [1] and (tmp_path / "step-00000002.json.damaged").exists()


def test_every_changed_bit_of_the_json_file_is_noticed(tmp_path):
    checkpoints = filled(tmp_path, [1])
    path = tmp_path / "step-00000001.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            found = checkpoints.read(1)
        except CheckpointError:
            continue
        # A blank that became another whitespace character.
        assert found.facts == {"epoch": 1, "x": 0.1} and found.arrays.keys() == arrays(1).keys()


def test_if_all_are_damaged_the_error_names_each(tmp_path):
    checkpoints = filled(tmp_path, [1, 2])
    for path in tmp_path.glob("step-*.safetensors"):
        path.write_bytes(b"")
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match="none of the checkpoints") as caught:
        checkpoints.newest()
    assert "step-00000001" in str(caught.value) and "step-00000002" in str(caught.value)
    assert files(tmp_path) == before


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert Checkpoints(tmp_path / "none").newest() is None
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        Checkpoints(tmp_path).read(3)


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("xpnn.training.checkpoint_file.FORMAT", 7)
    checkpoints = filled(tmp_path, [1])
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="is of format 7; this version reads 2"):
        checkpoints.read(1)


@pytest.mark.parametrize("where", ["write_bytes", "replace"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_write_that_fails_at_any_point_loses_nothing(tmp_path, monkeypatch, where, call):
    checkpoints = filled(tmp_path, [1], keep=1)
    before = files(tmp_path)
    real, calls = getattr(Path, where), []

    def fail(self, argument):
        calls.append(self)
        if len(calls) < call:
            return real(self, argument)
        raise OSError(28, "No space left on device")

    with checkpoints:
        monkeypatch.setattr(Path, where, fail)
        with pytest.raises(CheckpointError, match=r"No space left.*step 1 is still good; free some space"):
            checkpoints.write(2, arrays(2), {})
        monkeypatch.undo()
        assert not list(tmp_path.glob(".*.partial"))
        assert before.items() <= files(tmp_path).items()
        assert checkpoints.newest().step == 1
        checkpoints.write(2, arrays(2), {})
    assert checkpoints.steps() == [2] and len(list(tmp_path.glob("*.safetensors"))) == 1


def _write_with_a_limit(folder, answers):
    """Imitate a full disk: the system lets no file grow beyond 2 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    try:
        filled(folder, [2])
    except CheckpointError as error:
        answers.put(str(error))


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path):
    filled(tmp_path, [1])
    before = files(tmp_path)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_write_with_a_limit, args=(tmp_path, answers))
    child.start()
    answer = answers.get(timeout=60)
    child.join()
    assert "File too large" in answer and "step 1 is still good" in answer
    assert files(tmp_path) == before


def test_temporary_files_of_a_killed_writer_are_deleted(tmp_path):
    filled(tmp_path, [1])
    (tmp_path / ".step-00000002.json.partial").write_bytes(b"{")
    with Checkpoints(tmp_path) as checkpoints:
        assert not list(tmp_path.glob(".*.partial"))
        assert checkpoints.newest().step == 1


def _hold(folder, ready, done):
    with Checkpoints(folder):
        ready.set()
        done.wait(60)


def test_a_second_run_is_refused_until_the_first_ends_however_it_ends(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    child = context.Process(target=_hold, args=(tmp_path, ready, done))
    child.start()
    assert ready.wait(60)
    with pytest.raises(CheckpointError, match="another run is writing to"), Checkpoints(tmp_path):
        pass
    os.kill(child.pid, 9)
    child.join()
    with Checkpoints(tmp_path):
        pass


def test_a_folder_that_can_not_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can't hold checkpoints"), Checkpoints(tmp_path / "file" / "in"):
        pass


@pytest.mark.parametrize("settings", [{"keep": 0}, {"every": 0}, {"keep": 1.5}, {"every": True}])
def test_bad_settings_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="must be an integer >= 1"):
        Checkpoints(tmp_path, **settings)


def test_the_best_has_the_highest_score_and_is_the_first_of_equals(tmp_path):
    checkpoints = filled(tmp_path, [1, 2, 3, 4], {1: 0.1, 2: 0.9, 4: 0.9}, keep=4)
    assert checkpoints.best().step == 2
    assert np.array_equal(checkpoints.best().weights["weight"], arrays(2)["model/weight"])
    assert checkpoints.best().weights.keys() == {"weight"}
    assert filled(tmp_path / "unfinished", [1, 2]).best() is None
    assert Checkpoints(tmp_path / "none").best() is None


def test_a_damaged_best_is_an_error_and_not_replaced_by_another(tmp_path):
    checkpoints = filled(tmp_path, [1, 2], {1: 0.9, 2: 0.1})
    min(tmp_path.glob("step-00000001*.safetensors")).write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.best()


def test_newest_may_leave_the_folder_unchanged(tmp_path):
    checkpoints = filled(tmp_path, [1, 2])
    damaged(tmp_path, ".safetensors", "one bit")
    before = files(tmp_path)
    assert checkpoints.newest(put_aside=False).step == 1
    assert files(tmp_path) == before


def test_the_error_for_a_missing_step_lists_the_existing_ones(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 in .*; there are those of 1, 2"):
        filled(tmp_path, [1, 2]).read(7)


@pytest.mark.parametrize("name", ["score", "arrays", "sha256", "facts"])
def test_a_checkpoint_without_a_key_is_damaged_whatever_its_checksum(tmp_path, name):
    checkpoints = filled(tmp_path, [1])
    path = tmp_path / "step-00000001.json"
    content = json.loads(path.read_text())
    del content["checksum"], content[name]
    path.write_text(json.dumps({**content, "checksum": digest_of(canonical(content))}))
    with pytest.raises(CheckpointError, match=f"is damaged: it has no {name}"):
        checkpoints.read(1)


def test_arrays_that_did_not_change_are_written_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.write(1, arrays(1), {"epoch": 1})
        (tensors,) = tmp_path.glob("*.safetensors")
        first = tensors.stat().st_ino
        checkpoints.write(1, arrays(1), {"epoch": 2}, 0.5)
        assert tensors.stat().st_ino == first and checkpoints.read(1).facts == {"epoch": 2}
        tensors.unlink()
        checkpoints.write(1, arrays(1), {"epoch": 3})
        assert checkpoints.read(1).facts == {"epoch": 3}


def forged(folder, **entries):
    """A checkpoint of step 1 with other entries, without those that are `OUT`, and with the right checksum."""
    checkpoints = filled(folder, [1])
    path = folder / "step-00000001.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    content.update(entries)
    content = {name: value for name, value in content.items() if value is not OUT}
    path.write_text(json.dumps({**content, "checksum": digest_of(canonical(content))}))
    return checkpoints


OUT = object()
FORGED = {
    "no step": {"step": OUT},
    "another step": {"step": 2},
    "a step of text": {"step": "1"},
    "a score of text": {"score": "best"},
    "a score that is true": {"score": True},
    "arrays of nothing": {"arrays": ""},
    "arrays elsewhere": {"arrays": "../step-00000001-00000000.safetensors"},
    "arrays at an absolute place": {"arrays": "/etc/passwd"},
    "arrays with a NUL": {"arrays": "a\0b"},
    "arrays that are a number": {"arrays": 3},
    "arrays that are a device": {"arrays": "/dev/zero"},
    "a checksum of nothing": {"sha256": None},
    "another checksum": {"sha256": "0" * 64},
    "facts that are a list": {"facts": []},
    "facts that are nothing": {"facts": None},
    "no format": {"format": OUT},
}


@pytest.mark.parametrize("case", FORGED)
def test_wrong_entries_are_refused_whatever_the_checksum(tmp_path, case):
    checkpoints = forged(tmp_path, **FORGED[case])
    with limits(), pytest.raises(CheckpointError, match=r"is damaged|is of format") as error:
        checkpoints.read(1)
    assert "step-00000001" in str(error.value) and len(str(error.value).splitlines()) == 1
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        checkpoints.newest()


JSON = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a list": b"[]",
    "a number": b"3",
    "no text": b"\xff\xfe",
    "many digits": b'{"checksum": ' + b"9" * 10_000 + b"}",
    "a checksum of a list": b'{"checksum": []}',
}


@pytest.mark.parametrize("case", JSON)
def test_other_json_is_not_used_as_a_checkpoint(tmp_path, case):
    checkpoints = filled(tmp_path, [1, 2])
    (tmp_path / "step-00000002.json").write_bytes(JSON[case])
    with limits():
        assert checkpoints.newest().step == 1


@pytest.mark.parametrize("kind", [kind for kind in NO_FILES if kind not in ("a file as a folder", "nothing")])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_the_checkpoint_before_one_that_is_no_file_is_used(tmp_path, suffix, kind):
    checkpoints = filled(tmp_path, [1, 2])
    path = max(tmp_path.glob(f"step-*{suffix}"))
    path.unlink()
    no_file(kind, path)
    with limits():
        assert checkpoints.newest(put_aside=False).step == 1
        with pytest.raises(CheckpointError, match=path.stem):
            checkpoints.read(2)


def test_endless_files_are_not_read(tmp_path):
    for suffix in (".json", ".safetensors"):
        checkpoints = filled(tmp_path / suffix, [1, 2])
        with max((tmp_path / suffix).glob(f"step-*{suffix}")).open("r+b") as file:
            file.truncate(1 << 40)
        with limits(), pytest.raises(CheckpointError, match=r"too many|more than the memory"):
            checkpoints.read(2)


def test_a_score_that_is_nan_is_never_the_best(tmp_path):
    checkpoints = filled(tmp_path, [1, 2, 3], {1: float("nan"), 2: 0.5, 3: float("nan")}, keep=3)
    assert checkpoints.best().step == 2
