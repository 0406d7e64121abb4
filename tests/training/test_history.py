"""The history: its best epoch, and writing and reading it as a file."""

from math import isnan, nan

import pytest
from hostile import NO_FILES, limits, no_file

from xpnn import History

ROWS = [
    {"epoch": 1, "train_loss": 1 / 3, "validation_loss": 0.5, "validation_accuracy": 0.7},
    {"epoch": 2, "train_loss": 5e-324, "validation_loss": nan, "validation_accuracy": 0.9},
    {"epoch": 3, "train_loss": 1.7976931348623157e308, "validation_loss": 0.25, "validation_accuracy": 0.9},
]


def test_best_is_smallest_loss_and_largest_accuracy_and_the_first_of_equals():
    history = History.from_rows(ROWS)
    assert history.best()["epoch"] == 3
    assert history.best("validation_accuracy")["epoch"] == 2
    assert history.best("validation_accuracy", "min")["epoch"] == 1
    assert history.best("epoch", "max")["epoch"] == 3


def test_best_refuses_what_has_none():
    history = History.from_rows(ROWS)
    with pytest.raises(KeyError, match="test_loss"):
        history.best("test_loss")
    with pytest.raises(ValueError, match="'least'"):
        history.best(mode="least")
    with pytest.raises(ValueError, match="NaN in every epoch"):
        History.from_rows(ROWS[1:2]).best()


def test_a_file_gives_back_every_bit(tmp_path):
    History.from_rows(ROWS).to_csv(tmp_path / "h.csv")
    again = History.from_csv(tmp_path / "h.csv")
    assert repr(again.rows) == repr(ROWS)
    assert isinstance(again.rows[0]["epoch"], int)
    again.to_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "h.csv").read_bytes()


def test_an_empty_history_goes_through_a_file(tmp_path):
    History().to_csv(tmp_path / "h.csv")
    assert History.from_csv(tmp_path / "h.csv").rows == []


def test_a_column_that_starts_later_is_nan_before(tmp_path):
    history = History.from_rows([{"epoch": 1}, {"epoch": 2, "lr": 0.1}])
    history.to_csv(tmp_path / "h.csv")
    for each in (history, History.from_csv(tmp_path / "h.csv")):
        assert list(each) == ["epoch", "lr"]
        assert isnan(each["lr"][0]) and each["lr"][1] == 0.1


def test_rows_are_copies():
    rows = [{"epoch": 1}]
    History.from_rows(rows).rows[0]["epoch"] = 9
    assert rows == [{"epoch": 1}]


@pytest.mark.parametrize("line", ["1,soon", "1,0.5,0.6", "1"])
def test_a_damaged_file_is_refused_by_line(tmp_path, line):
    (tmp_path / "h.csv").write_text(f"epoch,train_loss\n1,0.5\n{line}\n")
    with pytest.raises(ValueError, match=r"h\.csv, line 3: "):
        History.from_csv(tmp_path / "h.csv")


DAMAGE = {
    "no text": (b"epoch,loss\n\xff,1\n", "is no table of numbers"),
    "a NUL": (b"epoch,loss\n1,0\0\n", r"line 2: |NUL"),
    "a long field": (b"epoch,loss\n1," + b"9" * 200_000 + b"\n", "is no table of numbers"),
    "many digits": (b"epoch,loss\n1," + b"x" * 9000 + b"\n", r"line 2: a history"),
    "a column twice": (b"epoch,loss,loss\n1,2,3\n", "two columns of one name"),
    "a number too much": (b"epoch,loss\n1,2,3\n", "line 2: a history"),
    "a number too few": (b"epoch,loss\n1\n", "line 2: a history"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_one_line(tmp_path, case):
    content, message = DAMAGE[case]
    (tmp_path / "h.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        History.from_csv(tmp_path / "h.csv")
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 600
    assert str(tmp_path / "h.csv") in str(error.value)


@pytest.mark.parametrize("kind", NO_FILES)
def test_a_path_that_is_no_file_is_an_error(tmp_path, kind):
    with limits(), pytest.raises(OSError, match=r"h\.csv"):
        History.from_csv(no_file(kind, tmp_path / "h.csv"))


def test_a_file_without_end_is_not_read(tmp_path):
    with (tmp_path / "h.csv").open("wb") as file:
        file.truncate(1 << 40)
    with limits(), pytest.raises(ValueError, match="too many"):
        History.from_csv(str(tmp_path / "h.csv"))
