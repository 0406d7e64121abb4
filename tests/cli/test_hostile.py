"""Every command with a wrong call or environment: one line, the right status, no traceback, and unchanged files.

`COMMANDS` lists each command and script that a person runs; one that is missing fails the first test. The calls are
quick: nearly all run in this process, the rest in forked children.
"""

import gzip
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.bench import command as bench_command
from xpnn.cli.exit_status import program
from xpnn.cli.main import COMMANDS as SUBCOMMANDS
from xpnn.cli.main import main
from xpnn.common.environment import VARIABLES
from xpnn.scripts import exact_matrix, gpu_check, train_cifar10, train_mnist

ROOT = Path(nn.__file__).parent
# A folder in which no user can make a file, not even root.
NOWHERE = "/proc"


def script(module, name):
    """A script's `main` as it runs as a file."""
    return lambda arguments: program(name, lambda: module.main(arguments))


@dataclass(frozen=True)
class Command:
    """A command, and how it is called.

    ``good`` works and is quick; ``files`` and ``folders`` are options that name what is written, ``data`` those that
    name what is read. ``strays`` are variables that don't concern it.
    """

    run: Callable[[list[str]], object]
    good: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    long: tuple[str, ...] = ()
    bad: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)


def xpnn(name):
    return lambda arguments: main([name, *arguments])


TRAINING = {
    "no epochs": (("--epochs", "0"), "--epochs"),
    "half an epoch": (("--epochs", "1.5"), "--epochs"),
    "no batch": (("--batch", "0"), "--batch"),
    "no rate": (("--lr", "nan"), "--lr"),
    "negative seed": (("--seed", "-1"), "--seed"),
    "unknown backend": (("--backend", "abacus"), "abacus"),
    "absent device": (("--backend", "strict:device9"), "device9"),
}
MINE = ("--data", "data.npz", "--model", "mlp", "--epochs", "1", "--backend", "numpy", "--no-pictures")
COMMANDS = {
    "xpnn info": Command(xpnn("info")),
    "xpnn train": Command(
        xpnn("train"),
        (*MINE, "--out", "out"),
        folders=("--out",),
        data=("--data",),
        long=(*MINE, "--epochs", "1000000", "--out", "long"),
        bad=TRAINING
        | {
            "shards and accumulate": (("--shards", "4", "--accumulate", "2"), "--shards and --accumulate"),
            "too many shards": (("--shards", "9" * 20), "--shards"),
            "too many batches": (("--accumulate", "9" * 20), "--accumulate"),
            "huge images": (("--data", "images", "--image-size", "100000"), "100000 x 100000"),
            "a size for an array": (("--image-size", "16"), "only folders of images"),
            "a full folder": (("--out", "run"), "--force"),
            "a file for a folder": (("--out", "data.npz"), "is a file"),
            "below a file": (("--out", "data.npz/run"), "data.npz"),
            "an abbreviated resume": (("--resum", "run"), "did you mean --resume?"),
            "an abbreviated config": (("--conf", "run/config.toml"), "did you mean --config?"),
            "absent config": (("--config", "nowhere.toml"), "no file nowhere.toml"),
            "config that is none": (("--config", "data.npz"), "not a TOML file"),
            "config of nothing": (("--config", ""), "--config"),
            "unknown net": (("--model", "lenett"), "lenet"),
            "net that can't be imported": (("--model", "broken:net"), "broken"),
            "net whose module stops": (("--model", "stops:net"), "stops"),
            "net whose function stops": (("--model", "fails:net"), "fails.py, line 2"),
            "mistyped choice": (("--optimizer", "adma"), "did you mean adam?"),
            "stray argument": (("run",), "unknown argument 'run'"),
            "momentum of adam": (("--momentum", "0.9"), "--momentum"),
            "warmup alone": (("--warmup", "1"), "--warmup"),
        },
    ),
    "xpnn predict": Command(
        xpnn("predict"),
        ("run", "--data", "data.npz", "--backend", "numpy"),
        data=("--data",),
        bad={
            "no run": (("images",), "images"),
            "a file": (("data.npz",), "data.npz"),
            "absent": (("nowhere",), "nowhere"),
            "no folder": (("",), "must not be empty"),
            "no batch": (("run", "--batch", "0"), "--batch"),
            "damaged": (("damaged",), "not a complete safetensors file"),
            "unknown backend": (("run", "--backend", "abacus"), "abacus"),
        },
    ),
    "xpnn explain": Command(
        xpnn("explain"),
        ("run", "--data", "data.npz", "--backend", "numpy", "--out", "explained.png"),
        files=("--out",),
        data=("--data",),
        bad={
            "no run": (("images",), "images"),
            "damaged": (("damaged",), "not a complete safetensors file"),
            "no picture": (("run", "--data", "data.npz", "--out", "x.exe"), "no picture has the suffix .exe"),
            "no such sample": (("run", "--data", "data.npz", "--sample", "99"), "no sample 99"),
        },
    ),
    "xpnn export": Command(
        xpnn("export"),
        ("run", "--onnx", "net.onnx"),
        files=("--onnx",),
        bad={
            "no file": (("run",), "--onnx"),
            "no run": (("images", "--onnx", "net.onnx"), "images"),
            "damaged": (("damaged", "--onnx", "net.onnx"), "not a complete safetensors file"),
            "old operators": (("run", "--onnx", "net.onnx", "--opset", "9"), "--opset"),
            "future operators": (("run", "--onnx", "net.onnx", "--opset", "999"), "opset must be from 17 to"),
            "no batch": (("run", "--onnx", "net.onnx", "--batch", "0"), "--batch"),
            "no checkpoint": (("run", "--onnx", "net.onnx", "--checkpoint", "99"), "99"),
        },
    ),
    "xpnn parity": Command(
        xpnn("parity"),
        ("--backend", "numpy", "--filter", "^dense/plain$"),
        files=("--json", "--html"),
        long=("--backend", "numpy"),
        bad={
            "unknown backend": (("--backend", "abacus"), "abacus"),
            "unknown reference": (("--reference", "abacus"), "abacus"),
            "no expression": (("--filter", "("), "regular expression"),
            "mistyped numerics": (("--numerics", "exct"), "did you mean exact?"),
            "one file for two": (("--json", "x", "--html", "./x"), "--json and --html both name ./x"),
        },
    ),
    "xpnn bench": Command(
        xpnn("bench"),
        ("--backend", "numpy", "--only", "digits_lenet", "--batch", "2", "--rounds", "1", "--wait", "0", "--no-memory"),
        files=("--json", "--lines", "--html"),
        long=("--backend", "numpy", "--only", "digits_lenet", "--batch", "2", "--rounds", "1000000", "--wait", "0"),
        bad={
            "unknown backend": (("--backend", "abacus"), "abacus"),
            "no such net": (("--only", "no such net"), "--only"),
            "no rounds": (("--rounds", "0"), "--rounds"),
            "one file for two": (("--json", "x", "--lines", "x"), "--json and --lines both name x"),
            "plot of nothing": (("--plot", "x.png"), "--growth"),
        },
    ),
    "train_mnist": Command(
        script(train_mnist, "train_mnist"),
        ("--data", "mnist", "--backend", "numpy", "--epochs", "1", "--out", "out"),
        folders=("--out",),
        data=("--data",),
        long=("--data", "mnist", "--backend", "numpy", "--epochs", "1000000", "--out", "long"),
        bad=TRAINING | {"nothing to resume": (("--resume",), "--resume: there is no checkpoint")},
    ),
    "train_cifar10": Command(
        script(train_cifar10, "train_cifar10"),
        ("--data", "cifar", "--backend", "numpy", "--epochs", "1", "--out", "out"),
        folders=("--out",),
        data=("--data",),
        bad=TRAINING | {"nothing to resume": (("--resume",), "--resume: there is no checkpoint")},
    ),
    "exact_matrix": Command(
        exact_matrix.main,
        ("--backends", "numpy", "--steps", "1"),
        files=("--json",),
        strays=("XPNN_BACKEND",),
        bad={
            "no steps": (("--steps", "0"), "--steps"),
            "no backends": (("--backends", ","), "--backends"),
            "unknown backend": (("--backends", "numpy,abacus"), "unknown backend 'abacus'"),
        },
    ),
    "gpu_check": Command(
        gpu_check.main,
        ("checked", "--stages", "smoke", "--backends", "numpy"),
        folders=("",),
        strays=("XPNN_BACKEND",),
        bad={
            "a file": (("data.npz",), "data.npz"),
            "no time": (("checked", "--seconds", "0"), "--seconds"),
            "mistyped stage": (("checked", "--stages", "smok"), "--stages"),
            "absent wheels": (("checked", "--wheels", "nowhere"), "--wheels"),
            "absent cache": (("checked", "--cache", f"{NOWHERE}/x"), f"{NOWHERE}/x"),
        },
    ),
    "xpnn bench compiled-step": Command(
        xpnn("bench compiled-step"),
        ("--backend", "numpy", "--net", "lenet5", "--optimizer", "sgd", "--batch", "1", "--rounds", "1"),
        files=("--json", "--lines"),
        bad={"mistyped net": (("--net", "lenet"), "--net"), "no rounds": (("--rounds", "0"), "--rounds")},
    ),
    "xpnn bench distributed": Command(
        xpnn("bench distributed"),
        ("--net", "digits_lenet", "--steps", "4", "--rounds", "1"),
        files=("--json", "--picture"),
        bad={"mistyped net": (("--net", "lenet"), "--net"), "one rank": (("--ranks", "1"), "--ranks")},
    ),
}
# Programs that only other programs start.
CHILDREN = {
    "bench/distributed_steps.py",
    "bench/peak_memory.py",
    "standalone/children.py",
    "exact/training_hash.py",
    "gpu/preflight.py",
    "gpu/run_checks.py",
}


def idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(head + array.tobytes())


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Data of every kind, a run, and unusable files."""
    folder = tmp_path_factory.mktemp("things")
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=rng.random((20, 8, 8)).astype(np.float32), y=np.arange(20) % 4)
    for name in ("mnist", "cifar", "empty", "damaged", "images/a", "images/b"):
        (folder / name).mkdir(parents=True)
    for part, n in (("train", 20), ("t10k", 10)):
        idx(folder / f"mnist/{part}-images-idx3-ubyte.gz", rng.integers(0, 255, (n, 28, 28), dtype=np.uint8))
        idx(folder / f"mnist/{part}-labels-idx1-ubyte.gz", (np.arange(n) % 10).astype(np.uint8))
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (folder / f"cifar/{name}.bin").write_bytes(bytes(3073) + b"\1" + bytes(3072))
    (folder / "cifar/batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    image = pytest.importorskip("PIL.Image")
    for i in range(12):
        image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(folder / f"images/{'ab'[i % 2]}/{i}.png")
    (folder / "text.txt").write_text("this is no data\n")
    (folder / "text.npz").write_text("this is no archive\n")
    (folder / "damaged/model.safetensors").write_bytes(b"\xff" * 100)
    (folder / "broken.py").write_text("def net(:\n")
    (folder / "fails.py").write_text("def net(image, classes, **placement):\n    raise RuntimeError('as planted')\n")
    (folder / "stops.py").write_text("raise RuntimeError('as planted')\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", *MINE, "--out", "run"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(things, tmp_path, monkeypatch):
    """A copy of the files, in which the command is called; modules imported from it are unloaded afterwards."""
    folder = tmp_path / "here"
    shutil.copytree(things, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr("xpnn.cli.bench.measure.REST", 0.0)
    monkeypatch.setattr("xpnn.cli.bench.measure.SAMPLE", 0.0)
    monkeypatch.setattr("xpnn.cli.bench.command.measure_limits", lambda backend, count: {})
    return folder


def contents(folder):
    """The contents of a folder, without the files that Python compiles."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def status(run, arguments):
    try:
        found = run(list(arguments))
    except SystemExit as stop:
        found = stop.code
    return found


def refused(capsys, folder, name, arguments, expected=2):
    """Call a command that must fail; returns the line that it prints."""
    before = contents(folder)
    capsys.readouterr()
    found = status(COMMANDS[name].run, arguments)
    out, err = capsys.readouterr()
    call_and_result = (name, arguments, found, out, err)
    assert found == expected, call_and_result
    assert len(err.splitlines()) == 1 and err.startswith(f"{name}: "), call_and_result
    assert out == "", call_and_result
    assert contents(folder) == before, call_and_result
    return err


def test_every_command_and_script_is_in_the_list():
    programs = {
        path.relative_to(folder).as_posix()
        for folder in (ROOT / "cli", ROOT / "scripts")
        for path in folder.rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    named = {Path(path).stem for path in programs - CHILDREN}
    assert named == {name for name in COMMANDS if " " not in name}
    assert {f"xpnn {name}" for name in SUBCOMMANDS} == {name for name in COMMANDS if " " in name}


def test_all_parsers_are_the_one_that_accepts_no_abbreviations():
    others = [
        path.name
        for folder in (ROOT / "cli", ROOT / "scripts")
        for path in folder.rglob("*.py")
        if "ArgumentParser(" in path.read_text(encoding="utf-8")
    ]
    assert others == []


@pytest.mark.parametrize("name", COMMANDS)
def test_an_abbreviated_option_is_refused_with_the_one_that_was_meant(capsys, here, name):
    with pytest.raises(SystemExit) as stop:
        COMMANDS[name].run(["--help"])
    assert stop.value.code == 0
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out))
    assert "--help" in options
    for option in sorted(options):
        for wrong in (option[:-1], f"{option[:-1]}=1", f"{option}x"):
            if wrong not in options:
                line = refused(capsys, here, name, [*COMMANDS[name].good, wrong])
                assert "did you mean --" in line and wrong.partition("=")[0] in line, line


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_refused(capsys, here, name):
    for wrong in ("--frobnicate", "--frobnicate=3", "-q"):
        assert "--help lists the options" in refused(capsys, here, name, [*COMMANDS[name].good, wrong])


WRONG = {
    "XPNN_BACKEND": "abacus",
    "XPNN_NUMERICS": "foo",
    "XPNN_NUM_THREADS": "abc",
    "XPNN_NUMBA": "foo",
    "XPNN_CUDA_KERNELS": "off",
    "XPNN_TRACEBACK": "2",
    "XPNN_BAKCEND": "numpy",
}


@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_variable_is_refused_by_every_command(capsys, here, monkeypatch, variable):
    monkeypatch.setenv(variable, WRONG[variable])
    for name, command in COMMANDS.items():
        if variable not in command.strays:
            line = refused(capsys, here, name, command.good)
            assert variable in line
            if variable in VARIABLES:
                assert f"got {WRONG[variable]!r}" in line and VARIABLES[variable].accepted in line


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.bad])
def test_bad_arguments_are_refused(capsys, here, name):
    command = COMMANDS[name]
    for case, (arguments, message) in command.bad.items():
        given = (*command.good, *arguments) if command.good[0].startswith("--") else arguments
        assert message in refused(capsys, here, name, given), case


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.data])
def test_unusable_data_is_refused(capsys, here, name):
    command = COMMANDS[name]
    for option in command.data:
        for data in ("", "nowhere", "nowhere.npz", "empty", "text.txt", "text.npz", "damaged", "/dev/null", "\0"):
            refused(capsys, here, name, [*command.good, option, data])


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.files or command.folders])
def test_an_unwritable_file_is_reported_before_the_work(capsys, here, name, monkeypatch):
    command = COMMANDS[name]
    for option in command.files:
        for place in ("nowhere/x.html", "empty", f"{NOWHERE}/x.html", "data.npz/x", "n" * 300):
            assert place[:7] in refused(capsys, here, name, [*command.good, option, place])
    for option in command.folders:
        for place in (f"{NOWHERE}/x/y", "data.npz/x"):
            refused(capsys, here, name, [*command.good, option, place] if option else [place, *command.good[1:]])


def test_a_backend_of_the_environment_is_used_and_an_option_counts_more(capsys, here, monkeypatch):
    pytest.importorskip("array_api_strict")
    monkeypatch.setenv("XPNN_BACKEND", "strict:device1")
    monkeypatch.setenv("XPNN_NUMERICS", "exact")
    mine = [word for word in MINE if word not in ("--backend", "numpy")]
    assert main(["train", *mine, "--out", "strict"]) == 0
    assert main(["train", *mine, "--out", "numpy", "--backend", "numpy", "--numerics", "fast"]) == 0
    metrics = [json.loads(Path(name, "metrics.json").read_text()) for name in ("strict", "numpy")]
    assert [(each["backend"], each["numerics"]) for each in metrics] == [("strict:device1", "exact"), ("numpy", "fast")]
    opened = []
    monkeypatch.setattr(
        "xpnn.cli.backend_option.get_backend",
        lambda name, **options: opened.append(name) or nn.get_backend("numpy", numerics="fast"),
    )
    for command in ("predict", "explain"):
        assert main([command, "run", "--data", "data.npz"]) == 0
        assert main([command, "run", "--data", "data.npz", "--backend", "numpy"]) == 0
    for name in ("xpnn parity", "xpnn bench"):
        good = [word for word in COMMANDS[name].good if word not in ("--backend", "numpy")]
        assert status(COMMANDS[name].run, good) == 0
        assert status(COMMANDS[name].run, [*good, "--backend", "numpy"]) == 0
    for name in ("train_mnist", "train_cifar10"):
        good = [word for word in COMMANDS[name].good if word not in ("--backend", "numpy")]
        with monkeypatch.context() as patch:
            patch.setattr(nn, "fit", lambda *arguments, **options: (_ for _ in ()).throw(MemoryError))
            assert status(COMMANDS[name].run, good) == 1
            assert status(COMMANDS[name].run, [*good, "--backend", "numpy"]) == 1
    assert opened == 6 * ["strict:device1", "numpy"]
    monkeypatch.setenv("XPNN_BACKEND", "")
    assert main(["predict", "run", "--data", "data.npz"]) == 0
    assert opened[-1] == "auto"


def test_a_backend_of_the_environment_that_does_not_work_is_named_with_the_variable(capsys, here, monkeypatch):
    pytest.importorskip("array_api_strict")
    monkeypatch.setenv("XPNN_BACKEND", "strict:device9")
    for name in ("xpnn info", "xpnn predict", "xpnn parity"):
        good = [word for word in COMMANDS[name].good if word not in ("--backend", "numpy")]
        assert "XPNN_BACKEND=strict:device9: " in refused(capsys, here, name, good)


RESUMED = {
    "of nothing": (("--resume", ""), "--resume"),
    "absent": (("--resume", "nowhere"), "there is no config.toml"),
    "a file": (("--resume", "data.npz"), "there is no config.toml"),
    "no run": (("--resume", "images"), "there is no config.toml"),
    "with another option": (("--resume", "run", "--lr", "1"), "leave out --lr"),
    "with a place": (("--resume", "run", "--out", "x"), "leave out --out"),
    "with force": (("--resume", "run", "--force"), "leave out --force"),
    "with a file": (("--resume", "run", "--config", "run/config.toml"), "leave out --config"),
    "with wrong epochs": (("--resume", "run", "--epochs", "0"), "--epochs"),
    "with a wrong backend": (("--resume", "run", "--backend", "abacus"), "abacus"),
    "with absent data": (("--resume", "run", "--data", "nowhere.npz"), "nowhere.npz"),
    "abbreviated": (("--resum", "run"), "did you mean --resume?"),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resume_that_is_refused_leaves_the_run_unchanged(capsys, here, case):
    arguments, message = RESUMED[case]
    assert message in refused(capsys, here, "xpnn train", arguments)


@pytest.mark.parametrize("left", ["no folder", "an empty folder", "the lock alone", "damaged ones put aside"])
def test_a_run_without_its_checkpoints_is_not_resumed(capsys, here, left):
    checkpoints = here / "run/checkpoints"
    if left == "damaged ones put aside":
        for path in checkpoints.iterdir():
            path.rename(path.with_name("other-" + path.name))
    else:
        shutil.rmtree(checkpoints)
    if left != "no folder":
        checkpoints.mkdir(exist_ok=True)
    if left == "the lock alone":
        (checkpoints / ".lock").touch()
    line = refused(capsys, here, "xpnn train", ["--resume", "run"])
    assert "there is no checkpoint in run/checkpoints; start again with: xpnn train --config run/config.toml" in line


def test_other_data_or_a_second_run_in_the_folder_changes_nothing(capsys, here):
    (here / "begun/checkpoints").mkdir(parents=True)
    np.savez("other.npz", x=np.ones((20, 8, 8), np.float32), y=np.arange(20) % 4)
    before = contents(here)
    assert main(["train", "--resume", "run", "--data", "other.npz"]) == 1
    with nn.Checkpoints("run/checkpoints"):
        assert main(["train", "--resume", "run"]) == 1
        assert main(["train", *MINE, "--out", "run", "--force"]) == 1
    assert contents(here) == before
    with nn.Checkpoints("begun/checkpoints"):
        before = contents(here)
        assert main(["train", *MINE, "--out", "begun"]) == 1
    assert "another run is writing to run/checkpoints" in capsys.readouterr().err
    assert contents(here) == before


def test_a_run_that_fails_before_its_first_checkpoint_changes_no_file(capsys, here, monkeypatch):
    before = contents(here)

    def fails(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("xpnn.training.training_step.TrainingStep._take", fails)
    for out in (["--out", "a/b"], [], ["--out", "run", "--force"], ["--out", "empty"]):
        assert main(["train", *MINE, *out]) == 1
        assert contents(here) == before


def test_force_deletes_files_of_a_run_and_nothing_else(here):
    mine = {"notes.txt", "checkpoints/step-by-step.safetensors", "checkpoints/step-1.json.bak", "checkpoints/a.json"}
    for name in mine:
        (here / "run" / name).write_text("mine")
    (here / "run/curves.png").write_text("of the former run")
    old = {path for path in contents(here / "run") if path.startswith("checkpoints/step-0")}
    assert old and main(["train", *MINE, "--seed", "5", "--out", "run", "--force"]) == 0
    after = contents(here / "run")
    assert all((here / "run" / name).read_text() == "mine" for name in mine)
    assert "curves.png" not in after and "seed = 5" in (here / "run/config.toml").read_text()


def test_a_run_killed_before_its_first_checkpoint_may_be_called_again(here):
    (here / "begun/checkpoints").mkdir(parents=True)
    (here / "begun/checkpoints/.lock").touch()
    assert main(["train", *MINE, "--out", "begun"]) == 0


def test_a_link_to_nothing_in_the_place_of_runs_is_one_line(capsys, here):
    (here / "runs").symlink_to(here / "nowhere")
    refused(capsys, here, "xpnn train", MINE)


def forked(folder, run, arguments, first=lambda: None, streams=None, at=None, number=None):
    """Call a command in a child whose streams are files unless others are given; its status, output and errors.

    With ``at``, send it a signal once its output contains that.
    """
    out, err = folder.parent / "out.txt", folder.parent / "err.txt"
    pid = os.fork()
    if pid == 0:
        code = 99
        # PyTorch's threads do not exist in a forked child, which would wait for them for ever.
        bench_command.find_pytorch = lambda backend: (None, "no opponent in a child")
        try:
            opened = streams or [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (out, err)]
            for stream, given in zip((1, 2), opened, strict=True):
                os.dup2(given, stream)
            sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w", closefd=False), "utf-8") for n in (1, 2))
            sys.stdout.reconfigure(write_through=True)
            sys.stderr.reconfigure(write_through=True)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            first()
            code = status(run, arguments)
        except BaseException as error:
            import traceback

            traceback.print_exception(error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 98)
    until = time.monotonic() + 60
    while at is not None and time.monotonic() < until:
        if any(path.exists() and at in path.read_text() for path in (out, err)):
            os.kill(pid, number)
            break
        time.sleep(0.005)
    _, ended = os.waitpid(pid, 0)
    said = ("", "") if streams else (out.read_text(), err.read_text())
    return os.waitstatus_to_exitcode(ended), *said


AT = {
    "xpnn train": ("epoch   ", "continue with: xpnn train --resume long"),
    "xpnn parity": ("same", "no file was written"),
    "xpnn bench": ("plain", "no file was written"),
    "train_mnist": ("epoch   ", "which is saved in long/checkpoints"),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("name", AT)
def test_a_signal_ends_it_with_a_line_and_its_status(here, name, number):
    at, message = AT[name]
    found, _, err = forked(here, COMMANDS[name].run, COMMANDS[name].long, at=at, number=number)
    line = err.splitlines()[-1]
    assert found == 128 + number, err
    assert line.startswith(f"{name}: ") and message in line and "Traceback" not in err
    assert ("interrupted" in line) or number == signal.SIGTERM, line
    assert not list(here.rglob("*.partial"))


def full():
    """Limit files to 64 bytes, which the system reports as it does a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("name", "arguments", "file"),
    [
        ("xpnn parity", ("--json", "new"), "new"),
        ("xpnn parity", ("--html", "new"), "new"),
        ("xpnn parity", ("--json", "text.txt"), "text.txt"),
        ("xpnn bench", ("--json", "new"), "new"),
        ("xpnn bench", ("--lines", "new"), "new"),
        ("xpnn bench", ("--html", "new"), "new"),
        ("xpnn explain", ("--out", "new.png"), "new.png"),
        ("xpnn explain", ("--out", "new.svg"), "new.svg"),
        ("xpnn train", (), "out/"),
        ("train_mnist", (), "out/"),
        ("exact_matrix", ("--json", "new"), "new"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_piece_of_a_file(here, monkeypatch, name, arguments, file):
    """The output goes to pipes here, which have no size."""
    if name == "exact_matrix":
        monkeypatch.setattr(exact_matrix, "configurations", lambda backend, dispatched: iter(()))
        monkeypatch.setattr(exact_matrix, "run_task", lambda task, environment: {"dispatched": []})
    before = contents(here)
    read, write = os.pipe()
    found, _, _ = forked(here, COMMANDS[name].run, [*COMMANDS[name].good, *arguments], full, (write, write))
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as said:
        text = said.read()
    assert found == 1 and "Traceback" not in text, text
    assert f"{name}: " in text and "File too large" in text and file in text
    left = {path: content for path, content in contents(here).items() if not path.startswith("out")}
    assert left == before
    assert not [path for path in here.rglob("out/**/*") if path.is_file() and path.name != ".lock"]


def test_an_error_of_our_own_shows_its_traceback(here, monkeypatch):
    monkeypatch.setattr("xpnn.cli.predict.predict", lambda *arguments: {}["a bug"])
    with pytest.raises(KeyError, match="a bug"):
        main(["predict", "run", "--data", "data.npz"])


def test_a_variable_shows_the_traceback_of_every_error(capsys, here, monkeypatch):
    monkeypatch.setenv("XPNN_TRACEBACK", "1")
    assert main(["predict", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.splitlines()[-1].startswith("xpnn predict: no model.safetensors")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "x.bin"), MemoryError(), RuntimeWarning("odd")])
def test_an_error_of_the_system_is_one_line_and_status_1(capsys, here, monkeypatch, error):
    def fails(*arguments):
        raise error

    monkeypatch.setattr("xpnn.cli.predict.predict", fails)
    assert main(["predict", "run", "--data", "data.npz"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("xpnn predict: ") and len(line.splitlines()) == 1
    assert ("x.bin: Input/output error" in line) or "not enough memory" in line or "RuntimeWarning: odd" in line


def shell(command, here, **environment):
    """Run a line of the shell, in which ``xpnn`` is this command."""
    words = f'xpnn() {{ "{sys.executable}" -m xpnn "$@"; }}; set -o pipefail; {command}'
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "XPNN_"))}
    kept |= {"XPNN_BACKEND": "numpy", "XPNN_NUMBA": "0", **environment}
    return subprocess.run(
        ["bash", "-c", words],
        cwd=here,
        env={name: value for name, value in kept.items() if value is not None},
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
EXPLAINED = "xpnn explain run --data data.npz --out é.png && test -s é.png"
TRAINED = f"xpnn train {' '.join(MINE)} --out é && xpnn train --resume é && test -s é/model.safetensors"
SURROUNDINGS = {
    "closed output": ("xpnn parity --list >&-", {}, 0, ""),
    "closed streams": ("xpnn parity --list <&- >&- 2>&-", {}, 0, ""),
    "full output": ("xpnn parity --list > /dev/full", {}, 1, "xpnn parity: No space left on device"),
    "help to a full disk": ("xpnn train --help > /dev/full", {}, 1, "xpnn train: No space left on device"),
    "reader that is gone": ("xpnn parity --list | true", {}, 1, ""),
    "ASCII": (TRAINED, ASCII, 0, None),
    "ASCII output, no home, no width": (
        EXPLAINED,
        {"PYTHONIOENCODING": "ascii", "HOME": None, "COLUMNS": "0", "TERM": None},
        0,
        None,
    ),
    "a width of 1": ("xpnn train --help", {"COLUMNS": "1"}, 0, ""),
    "warnings are errors": ("xpnn predict run --data data.npz", {"PYTHONWARNINGS": "error"}, 0, ""),
    "deleted folder": (
        "mkdir gone && cd gone && rmdir ../gone && xpnn train --data ../data.npz --epochs 1",
        {"PYTHONPATH": str(Path(nn.__file__).parents[1])},
        2,
        "xpnn train: ",
    ),
}


@pytest.mark.parametrize("case", SURROUNDINGS)
def test_surroundings(here, case):
    command, environment, expected, message = SURROUNDINGS[case]
    done = shell(command, here, **environment)
    err = done.stderr.decode("utf-8", "replace")
    assert done.returncode == expected, (done.stdout, err)
    assert "Traceback" not in err and "Exception ignored" not in err
    if message is not None:
        assert len(err.splitlines()) == bool(message) and err.startswith(message), err
