"""The training scripts, on small files in the formats in which the data sets are distributed."""

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.scripts import train_cifar10, train_mnist


def idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(head + array.tobytes())


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 60), ("t10k", 20)):
        y = (np.arange(n) % 10).astype(np.uint8)
        x = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        x[np.arange(n), 2 * y + 4] += 180
        idx(folder / f"{part}-images-idx3-ubyte.gz", x)
        idx(folder / f"{part}-labels-idx1-ubyte.gz", y)
    return folder


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, n in (*((f"data_batch_{k}.bin", 4) for k in range(1, 6)), ("test_batch.bin", 4)):
        rows = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(n) % 10
        (folder / name).write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    return folder


@pytest.mark.parametrize("backend", ["numpy", "strict", "torch"])
def test_mnist_is_learnt_on_any_backend(mnist, tmp_path, capsys, backend):
    try:
        nn.get_backend(backend)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))
    epochs = 12 if backend == "numpy" else 3
    command = [
        "--data",
        str(mnist),
        "--backend",
        backend,
        "--epochs",
        str(epochs),
        "--batch",
        "20",
        "--out",
        str(tmp_path / "out"),
    ]
    history = train_mnist.main(command)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert epochs < 12 or history["validation_accuracy"][-1] > 0.9
    assert {"model.safetensors", "history.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert "of 20 test images are right" in capsys.readouterr().out


def test_mnist_is_resumed_with_the_same_result(mnist, tmp_path, monkeypatch):
    def command(out, *more):
        return [
            "--data",
            str(mnist),
            "--backend",
            "numpy",
            "--epochs",
            "4",
            "--batch",
            "20",
            "--out",
            str(tmp_path / out),
            *more,
        ]

    train_mnist.main(command("whole"))
    real, seen = nn.History.append, []

    def stop(self, row):
        real(self, row)
        seen.append(row)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(nn.History, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        train_mnist.main(command("broken"))
    monkeypatch.undo()
    train_mnist.main(command("broken", "--resume"))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]


def test_cifar10_is_trained_with_augmentation_and_one_cycle(cifar, tmp_path):
    command = ["--data", str(cifar), "--backend", "numpy", "--epochs", "1", "--batch", "10", "--out", str(tmp_path)]
    history = train_cifar10.main(command)
    assert len(history["lr"]) == 1 and history["lr"][0] < 0.4
    assert np.isfinite(history["validation_loss"]).all()


@pytest.mark.parametrize("script", [train_mnist, train_cifar10])
def test_they_run_as_files_and_list_their_options(script):
    done = subprocess.run([sys.executable, script.__file__, "--help"], capture_output=True, text=True, check=True)
    assert "--backend" in done.stdout and "--resume" in done.stdout
    assert len(Path(script.__file__).read_text().splitlines()) < 70


@pytest.mark.parametrize(
    ("script", "side", "classes", "batch", "message"),
    [
        (train_mnist, 32, 1, 4, "one class"),
        (train_cifar10, 32, 1, 4, "one class"),
        (train_cifar10, 8, 2, 7, "a last batch of 1 sample"),
    ],
)
def test_unusable_data_is_refused_before_a_folder_is_made(script, side, classes, batch, message, tmp_path, capsys):
    """Of 10 images 8 are trained on."""
    file = tmp_path / "few.npz"
    x = np.random.default_rng(0).random((10, 3, side, side), np.float32)
    np.savez(file, x=x, y=np.arange(10) % classes)
    call = ["--data", str(file), "--backend", "numpy", "--batch", str(batch), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stopped:
        script.main(call)
    assert stopped.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
