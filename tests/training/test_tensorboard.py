"""Event files, read by TensorBoard."""

import subprocess
import sys

import pytest

from xpnn.training.tensorboard import TensorBoard

ROWS = [
    {"epoch": 1, "train_loss": 0.5, "validation_accuracy": 0.75, "lr": 0.001, "images_per_second": 1000.0},
    {"epoch": 2, "train_loss": 0.25, "validation_accuracy": 0.875, "lr": 0.0005, "images_per_second": 2000.0},
]


@pytest.fixture
def reader():
    found = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    return found.EventAccumulator


def test_tensorboard_reads_every_scalar_by_epoch(tmp_path, reader):
    with TensorBoard(tmp_path / "logs") as board:
        for row in ROWS:
            board.epoch(row)
    board.close()
    found = reader(str(tmp_path / "logs")).Reload()
    assert set(found.Tags()["scalars"]) == {"loss/train", "accuracy/validation", "lr", "images_per_second"}
    points = [(event.step, event.value) for event in found.Scalars("loss/train")]
    assert points == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in found.Scalars("accuracy/validation")] == [0.75, 0.875]


def test_an_epoch_is_written_to_disk_before_the_next(tmp_path, reader):
    board = TensorBoard(tmp_path)
    for row in ROWS:
        board.epoch(row)
    assert [event.step for event in reader(str(tmp_path)).Reload().Scalars("lr")] == [1, 2]
    board.close()


def test_a_resumed_run_continues_in_the_same_folder(tmp_path, reader):
    for row in ROWS:
        with TensorBoard(tmp_path) as board:
            board.epoch(row)
    assert len(list(tmp_path.iterdir())) == 2
    found = reader(str(tmp_path)).Reload()
    assert [event.step for event in found.Scalars("lr")] == [1, 2]


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    assert not TensorBoard.available()
    with pytest.raises(ImportError, match=r"pip install 'tensorboard>=2\.16'"):
        TensorBoard(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_importing_the_writer_loads_no_tensorboard():
    code = "import sys, xpnn.training.tensorboard; print('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
