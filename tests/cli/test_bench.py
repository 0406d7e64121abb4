"""``xpnn bench`` measures, reports what it measured, and checks that both sides computed the same."""

import json
import sys
from html.parser import HTMLParser

import pytest

import xpnn as nn
from xpnn.cli.bench import (
    command,
    cost_growth,
    exact_cost,
    growth_plot,
    layers,
    machine,
    measure,
    net_steps,
    other_processes,
    peak_memory,
    speed_plots,
)
from xpnn.cli.bench.comparison import Row
from xpnn.cli.main import main
from xpnn.layers import Conv2d

CONTRACT = {
    *("kind", "name", "phase", "batch", "ours_ms", "torch_ms", "ratio", "ours_peak_mb", "torch_peak_mb"),
    *("relative_error", "torch_format", "plain_ms", "plain_ratio", "samples", "discarded", "disturbed", "gflops"),
}
MACHINE = {
    *("processor", "cores", "threads", "memory", "python", "numpy", "torch", "date", "gemm_gflops", "copy_gb_per_s"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No rests, short samples, small nets and layers, no check of other processes."""
    monkeypatch.setattr(measure, "REST", 0.0)
    monkeypatch.setattr(measure, "SAMPLE", 0.0)
    monkeypatch.setattr(other_processes.Watch, "wait_until_quiet", lambda self, seconds: "")
    monkeypatch.setattr(other_processes.Watch, "foreign", lambda self, since: 0.0)
    monkeypatch.setattr(machine, "ORDER", 32)
    monkeypatch.setattr(machine, "COPIED", 1024)
    monkeypatch.setattr(exact_cost, "NETS", {"lenet": ((1, 8, 8), 4)})
    pooled = layers.LayerCase("max-pool", pool, (3, 6, 6), 2, phases=layers.POOL)
    monkeypatch.setattr(command, "CASES", (layers.conv(3, 6, 4, 3, 2), layers.CASES[-4], pooled))


def pool(b):
    return layers.MaxPool2d(2, backend=b)


def report(tmp_path, *arguments, status=0):
    target = tmp_path / "rows.json"
    assert main(["bench", "--rounds", "1", "--json", str(target), *arguments]) == status
    return json.loads(target.read_text())


def test_rows_are_added_to_a_file_as_they_come(tmp_path, monkeypatch):
    lines, real = tmp_path / "rows.jsonl", command.layer_rows

    def cut(*arguments):
        yield next(real(*arguments))
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(command, "layer_rows", cut)
    with pytest.raises(RuntimeError, match="is gone"):
        main(["bench", "--layers", "--rounds", "1", "--lines", str(lines)])
    (row,) = (json.loads(line) for line in lines.read_text().splitlines())
    assert row.keys() >= CONTRACT and row["name"] == "conv 3x6x6->4 3x3"


@pytest.mark.usefixtures("array_functions")
def test_small_nets_are_measured_beside_pytorch(capsys, tmp_path):
    pytest.importorskip("torch")
    found = report(tmp_path, "--batch", "2", "--no-memory")
    assert found["machine"].keys() >= MACHINE
    rows = found["rows"]
    assert all(row.keys() >= CONTRACT and row["kind"] == "net" for row in rows)
    assert [(row["name"], row["phase"], row["batch"], row["compiled"]) for row in rows] == [
        (name, *row)
        for name in ("lenet5", "mlp", "digits_lenet")
        for row in (("step", 2, False), ("step", 2, True), ("inference", 1, False), ("inference", 2, False))
    ]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["torch_ms"] / row["ours_ms"])
        assert row["kernels"] == "" and not row["wrong"]
        error, other = ("compiled_error", "relative_error") if row["compiled"] else ("relative_error", "compiled_error")
        assert row[error] < 1e-4 and row[other] is None
        assert row["torch_format"] in ("contiguous_format", "channels_last")
        assert row["samples"] == 1 and row["ours_peak_mb"] is None
    assert rows[0]["optimizer"] == "SGD, momentum 0.9" and rows[0]["float64_error"] < 1e-10
    assert "none wrong" in capsys.readouterr().out


def test_layers_are_measured_beside_pytorch_and_the_textbook(tmp_path):
    pytest.importorskip("torch")
    rows = report(tmp_path, "--layers")["rows"]
    assert [(row["kind"], row["name"], row["phase"]) for row in rows] == [
        ("layer", "conv 3x6x6->4 3x3", "forward"),
        ("layer", "conv 3x6x6->4 3x3", "backward"),
        ("layer", "softmax cross-entropy 1000", "forward"),
        ("layer", "softmax cross-entropy 1000", "backward"),
        ("layer", "max-pool", "forward"),
        ("layer", "max-pool", "backward"),
        ("layer", "max-pool", "step"),
    ]
    forward, backward = rows[:2]
    assert forward["flops"] == 2 * 2 * 36 * 4 * 27 and backward["flops"] == 2 * forward["flops"]
    assert forward["bytes"] == 4 * (2 * 3 * 36 + 4 * 27 + 4 + 2 * 4 * 36)
    assert forward["gflops"] == pytest.approx(forward["flops"] / forward["ours_ms"] * 1e-6)
    assert forward["plain_ratio"] == pytest.approx(forward["plain_ms"] / forward["ours_ms"])
    assert rows[2]["plain_ms"] is None and rows[2]["gflops"] is None


def test_a_wrong_result_is_named_and_fails(capsys, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    original = Conv2d._forward
    monkeypatch.setattr(Conv2d, "_forward", lambda self, x: original(self, x) * 1.01)
    rows = report(tmp_path, "--layers", "--only", "conv", status=1)["rows"]
    assert [row["wrong"] for row in rows] == [True, False]
    out = capsys.readouterr().out
    assert "WRONG: 1.0e-02 of the norm away" in out and "WRONG: conv 3x6x6->4 3x3 forward" in out


def test_a_wrong_gradient_of_a_net_is_found_in_float64(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    original = Conv2d.accumulate_grad
    monkeypatch.setattr(Conv2d, "accumulate_grad", lambda self, name, grad: original(self, name, grad * (1.0 + 1e-5)))
    rows = report(tmp_path, "--only", "digits_lenet", "--no-memory", "--batch", "2", status=1)["rows"]
    assert rows[0]["wrong"] and rows[0]["relative_error"] < 1e-4
    assert rows[0]["float64_error"] == pytest.approx(1e-5, rel=0.01)
    assert not rows[1]["wrong"]


def test_without_pytorch_only_ours_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    rows = report(tmp_path, "--nets", "--layers", "--only", "l", "--batch", "1", "--no-memory")["rows"]
    assert {"mlp", "lenet5", "max-pool"} <= {row["name"] for row in rows}
    assert all(row["ours_ms"] > 0 and row["torch_ms"] is None and row["ratio"] is None for row in rows)
    assert all(row["relative_error"] is None and not row["wrong"] for row in rows)
    assert "no usable PyTorch, so no ratios" in capsys.readouterr().out


def test_threads_are_restored_after_a_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    monkeypatch.setenv("XPNN_NUM_THREADS", str(before + 1))
    seen = []
    original = net_steps.TorchNet.infer
    monkeypatch.setattr(
        net_steps.TorchNet, "infer", lambda self, x: (seen.append(torch.get_num_threads()), original(self, x))[1]
    )
    found = report(tmp_path, "--only", "mlp", "--batch", "1", "--no-memory")
    assert set(seen) == {before + 1} == {found["machine"]["threads"]}
    assert torch.get_num_threads() == before


def test_adam_is_an_optimizer_too(tmp_path):
    (step, *_) = report(tmp_path, "--only", "mlp", "--optimizer", "adam", "--no-memory", "--batch", "2")["rows"]
    assert step["optimizer"] == "Adam"


@pytest.mark.skipif(not peak_memory.SELF.exists(), reason="the system tells no peak memory")
def test_peak_memory_grows_with_the_batch():
    b = nn.get_backend("numpy")
    (small, none), (large, _) = (peak_memory.peaks("mlp", b, None, batch) for batch in (1, 8000))
    # A batch of 8000 images has 8000 * 784 * 4 bytes.
    assert 0.0 < small < large - 25.0 and none is None


def test_peak_memory_of_pytorch_is_measured_too(capsys):
    pytest.importorskip("torch")
    assert peak_memory.main(["block:4:8", "--batch", "2", "--side", "channels_last"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value is None or value > -1000.0


def test_the_peak_memory_of_a_process_that_fails_is_unknown():
    assert peak_memory.peaks("no such net", nn.get_backend("numpy"), None, 1) == (None, None)


def test_peak_memory_is_unknown_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "SELF", tmp_path)
    assert peak_memory._resident(lambda: lambda: None, 3) is None


def test_the_page_is_whole_and_loads_nothing(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "NETS", {"mlp": net_steps.NETS["mlp"]})
    target = tmp_path / "page.html"
    report(tmp_path, "--nets", "--layers", "--batch", "2", "--no-memory", "--html", str(target))
    text = target.read_text()

    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.seen = [], []

        def handle_starttag(self, tag, attributes):
            self.seen.append(tag)
            assert tag not in ("link", "img", "iframe") and "src" not in dict(attributes)
            if tag not in ("meta", "input", "path", "use", "rect"):
                self.open.append(tag)

        def handle_startendtag(self, tag, attributes):
            self.seen.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("path", "use", "rect"):
                assert self.open.pop() == tag

    tags = Tags()
    tags.feed(text.partition("\n")[2])
    assert tags.open == [] and tags.seen.count("svg") == 3
    assert text.count('<div class="wide"') == 5 and text.count('<svg role="img" aria-label=') == 3
    for word in ("Roofline", "mlp", "max-pool", "GFLOP/s", "none wrong", "processor"):
        assert word in text, word


def a_row(name="conv a", phase="forward", **known):
    usual = {"ratio": 2.0, "relative_error": 1e-7, "samples": 3, "flops": 10**8, "bytes": 10**6, "gflops": 60.0}
    given = {"ours_ms": 1.5, "torch_ms": 3.0, "disturbed": False, **usual, **known}
    return Row("layer", name, phase, 8, **given)


ALONE = {"torch_ms": None, "ratio": None, "relative_error": None}
OUTCOMES = {
    "all measured": ([a_row(), a_row("conv b")], 'class="verdict "', "2 rows, faster than PyTorch in 2 of 2", 0),
    "not known whether": ([a_row(disturbed=None)], 'class="verdict "', "1 rows, faster than PyTorch in 1 of 1", 0),
    "all disturbed": ([a_row(disturbed=True)] * 2, 'class="verdict unknown"', "2 rows, 2 of them NOT MEASURED", 3),
    "one disturbed": (
        [a_row(), a_row("conv b", disturbed=True, ratio=9.0)],
        'class="verdict unknown"',
        "1 of them NOT MEASURED (disturbed by other processes), faster than PyTorch in 1 of 1, geometric mean 2.00",
        3,
    ),
    "disturbed and wrong": (
        [a_row(disturbed=True, wrong=True, relative_error=0.5)],
        'class="verdict failed"',
        "WRONG: conv a forward",
        1,
    ),
    "nothing to compare with": ([a_row(**ALONE)], 'class="verdict unknown"', "results not compared", 0),
    "some compared": ([a_row(), a_row(**ALONE)], 'class="verdict "', "none wrong of 1 compared", 0),
    "no rows": ([], 'class="verdict unknown"', "0 rows; results not compared", 3),
}


@pytest.mark.parametrize("rows, box, words, status", OUTCOMES.values(), ids=OUTCOMES)
def test_only_measured_and_compared_rows_are_shown_as_passed(tmp_path, capsys, monkeypatch, rows, box, words, status):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "layer_rows", lambda *arguments: iter(rows))
    page = tmp_path / "page.html"
    found = report(tmp_path, "--layers", "--html", str(page), status=status)
    text, out = page.read_text(), capsys.readouterr().out
    assert text.count('class="verdict') == 1 and box in text
    assert words in text and words in out
    assert [row["disturbed"] for row in found["rows"]] == [row.disturbed for row in rows]
    for row in rows:
        if row.disturbed:
            assert "~1.500" in text and ">disturbed<" in text and "~1.500" in out
            assert "NOT MEASURED: disturbed by other processes" in out
            assert f"{row.ratio:.2f} " not in "".join(line for line in out.splitlines() if "~" in line)


def test_disturbed_rows_are_in_no_plot():
    pytest.importorskip("matplotlib")
    rows = [a_row(), a_row("conv b", disturbed=True, ratio=9.0)]
    (axis,) = speed_plots.draw_ratios(rows).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["conv a, batch 8"]
    grown = [
        Row("growth", "batch", "step", 4, float(n), 2.0 * n, 2.0, size=n, ours_peak_mb=n, disturbed=n > 2)
        for n in (1, 2, 4)
    ]
    times, memory = growth_plot.draw_growth(grown, "title").axes[::3]
    drawn = {line.get_label(): (line.get_marker(), list(line.get_xdata())) for line in times.lines}
    assert drawn["xpnn"] == ("o", [1, 2]) and drawn["xpnn: disturbed, not measured"] == ("x", [4])
    assert times.get_ylabel().startswith("milliseconds")
    assert [list(line.get_xdata()) for line in memory.lines] == [[1, 2, 4]]


@pytest.mark.parametrize("what", ["--numerics", "--loop"])
def test_disturbed_rows_of_all_kinds_say_so(tmp_path, capsys, monkeypatch, what):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.setattr(other_processes.Watch, "foreign", lambda self, since: 0.9)
    (row,) = report(tmp_path, what, "--batch", "512" if what == "--loop" else "4", status=3)["rows"]
    assert row["disturbed"] is True
    assert "NOT MEASURED: disturbed by other processes" in capsys.readouterr().out


def test_growth_is_measured_and_drawn(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    tiny = {name: ((1, 2), lambda n: (n, 4, 4)) for name in cost_growth.SERIES}
    monkeypatch.setattr(cost_growth, "SERIES", tiny)
    picture = tmp_path / "growth.png"
    rows = report(tmp_path, "--growth", "--no-memory", "--plot", str(picture))["rows"]
    assert [(row["kind"], row["name"], row["size"]) for row in rows] == [
        ("growth", name, size) for name in ("batch", "image", "channels") for size in (1, 2)
    ]
    assert all(row["relative_error"] < 1e-4 for row in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_exact_numerics_is_measured_beside_fast(capsys, tmp_path):
    (row,) = report(tmp_path, "--numerics")["rows"]
    assert (row["name"], row["batch"]) == ("lenet", 4)
    assert row["ratio"] == pytest.approx(row["exact_ms"] / row["fast_ms"])
    assert "lenet step, batch 4: fast" in capsys.readouterr().out


def test_the_loop_is_measured_beside_its_steps(tmp_path):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    (row,) = report(tmp_path, "--loop", "--batch", "512")["rows"]
    assert (row["kind"], row["name"]) == ("loop", "digits_lenet")
    assert row["overhead"] == pytest.approx(row["fit_ms"] / row["bare_ms"] - 1.0)


def test_launches_of_a_step_are_those_of_its_recording(tmp_path, gpu):
    options = ("--backend", "cupy", "--only", "lenet5", "--batch", "2", "--rounds", "1", "--wait", "0", "--no-memory")
    step, compiled, *inference = report(tmp_path, *options)["rows"]
    assert 40 < step["launches"] < 80 and step["launches"] == compiled["launches"]
    assert [step["compiled"], compiled["compiled"]] == [False, True] and step["kernels"] == "cuda"
    assert compiled["compiled_error"] < 1e-6 and step["compiled_error"] is None
    assert all(row["launches"] is None for row in inference)


def test_array_operations_are_counted_where_pytorch_is():
    pytest.importorskip("torch")
    fast, exact = (exact_cost.count_operations(numerics, "lenet", (1, 8, 8)) for numerics in ("fast", "exact"))
    assert 200 < fast < exact < 10 * fast


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--json", "no/such/folder/rows.json"], "no folder"),
        (["--html", "."], "is a folder"),
        (["--only", "nothing"], "is in no name here; there are: lenet5, mlp"),
        (["--numerics", "--layers"], "--numerics can only be combined"),
        (["--loop", "--numerics"], "--loop can only be combined"),
        (["--plot", "a.png"], "--plot needs --growth"),
        (["--growth", "--nets"], "--growth can only be combined"),
        (["--optimizer", "lion"], "invalid choice"),
        (["--wait", "-1"], "must be a number >= 0"),
    ],
)
def test_options_that_can_t_be_combined_are_refused_before_anything_is_measured(capsys, arguments, message):
    try:
        status = main(["bench", *arguments])
    except SystemExit as error:
        status = error.code
    assert status == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""


def test_an_invalid_number_of_threads_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("XPNN_NUM_THREADS", "many")
    assert main(["bench"]) == 2
    assert "XPNN_NUM_THREADS must be an integer >= 1, got 'many'" in capsys.readouterr().err
