"""``scripts/gpu_check.py`` runs from an unpacked archive, keeps all results, and names missing packages."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import stubborn

from xpnn.cli.bench.net_steps import NETS
from xpnn.cli.standalone import children
from xpnn.scripts import gpu_check
from xpnn.scripts.gpu import options, plan, preflight, summary
from xpnn.scripts.gpu.parts import DISTURBED, FAILED, INTERRUPTED, LIMIT, NOT_RUN, PASSED, SKIPPED, Part

SCRIPT = Path(gpu_check.__file__)
ROOT = SCRIPT.parents[1]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what processes carry a mark")
QUICK = ("--filter", "dense/plain", "--nets", "digits_lenet:2", "--layer", "1x28", "--rounds", "1")
QUICK += ("--without", "sklearn", "--select", "")


def command(folder, *arguments, script=SCRIPT):
    return [sys.executable, str(script), str(folder), *map(str, arguments)]


def run(folder, *arguments, script=SCRIPT, **environment):
    return subprocess.run(
        command(folder, *arguments, script=script),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def report(folder):
    return json.loads((folder / "results.json").read_text())


def by_name(folder):
    return {part["name"]: part for part in report(folder)["parts"]}


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A copy in a folder of another name, one backend that works and one that does not, and a suite of one file."""
    base = tmp_path_factory.mktemp("gpu")
    copy = base / "some-archive"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info"))
    (copy / "layers" / "__init__.py").open("a").write("\nCOPIED = True\n")
    test = copy / "tests" / "layers" / "test_of_copy.py"
    test.write_text(
        "import pytest, xpnn\n\ndef test_copy():\n    assert xpnn.layers.COPIED\n\n"
        "def test_wrong():\n    assert 1 == 2, 'as planted'\n\n@pytest.mark.skip\ndef test_left_out():\n    pass\n"
    )
    folder = base / "made" / "here"
    arguments = ("--backends", "numpy,strict:nowhere", *QUICK, "--tests", test, "--seconds", 200)
    return folder, run(folder, *arguments, script=copy / "scripts" / "gpu_check.py")


def test_a_part_that_fails_does_not_stop_the_others(checked):
    folder, found = checked
    parts = by_name(folder)
    assert found.returncode == 1, found.stderr
    works = ["device numpy", *(f"{stage} numpy {n}" for stage in ("smoke", "parity") for n in ("fast", "exact"))]
    for name in [*works, "imports for xpnn"]:
        assert parts[name]["status"] == PASSED, parts[name]
    # Other processes here may disturb what is timed.
    for name in ("compiled digits_lenet numpy", "bench digits_lenet numpy", "layers numpy"):
        assert parts[name]["status"] in (PASSED, DISTURBED) and not parts[name]["failed"], parts[name]
    for name, part in parts.items():
        if "nowhere" in name:
            assert part["status"] == FAILED and "no device 'nowhere'" in json.dumps(part), name
    assert {part["stage"] for part in parts.values()} == set(options.LIMITS)


def test_the_checkout_is_found_whatever_its_folder_is_called(checked):
    folder, _ = checked
    suite = by_name(folder)["suite"]
    assert (suite["passed"], suite["failed"], suite["skipped"]) == (1, 1, 1), suite["output"]


def test_a_failed_test_is_printed_as_it_comes_and_kept_with_its_reason(checked):
    folder, found = checked
    assert "gpu_check: suite: FAILED " in found.stdout and "as planted" in found.stdout.partition("seconds")[0]
    (row,) = by_name(folder)["suite"]["rows"]
    assert row["name"].endswith("test_of_copy.py::test_wrong") and "as planted" in row["problem"] and row["text"]


def test_rows_are_those_of_the_parts(checked):
    folder, _ = checked
    parts = by_name(folder)
    (case,) = parts["parity numpy exact"]["rows"]
    assert case["name"] == "Dense/plain" and case["same_bits"] and "histogram" not in case["arrays"][0]["truth"]
    names = [row["name"] for row in parts["compiled digits_lenet numpy"]["rows"]]
    assert names == ["digits_lenet sgd compiled", "digits_lenet adam compiled"]
    phases = [(row["phase"], row["compiled"]) for row in parts["bench digits_lenet numpy"]["rows"]]
    assert phases == [("step", False), ("step", True), ("inference", False), ("inference", False)]
    assert [row["name"] for row in parts["layers numpy"]["rows"]] == ["conv 1x28x28->6 5x5"] * 2


def test_the_summary_is_short_and_comes_last(checked):
    folder, found = checked
    lines = (folder / "summary.txt").read_text().splitlines()
    assert 10 < len(lines) <= summary.SUMMARY_LINES and max(map(len, lines)) <= summary.LINE_WIDTH
    assert found.stdout.splitlines()[-len(lines) :] == lines
    text = "\n".join(lines)
    for word in ("nvidia-smi ", "numpy ", "SHA-256 of all *.py", "same bits in 1 of 1", "1 failed, 1 skipped"):
        assert word in text, word
    assert "gain " in text or "DISTURBED" in text


def test_the_results_are_three_files_below_10_mib(checked):
    folder, _ = checked
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "results.json", "summary.txt"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10 * 2**20
    assert "==== suite" in (folder / "log.txt").read_text()


def test_a_failed_import_ends_the_check_at_once_and_names_the_missing_wheels(tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("safetensors", "rich"):
        (hidden / f"{name}.py").write_text(f"raise ModuleNotFoundError('hidden', name={name!r})")
    (hidden / "joblib.py").write_text("import cloud_pickle_that_is_missing")
    given = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    folder = tmp_path / "out"
    found = run(folder, "--backends", "numpy", "--stages", "smoke", PYTHONPATH=given)
    assert found.returncode == 1
    last = found.stdout.splitlines()[-1]
    assert last == (folder / "summary.txt").read_text().splitlines()[-1]
    assert last.startswith("stopped at once") and "pip download --no-deps" in last and "--wheels" in last
    brought = last.partition("-d WHEELS ")[2].partition(";")[0].split()
    assert {"safetensors", "rich", "cloud-pickle-that-is-missing"} <= set(brought)
    assert {part["status"] for part in report(folder)["parts"] if part["stage"] == "smoke"} == {NOT_RUN}


def wheel(folder, name, files):
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def test_wheels_of_missing_packages_are_unpacked(tmp_path, monkeypatch):
    wheels, target = tmp_path / "wheels", tmp_path / "target"
    wheels.mkdir()
    wheel(
        wheels,
        "none_such-1.0-py3-none-any.whl",
        {
            "none_such/__init__.py": "x = 1",
            "none_such-1.0.data/purelib/beside.py": "y = 2",
            "none_such-1.0.data/scripts/tool": "no",
            "none_such-1.0.dist-info/METADATA": "Name: none_such",
            "../outside.py": "no",
        },
    )
    wheel(wheels, "numpy-0.1-py3-none-any.whl", {"numpy/__init__.py": "raise ImportError"})
    wheel(wheels, "rich-99.0-py3-none-any.whl", {"rich/__init__.py": "z = 3"})
    wheel(wheels, "other-1.0-cp27-cp27m-win32.whl", {"other.py": ""})
    real = preflight.installed
    monkeypatch.setattr(preflight, "installed", lambda name: "1.2" if name == "rich" else real(name))
    reported = preflight.unpack(wheels, target)
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert found == ["beside.py", "none_such-1.0.dist-info/METADATA", "none_such/__init__.py", "rich/__init__.py"]
    assert len(reported) == 2 and "numpy is already installed" in reported[0] and "does not fit" in reported[1]
    assert not (tmp_path / "outside.py").exists()


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-1-py3-none-any.whl", True),
        ("a-1-cp3{n}-cp3{n}-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1-cp3{m}-cp3{m}-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp3{m}-abi3-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp3{n}-cp3{n}-win_amd64.whl", False),
        ("a-1-cp3{n}-cp3{n}-manylinux_2_28_aarch64.whl", False),
        ("a-1-py2-none-any.whl", False),
    ],
)
def test_a_wheel_fits_by_its_tags(monkeypatch, name, fit):
    monkeypatch.setattr(preflight.platform, "machine", lambda: "x86_64")
    n = sys.version_info.minor
    assert preflight.fits(name.format(n=n, m=n + 1)) is fit


@pytest.fixture
def check(tmp_path):
    """A check whose parts a test gives."""
    asked = options.parse([str(tmp_path / "out"), "--backends", "numpy"])
    (tmp_path / "scratch").mkdir()
    return gpu_check.Check(asked, tmp_path / "scratch", [])


def of(stage, *codes):
    """A part of Python programs, which find the file of their rows in ``rows``."""
    start = "import sys, time, os\nrows = open(sys.argv[1], 'a', buffering=1)\n"
    return Part(f"part of {stage}", stage, [[sys.executable, "-c", start + code, "LINES"] for code in codes])


def taken(check, *parts, seconds=60.0):
    check.parts = list(parts)
    check.run_parts(check.parts, time.monotonic() + seconds)
    return parts[0]


ROW = 'rows.write(\'{"name": "a", "passed": true}\\n\')\n'


def test_a_part_that_hangs_is_stopped_with_its_children_and_keeps_its_rows(check):
    code = "rows.write('{\"total\": 3}\\n')\n" + ROW + "print('in', flush=True)\n"
    code += "pid = os.fork()\nif pid: print('child', pid, flush=True)\ntime.sleep(99)"
    started = time.monotonic()
    part = taken(check, of("smoke", code), seconds=2.0)
    assert time.monotonic() - started < 20
    assert part.status == LIMIT and part.problem == "stopped after 2 s" and "in\n" in part.output
    assert part.counts() == "1 passed, 2 not reached" and part.rows == [{"name": "a", "passed": True}]
    child = int(part.output.split("child ")[1].split()[0])
    assert not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text()


def test_a_process_that_dies_is_a_failure_and_keeps_its_rows(check):
    part = taken(check, of("smoke", ROW + "os.kill(os.getpid(), 11)", ROW))
    assert part.status == FAILED and part.passed == 2 and part.problem.startswith("signal 11")


@pytest.mark.parametrize(
    ("rows", "ends", "status", "counts"),
    [
        (['{"name": "a", "passed": true, "skipped": true}'], 0, SKIPPED, "0 passed, 1 skipped"),
        (['{"total": 2}', '{"name": "a", "passed": true}'], 0, NOT_RUN, "1 passed, 1 not reached"),
        ([], 0, NOT_RUN, "0 passed"),
        (['{"name": "a", "ours_ms": 1, "disturbed": true}', '{"name": "b"}'], 3, DISTURBED, "1 passed, 1 disturbed"),
        (['{"name": "a", "ours_ms": 1, "disturbed": true}'], 1, FAILED, "0 passed, 1 disturbed"),
        (['{"name": "a", "ours_ms": 1, "disturbed": true, "wrong": true}'], 1, FAILED, "0 passed, 1 failed"),
        (['{"name": "a"}'], 3, FAILED, "1 passed"),
        (['{"name": "a", "ours_ms": 1, "disturbed": null}'], 0, PASSED, "1 passed"),
    ],
)
def test_parts_that_did_not_run_or_were_disturbed_have_not_passed(check, rows, ends, status, counts):
    code = "".join(f"rows.write({row!r} + chr(10))\n" for row in rows) + f"sys.exit({ends})"
    part = taken(check, of("nets", code))
    assert (part.status, part.counts()) == (status, counts)
    (line, *_) = summary.stage_lines([part])
    assert line.split("  ")[0] == "nets" and (f" {PASSED} " in line.partition("  ")[2][:40]) is (status == PASSED)
    # A stage has the status of its worst part, and the check as a whole has not passed.
    (line, *_) = summary.stage_lines([part, Part("other", "nets", [], status=PASSED, passed=1)])
    assert line.split()[1] == status.split()[0]


def test_a_disturbed_row_is_in_no_mean():
    rows = [{"name": f"conv {i}", "ours_ms": 1.0, "torch_ms": r, "ratio": r} for i, r in enumerate((0.5, 2.0))]
    rough = {"name": "conv 3", "ours_ms": 1.5, "torch_ms": 99.0, "ratio": 99.0, "disturbed": True}
    reported = summary.figures(Part("layers cupy", "layers", [], rows=[*rows, rough]))
    assert reported[0] == "1 of 3 rows DISTURBED by other processes, not measured"
    assert "2 rows beside PyTorch, faster in 1, geometric mean of ratios 1.00" in reported[1]
    (line,) = summary.figures(Part("nets cupy", "nets", [], rows=[rough]))
    assert line == "conv 3: DISTURBED by other processes, not measured (~1.5 ms)"


def test_failures_are_printed_as_they_come_until_they_are_many(check, capsys):
    code = 'for i in range(40): rows.write(\'{"name": "row", "passed": false, "problem": "so"}\\n\')'
    assert taken(check, of("smoke", code)).failed == 40
    out = capsys.readouterr().out
    assert out.count("FAILED row: so") == gpu_check.PRINTED and "further failures" in out


def test_a_failed_row_fails_the_part_whatever_its_process_says(check):
    part = taken(check, of("nets", 'rows.write(\'{"name": "a", "wrong": true}\\n\')'))
    assert part.status == FAILED and part.failed == 1


def test_parts_that_run_together_do(check):
    wait = "open('other#', 'w')\nwhile not os.path.exists('other@'): time.sleep(0.01)\n" + ROW
    parts = [of("smoke", wait.replace("@", other).replace("#", own)) for own, other in ("12", "21")]
    taken(check, *parts, seconds=30.0)
    assert [part.status for part in parts] == [PASSED, PASSED]


def test_an_incomplete_line_is_read_later(check):
    code = 'rows.write(\'{"name": "a"\'); rows.flush(); time.sleep(0.3); rows.write(\', "passed": true}\\n\')'
    assert taken(check, of("smoke", code)).rows == [{"name": "a", "passed": True}]
    assert taken(check, of("smoke", ROW + "rows.write('{\"name\"')")).rows == [{"name": "a", "passed": True}]


def test_a_missing_command_is_a_failure(check):
    part = taken(check, Part("absent", "smoke", [["/no/such/program"]]))
    assert part.status == FAILED and part.problem.startswith("does not start")


def test_one_of_many_parts_that_hangs_leaves_half_of_the_time(check):
    check.options.limits["nets"] = 6.0
    check.parts = [of("nets", "time.sleep(99)"), of("nets", ROW)]
    check.run_stage("nets")
    assert [part.status for part in check.parts] == [LIMIT, PASSED] and check.parts[0].seconds < 4.5


def test_a_run_out_of_time_leaves_the_rest_and_says_so(tmp_path):
    found = run(tmp_path, "--backends", "numpy", *QUICK, "--seconds", "2.1")
    assert found.returncode == 1 and NOT_RUN in found.stdout
    assert report(tmp_path)["parts"][-1]["status"] == NOT_RUN


def started(folder, tmp_path):
    """A check of a suite whose second test does not end, after its first one is reported."""
    test = tmp_path / "test_slow.py"
    test.write_text(
        "import os, time\n\ndef test_first():\n    assert 0, 'first'\n\ndef test_second():\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep(99)\n"
    )
    arguments = ("--backends", "numpy", "--stages", "suite", "--alone", "--select", "", "--tests", test)
    process = subprocess.Popen(command(folder, *arguments), stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        reported = folder / "results.json"
        if reported.exists() and by_name(folder)["suite"]["failed"] and (tmp_path / "pid").exists():
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("the first test was never reported")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_whole_files_and_no_process_left(tmp_path, number):
    folder = tmp_path / "out"
    process = started(folder, tmp_path)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    suite = by_name(folder)["suite"]
    assert suite["status"] == INTERRUPTED and suite["failed"] == 1 and "first" in suite["rows"][0]["problem"]
    assert f"stopped by {number.name}" in (folder / "summary.txt").read_text() and "stopped by" in out
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "results.json", "summary.txt"]
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_however_it_ends_it_ends_processes_that_ignore_signals(tmp_path, number):
    process = subprocess.Popen(
        stubborn_check(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=scratch_in(tmp_path)
    )
    numbers = stubborn.started(tmp_path)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert stubborn.ended(numbers)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    # After a SIGKILL only the keeper can remove it, after it has ended all children.
    end = time.monotonic() + 20
    while list((tmp_path / "scratch").iterdir()) and time.monotonic() < end:
        time.sleep(0.02)
    assert list((tmp_path / "scratch").iterdir()) == []


@linux
def test_a_limit_ends_processes_that_ignore_signals(tmp_path):
    found = subprocess.run(
        [*stubborn_check(tmp_path), "--limits", "suite=4"], capture_output=True, env=scratch_in(tmp_path), check=False
    )
    assert found.returncode == 1
    numbers = stubborn.started(tmp_path)
    assert not any(map(stubborn.alive, numbers))


def stubborn_check(tmp_path):
    test = tmp_path / "test_stubborn.py"
    body = f"where = {str(tmp_path)!r}\n{stubborn.CODE}\ntime.sleep(120)\n"
    test.write_text(f"def test_that_hangs():\n    exec({body!r}, {{}})\n")
    arguments = ("--backends", "numpy", "--stages", "suite", "--alone", "--select", "", "--tests", test)
    return command(tmp_path / "out", *arguments)


def scratch_in(tmp_path):
    (tmp_path / "scratch").mkdir()
    return {**os.environ, "TMPDIR": str(tmp_path / "scratch")}


@linux
def test_a_daemon_that_a_part_leaves_behind_is_ended_with_it(check, tmp_path):
    part = taken(check, of("smoke", f"where = {str(tmp_path)!r}\n{stubborn.CODE}\n{ROW}"))
    assert part.status == PASSED
    assert not any(map(stubborn.alive, stubborn.started(tmp_path)))


def test_a_process_that_can_not_be_ended_is_not_waited_for(check, monkeypatch):
    monkeypatch.setattr(children, "PATIENCE", 0.1)
    monkeypatch.setattr(children, "end", lambda group, mark: None)
    part = taken(check, of("smoke", "time.sleep(20)"), seconds=1.0)
    assert part.status == LIMIT


def test_results_are_on_the_disk_when_the_check_is_killed(tmp_path):
    folder = tmp_path / "out"
    process = started(folder, tmp_path)
    process.kill()
    process.communicate(timeout=30)
    assert stubborn.ended([int((tmp_path / "pid").read_text())])
    assert by_name(folder)["suite"]["failed"] == 1
    assert "test_first" in (folder / "summary.txt").read_text()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "summary.txt"
    gpu_check.write_whole(file, "old")
    monkeypatch.setattr(type(file), "replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        gpu_check.write_whole(file, "new")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_long_logs_keep_their_ends():
    text = "a" * summary.LOG_BYTES + "b" * summary.LOG_BYTES
    short = summary.shortened(text)
    assert len(short) < summary.LOG_BYTES + 100 and short.startswith("aaa") and short.endswith("bbb")
    assert summary.shortened("abc") == "abc"


def test_many_failures_share_the_lines_of_the_summary():
    rows = [{"name": f"row {i}", "passed": False, "problem": "x" * 300} for i in range(50)]
    parts = [Part(f"part {i}", "nets", [], status=FAILED, rows=list(rows)) for i in range(3)]
    lines = summary.summarise({"gpu": "none"}, parts, "ended")
    assert len(lines) <= summary.SUMMARY_LINES and lines[-1] == "ended"
    reported = [sum(line.startswith(f"part {i}: row") for line in lines) for i in range(3)]
    assert min(reported) > 10 and max(reported) - min(reported) <= 1


def test_counts_are_those_of_the_stage():
    parts = [Part("a", "parity", [], status=PASSED, passed=3, total=3), Part("b", "parity", [], status=NOT_RUN)]
    parts.append(Part("c", "parity", [], status=LIMIT, passed=1, failed=1, total=9))
    reported = summary.stage_lines(parts)
    assert reported[0].split()[:2] == ["parity", LIMIT] and reported[0].endswith("4 passed, 1 failed, 7 not reached")
    assert [line.split()[0] for line in reported[1:]] == ["b", "c"]


def test_figures_leave_out_values_that_a_row_lacks():
    row = {"name": "lenet5", "phase": "step", "batch": 64, "ours_ms": 0.25, "torch_ms": None, "ratio": None}
    rows = [row, {**row, "plain_ms": 1.0, "gain": 4.0}, {**row, "torch_ms": 1.0, "ratio": 4.0}, {"name": "odd"}]
    reported = summary.figures(Part("nets cupy", "nets", [], rows=rows))
    assert reported[0] == "lenet5 step batch 64: 0.25 ms" and reported[1].endswith("plain 1 ms, gain 4.00")
    assert reported[2].endswith("PyTorch 1 ms, ratio 4.00") and len(reported) == 3


def test_layers_are_summarised_by_their_mean_and_the_slowest():
    rows = [{"name": f"conv {i}", "ours_ms": 1.0, "torch_ms": r, "ratio": r} for i, r in enumerate((0.5, 2.0) * 5)]
    reported = summary.figures(Part("layers cupy", "layers", [], rows=rows))
    assert "10 rows beside PyTorch, faster in 5, geometric mean of ratios 1.00" in reported[0] and len(reported) == 7
    assert "ratio 0.50" in reported[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "folder"),
        (["{file}"], "can't write to"),
        (["out", "--stages", "smoke,walk"], "must be some of preflight, smoke"),
        (["out", "--stages", ""], "must be some of"),
        (["out", "--backends", "cupi"], "must be some of cupy, torch"),
        (["out", "--seconds", "0"], "must be a number > 0"),
        (["out", "--seconds", "nan"], "must be a number > 0"),
        (["out", "--limits", "walk=3"], "must be STAGE=SECONDS"),
        (["out", "--limits", "smoke=-3"], "must be a number > 0"),
        (["out", "--nets", "alexnet:3"], "must be NET:BATCH"),
        (["out", "--nets", "lenet5"], "must be NET:BATCH"),
        (["out", "--rounds", "0"], "must be an integer > 0"),
        (["out", "--filter", "("], "is not a regular expression"),
        (["out", "--wheels", "{empty}"], "there are no wheels in"),
        (["out", "--tests", "no/such"], "there is no no/such"),
        (["out", "--without", "numpy"], "must be some of sklearn"),
        (["out", "--stage", "smoke"], "unknown argument"),
    ],
)
def test_a_bad_call_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    given = [word.format(file=tmp_path / "file", empty=tmp_path / "empty") for word in arguments]
    with pytest.raises(SystemExit) as exit:
        gpu_check.main(given)
    _, err = capsys.readouterr()
    assert exit.value.code == 2 and len(err.splitlines()) == 1 and message in err and err.startswith("gpu_check: ")
    assert not (tmp_path / "out" / "results.json").exists()


def asked(tmp_path, *arguments):
    return options.parse([str(tmp_path), *arguments])


def test_every_stage_has_its_parts_and_the_preflight_is_always_among_them(tmp_path):
    parts = plan.plan(asked(tmp_path))
    assert list(dict.fromkeys(part.stage for part in parts)) == list(options.LIMITS)
    parts = plan.plan(asked(tmp_path, "--stages", "nets"))
    assert list(dict.fromkeys(part.stage for part in parts)) == ["preflight", "nets"]


def test_nets_come_largest_first_compiled_and_plain(tmp_path):
    parts = [part.name for part in plan.plan(asked(tmp_path)) if part.stage == "nets"]
    assert parts[:2] == ["compiled resnet18 cupy", "bench resnet18 cupy"] and len(parts) == 6
    (first, *_) = (part for part in plan.plan(asked(tmp_path)) if part.stage == "nets")
    assert "--net resnet18 --batch 128" in " ".join(first.commands[0])


def test_cases_are_shared_among_processes_where_there_are_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "available_cores", lambda: 16)
    counts = {part.name: len(part.commands) for part in plan.plan(asked(tmp_path)) if part.stage == "parity"}
    assert set(counts.values()) == {4} and len(counts) == 4
    alone = plan.plan(asked(tmp_path, "--alone"))
    assert all(len(part.commands) == 1 for part in alone)
    assert "-n" in plan.plan(asked(tmp_path))[-1].commands[0]
    assert "-n" not in alone[-1].commands[0]


def test_the_suite_is_that_of_the_backends_which_may_not_be_skipped(tmp_path):
    suite = plan.plan(asked(tmp_path))[-1]
    assert "(cupy or torch-cuda) and not unavailable" in suite.commands[0]
    assert suite.environment == {"XPNN_REQUIRE_BACKENDS": "cupy,torch-cuda"}
    suite = plan.plan(asked(tmp_path, "--backends", "cupy:1", "--select", "dense"))[-1]
    assert "dense" in suite.commands[0] and suite.environment == {"XPNN_REQUIRE_BACKENDS": "cupy"}


def test_a_device_in_exclusive_mode_is_used_by_one_process_at_a_time(check):
    check.about["driver"] = "NVIDIA H100, 570.1, 81559 MiB, Exclusive_Process"
    check.respect_exclusive_mode()
    assert check.options.alone and all(len(part.commands) == 1 for part in check.parts)


def test_missing_nvidia_smi_is_reported_and_not_a_failure(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert preflight.nvidia_smi() == {"driver": "nvidia-smi does not answer (FileNotFoundError)"}


def test_a_torch_without_cuda_is_noticed_before_anything_runs():
    with pytest.raises(RuntimeError, match="no CUDA device"):
        preflight.device("torch.cuda", Namespace(is_available=lambda: False))


def test_its_nets_are_those_of_the_benchmark():
    assert set(options.NETS) <= set(NETS)


def test_the_environment_of_the_checks_processes(monkeypatch, check):
    assert check.environment["XPNN_NUMBA"] == "0"
    assert "XPNN_BACKEND" not in check.environment and "CUPY_CACHE_DIR" not in (
        set(check.environment) - set(os.environ)
    )


def test_it_imports_only_the_standard_library():
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import gpu_check; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_page_has_the_limits_and_the_wheels():
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    for stage, seconds in options.LIMITS.items():
        assert f"| {stage} | {seconds:.0f} s |" in page
    words = page.split()
    for package in ("array-api-compat", "safetensors", *preflight.ALONG, *" ".join(preflight.ALONG.values()).split()):
        assert package in words, package
