"""Children end with the process that started them, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stubborn

import xpnn
from xpnn.cli.bench import peak_memory
from xpnn.cli.standalone import children
from xpnn.scripts import exact_matrix

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")

# A parent starts a child as the program does; the child stops at its first import of a library.
HELD = "import time; open({file!r}, 'w').write(str(__import__('os').getpid())); time.sleep(60)"
MATRIX = """
from xpnn.scripts import exact_matrix
exact_matrix.run_task({{"backend": "numpy"}}, {{"PYTHONPATH": {path!r}}})
"""
MEMORY = """
import os
os.environ["PYTHONPATH"] = {path!r}
import xpnn
from xpnn.cli.bench import peak_memory
peak_memory.peaks("mlp", xpnn.get_backend("numpy"), None, 1)
"""


@pytest.mark.parametrize("code", [MATRIX, MEMORY], ids=["exact_matrix", "memory"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(tmp_path, code, number):
    held = tmp_path / "held"
    file = str(tmp_path / "pid")
    held.mkdir()
    (held / "safetensors").mkdir()
    (held / "safetensors" / "__init__.py").write_text(
        "import signal\nfor n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, signal.SIG_IGN)\n"
        + HELD.format(file=file)
    )
    path = os.pathsep.join([str(held), str(Path(xpnn.__file__).parents[1])])
    parent = subprocess.Popen([sys.executable, "-c", code.format(path=path)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (Path(file).exists() and Path(file).read_text()):
        assert parent.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    child = int(Path(file).read_text())
    assert stubborn.alive(child)
    parent.send_signal(number)
    parent.wait(30)
    assert stubborn.ended([child])


def test_a_child_whose_parent_has_already_ended_ends_at_once():
    code = "from xpnn.cli.standalone.children import die_with_parent; die_with_parent({}); print('goes on')"
    for parent, goes_on in ((os.getpid(), True), (os.getppid(), False)):
        done = subprocess.run([sys.executable, "-c", code.format(parent)], capture_output=True, text=True, check=False)
        assert ("goes on" in done.stdout) is goes_on


def test_only_processes_with_the_mark_are_killed(tmp_path):
    def start(mark):
        return subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"], env=children.marked(os.environ, mark)
        )

    mine, other = start(f"{tmp_path}/1"), start(f"{tmp_path}/11")
    try:
        end = time.monotonic() + 20
        while not {mine.pid, other.pid} <= set(children.marked_processes(f"{tmp_path}/")) and time.monotonic() < end:
            time.sleep(0.02)
        assert set(children.marked_processes(f"{tmp_path}/")) == {mine.pid, other.pid}
        children.end(None, f"{tmp_path}/1;")
        assert mine.wait(10) == -signal.SIGKILL and other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_marks_are_added_to_marks():
    twice = children.marked(children.marked({"A": "b"}, "/x/1"), "/y/2")
    assert twice == {"A": "b", children.MARK: "/x/1;/y/2;"}


def test_a_keeper_kills_process_groups_even_without_marks(tmp_path):
    (tmp_path / "folder").mkdir()
    code = (
        f"from pathlib import Path\nimport subprocess, sys\nfrom xpnn.cli.standalone import children\n"
        f"keeper = children.Keeper('no such mark', Path({str(tmp_path / 'folder')!r}))\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "apart = {'start_new_session': True, 'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}\n"
        "kept, past = (subprocess.Popen(sleep, **apart) for _ in range(2))\n"
        "keeper.note(kept.pid); keeper.note(past.pid); keeper.forget(past.pid)\n"
        "print(kept.pid, past.pid, flush=True)\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    kept, past = map(int, done.stdout.split())
    try:
        assert stubborn.ended([kept]) and stubborn.alive(past)
    finally:
        os.kill(past, signal.SIGKILL)
    end = time.monotonic() + 20
    while (tmp_path / "folder").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not (tmp_path / "folder").exists()


def test_the_task_of_a_child_names_its_parent(monkeypatch):
    asked = []
    monkeypatch.setattr(exact_matrix.subprocess, "run", lambda command, **options: asked.append(command) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        exact_matrix.run_task({"backend": "numpy"}, {})
    assert json.loads(asked[0][-1]) == {"backend": "numpy", "parent": os.getpid()}
    assert peak_memory._in_new_process.__module__ == "xpnn.cli.bench.peak_memory"
