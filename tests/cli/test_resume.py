"""A run that was stopped, at any moment and in any way, ends with the bits of one that was not."""

import hashlib
import io
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.main import main
from xpnn.interop import safetensors
from xpnn.training.checkpoints import Checkpoints

NETS = """
import xpnn as nn

def small(image, classes, **placement):
    channels, height, width = image
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding="same"), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2),
        nn.Flatten(), nn.Dense(6 * (height // 2) * (width // 2), classes), **placement,
    )

def other(image, classes, **placement):
    return nn.Sequential(nn.Flatten(), nn.Dense(image[0] * image[1] * image[2], classes), **placement)
"""
OPTIONS = {
    "model": "nets:small",
    "epochs": 8,
    "batch": 10,
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr": 0.05,
    "schedule": "one-cycle",
    "augment": ["flip", "crop", "cutout"],
    "clip-norm": 1.0,
    "checkpoint-every": 3,
    "backend": "numpy",
    "no-pictures": True,
}


def arguments(**options):
    """Arguments of ``xpnn train``."""
    call = ["train"]
    for name, value in {**OPTIONS, **options}.items():
        name = name.replace("_", "-")
        if value is True:
            call.append(f"--{name}")
        else:
            call += [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
    return call


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a net of the user's own, and data."""
    (tmp_path / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    x = rng.random((150, 1, 8, 8)).astype(np.float32)
    x[np.arange(150), 0, 2 * y] += 1.0
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(OPTIONS, "data", str(tmp_path / "rows.npz"))
    yield tmp_path
    sys.modules.pop("nets", None)


def digest(folder):
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def history(folder):
    """The table without the times."""
    return [line.rpartition(",")[0] for line in (Path(folder) / "history.csv").read_text().splitlines()]


def checkpoints(folder):
    return sorted((Path(folder) / "checkpoints").glob("step-*.json"))


def child(call, folder, die_at=0, within="checkpoints/"):
    """A run in another process, which kills itself at its n-th operation on a file below a folder."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.stderr = sys.stdout = io.StringIO()
    done = 0

    def watch(event, details):
        nonlocal done
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and within in str(details[0]):
            done += ".lock" not in str(details[0])
            if done == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if die_at:
        sys.addaudithook(watch)
    sys.exit(main(call))


def test_killed_twenty_times_it_ends_with_the_bits_of_a_run_that_was_not(here):
    """Half of the kills come from outside at a random moment, half at a random point of writing a checkpoint."""
    assert main(arguments(out="whole")) == 0
    rng = np.random.default_rng(7)
    context = multiprocessing.get_context("fork")
    reached, partial, ends = [], 0, []
    while len(ends) < 20:
        die_at = int(rng.integers(1, 24)) if len(ends) % 2 else 0
        call = ["train", "--resume", "broken"] if Path("broken/config.toml").exists() else arguments(out="broken/")
        process = context.Process(target=child, args=(call, str(here), die_at))
        process.start()
        process.join(None if die_at else float(rng.uniform(0.001, 0.08)))
        process.kill()
        process.join()
        ends.append(process.exitcode)
        partial += any(Path("broken/checkpoints").glob(".*.partial"))
        reached.append(len(checkpoints("broken")) and int(checkpoints("broken")[-1].stem[5:]))
    assert set(ends) == {-signal.SIGKILL}
    assert reached == sorted(reached), "a checkpoint was lost"
    assert len(set(reached)) > 4 and partial, (reached, partial)
    assert main(["train", "--resume", "broken"]) == 0
    assert digest("broken") == digest("whole")
    assert history("broken") == history("whole")


def test_killed_at_any_moment_before_its_first_checkpoint_the_same_command_begins_again(here):
    """Files that a run leaves before its first checkpoint do not make the folder count as another run's."""
    assert main(arguments(out="whole")) == 0
    context = multiprocessing.get_context("fork")
    left = set()
    for die_at in range(1, 40):
        folder = Path(f"early-{die_at}")
        process = context.Process(target=child, args=(arguments(out=folder), str(here), die_at, folder.name))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if (folder / "config.toml").exists():
            break
        left.add(tuple(sorted(path.name for path in folder.iterdir())) if folder.exists() else None)
        assert main(arguments(out=folder)) == 0
        assert digest(folder) == digest("whole")
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert {(".writable",), (".config.toml.partial", "checkpoints")} <= left, left


@pytest.fixture
def stopped(here):
    """A run that was killed somewhere in its second epoch."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=child, args=(arguments(out="run"), str(here), 60))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and len(checkpoints("run")) >= 2
    return Path("run")


@pytest.mark.parametrize("how", ["truncated", "one bit"])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_checkpoint_is_passed_over_and_the_bits_are_right(stopped, capsys, suffix, how):
    assert main(arguments(out="whole")) == 0
    path = max((stopped / "checkpoints").glob(f"step-*{suffix}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content if how == "one bit" else content[: len(content) // 2])
    capsys.readouterr()
    assert main(["train", "--resume", "run"]) == 0
    assert f"{path} is damaged" in capsys.readouterr().err
    assert digest("run") == digest("whole")


def test_if_all_checkpoints_are_damaged_no_new_run_is_started(stopped, capsys):
    for path in (stopped / "checkpoints").glob("step-*.safetensors"):
        path.write_bytes(b"")
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert main(["train", "--resume", "run"]) == 1
    assert "none of the checkpoints" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_another_model_s_checkpoint_is_refused_with_what_differs(stopped, capsys):
    config = stopped / "config.toml"
    config.write_text(config.read_text().replace("nets:small", "nets:other"))
    before = {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()}
    assert main(["train", "--resume", "run"]) == 1
    error = capsys.readouterr().err
    assert "is not of this run" in error and "1.weight" in error
    assert {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()} == before
    assert not (stopped / "model.safetensors").exists()


def full(call, answers):
    """A run whose files are limited to 2 kB, which the system reports as it does a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    sys.stderr = io.StringIO()
    status = main(call)
    answers.put((status, sys.stderr.getvalue()))


def test_a_full_disk_stops_the_run_with_an_error_and_loses_nothing(stopped):
    assert main(arguments(out="whole")) == 0
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=full, args=(["train", "--resume", "run"], answers))
    process.start()
    status, error = answers.get(timeout=60)
    process.join()
    assert status == 1 and "File too large" in error and "is still good; free some space, then resume" in error
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before
    assert main(["train", "--resume", "run"]) == 0
    assert digest("run") == digest("whole")


def test_other_data_in_the_file_s_place_is_refused(stopped, here, capsys):
    with np.load("rows.npz") as file:
        np.savez("rows.npz", x=file["x"] * 2.0, y=file["y"])
    assert main(["train", "--resume", "run"]) == 1
    assert "is not of this run: its data was that of SHA-256" in capsys.readouterr().err


def test_a_run_that_ended_is_not_trained_further(here, capsys):
    assert main(arguments(out="run")) == 0
    before = digest("run"), history("run")
    assert main(["train", "--resume", "run"]) == 0
    assert (digest("run"), history("run")) == before


def test_a_run_may_be_resumed_with_more_epochs(here):
    assert main(arguments(out="long", schedule="constant", epochs=3)) == 0
    assert main(arguments(out="run", schedule="constant", epochs=2)) == 0
    assert main(["train", "--resume", "run", "--epochs", "3"]) == 0
    assert digest("run") == digest("long") and history("run") == history("long")


def test_a_schedule_of_fixed_length_can_t_be_made_longer(here, capsys):
    assert main(arguments(out="run")) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--epochs", "9"]) == 2
    assert "one-cycle" in capsys.readouterr().err


@pytest.mark.parametrize("backends", [("numpy", "strict"), ("strict", "numpy"), ("numpy", "torch")])
def test_in_exact_numerics_a_run_ends_on_another_backend_with_the_same_bits(here, backends):
    if "torch" in backends:
        pytest.importorskip("torch")
    first, second = backends
    assert main(arguments(out="whole", numerics="exact", epochs=2, backend="numpy")) == 0
    context = multiprocessing.get_context("fork")
    call = arguments(out="run", numerics="exact", epochs=2, backend=first)
    process = context.Process(target=child, args=(call, str(here), 25))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert main(["train", "--resume", "run", "--backend", second]) == 0
    assert digest("run") == digest("whole") and history("run") == history("whole")
    assert json.loads(Path("run/metrics.json").read_text())["backend"] == second


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_continue(here, number):
    assert main(arguments(out="whole", epochs=30)) == 0
    command = [sys.executable, "-m", "xpnn", *arguments(out="run", epochs=30, **{"checkpoint-every": 1000})]
    # Not ignored, as in the foreground of a shell.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_heard)
    for line in process.stderr:
        if line.startswith("epoch"):
            process.send_signal(number)
            break
    error = process.stderr.read()
    assert process.wait(60) == 128 + number, error
    assert "which is saved in run/checkpoints; continue with: xpnn train --resume run" in error
    assert main(["train", "--resume", "run"]) == 0
    assert digest("run") == digest("whole")


def _heard():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_second_run_on_the_folder_is_refused_and_the_first_goes_on(here, capsys):
    with Checkpoints("run/checkpoints"):
        Path("run/config.toml").write_text("")
        for call in (arguments(out="run", force=True), ["train", "--resume", "run"]):
            assert main(call) == 1
            assert "another run is writing to run/checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--resume", "nowhere"], "there is no config.toml; name a folder that xpnn train wrote"),
        (["--resume", "run", "--lr", "0.1"], "leave out --lr"),
        (["--resume", "run", "--out", "b"], "leave out --out"),
    ],
)
def test_a_resume_that_is_refused_is_one_line(here, capsys, call, message):
    assert main(["train", *call]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_new_run_in_an_old_one_s_folder_starts_without_its_checkpoints(stopped):
    assert main(arguments(out="whole")) == 0
    assert main([*arguments(out="run"), "--force"]) == 0
    assert digest("run") == digest("whole") and history("run") == history("whole")


@pytest.mark.parametrize("schedule", ["step", "exponential"])
def test_a_schedule_without_an_end_is_unchanged_when_a_run_is_resumed_with_more_epochs(here, schedule):
    assert main(arguments(out="run", schedule=schedule, epochs=3)) == 0
    assert main(["train", "--resume", "run", "--epochs", "5"]) == 0
    assert main(["train", "--resume", "run", "--epochs", "6"]) == 0
    assert main(arguments(out="whole", schedule=schedule, epochs=6, schedule_epochs=3)) == 0
    assert digest("run") == digest("whole") and history("run") == history("whole")


def test_a_run_without_schedule_epochs_is_resumed_with_the_epochs_of_the_run(here):
    assert main(arguments(out="run", schedule="step", epochs=3)) == 0
    config = Path("run/config.toml")
    config.write_text("".join(line for line in config.open() if not line.startswith("schedule-epochs")))
    assert main(["train", "--resume", "run", "--epochs", "4"]) == 0
    assert main(arguments(out="whole", schedule="step", epochs=4, schedule_epochs=3)) == 0
    assert digest("run") == digest("whole")


def test_the_schedule_of_a_configuration_with_other_epochs_has_their_length(here, capsys):
    assert main(arguments(out="short", schedule="cosine", epochs=2)) == 0
    assert main(["train", "--config", "short/config.toml", "--epochs", "4", "--out", "long"]) == 0
    assert main(arguments(out="whole", schedule="cosine", epochs=4)) == 0
    assert digest("long") == digest("whole") and history("long") == history("whole")


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_a_schedule_that_ends_before_the_run_is_refused(here, capsys, schedule):
    assert main(arguments(out="run", schedule=schedule, epochs=4, schedule_epochs=3)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"--schedule-epochs 3: the schedule {schedule} would end before" in error
    assert not Path("run").exists()


def test_patience_writes_the_weights_of_the_best_epoch_and_says_so(here, capsys):
    options = {"schedule": "constant", "lr": 0.3, "patience": 2, "epochs": 40}
    assert main(arguments(out="run", **options)) == 0
    printed = capsys.readouterr()
    metrics, best = json.loads(Path("run/metrics.json").read_text()), Checkpoints("run/checkpoints").best()
    rows = [line.split(",") for line in Path("run/history.csv").read_text().splitlines()]
    losses = [float(row[rows[0].index("validation_loss")]) for row in rows[1:]]
    epoch = int(np.argmin(losses)) + 1
    assert epoch < len(losses) < 40 and metrics["best_epoch"] == metrics["weights_of_epoch"] == epoch
    assert best.facts["history"][-1]["epoch"] == epoch and metrics["test_loss"] == losses[epoch - 1]
    saved = safetensors.read("run/model.safetensors")[0]
    assert saved.keys() == best.weights.keys()
    assert all(np.array_equal(array, best.weights[name]) for name, array in saved.items())
    assert f"the weights are those of epoch {epoch}, the best by validation loss" in printed.err
    assert f"best epoch         {epoch}, of held-out loss" in printed.out and f"of epoch {epoch}\n" in printed.out
    before = digest("run")
    assert main(["train", "--resume", "run"]) == 0
    assert digest("run") == before


def test_without_patience_the_last_weights_are_written(here):
    assert main(arguments(out="run", epochs=2)) == 0
    assert json.loads(Path("run/metrics.json").read_text())["weights_of_epoch"] == 2


def test_a_last_batch_of_one_sample_is_one_line_and_nothing_is_begun(here, capsys):
    """120 images are trained on; the net of nets.py has statistics of 64 values of each image, this one of one."""
    Path("nets.py").write_text(Path("nets.py").read_text().replace("other(", "flat(").replace(
        "nn.Flatten(), nn.Dense(image[0]", "nn.Flatten(), nn.BatchNorm1d(64), nn.Dense(image[0]"
    ))  # fmt: skip
    for options, what in (({"batch": 119}, "--drop-last"), ({"batch": 17, "accumulate": 7}, "parts of 1 sample")):
        capsys.readouterr()
        assert main(arguments(out="run", model="nets:flat", **options)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "sample" in error and what in error
        assert not Path("run").exists()
    assert main(arguments(out="run", model="nets:flat", batch=119, epochs=2, **{"drop-last": True})) == 0
    assert max(Checkpoints("run/checkpoints").steps()) == 2


def test_a_run_evaluates_in_batches_of_training_s_size_and_out_of_memory_loses_nothing(here, capsys, monkeypatch):
    assert main(arguments(out="whole", epochs=2, batch=20)) == 0
    sizes, forward = [], nn.Dense._forward

    def short(self, x):
        sizes.append(x.shape[0])
        if not self.training and x.shape[0] > 9:
            raise MemoryError("planted")
        return forward(self, x)

    with monkeypatch.context() as patched:
        patched.setattr(nn.Dense, "_forward", short)
        assert main(arguments(out="run", epochs=2, batch=20, **{"checkpoint-every": 1000})) == 1
    assert "batch of 20 does not fit" in capsys.readouterr().err and max(sizes) == 20
    assert Checkpoints("run/checkpoints").steps() == [6]
    assert main(["train", "--resume", "run"]) == 0
    assert history("run") == history("whole")
