"""Pictures: which parts are drawn, and where, from models on any backend."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.explain.text_pictures import bar, picture

pytest.importorskip("matplotlib", reason="no pictures: matplotlib is not installed")
from xpnn.cli import pictures
from xpnn.cli.pictures import activations, canvas, confusion, curves, filters

METRICS = {"model": "lenet", "data": "digits", "test_accuracy": 0.9, "backend": "numpy", "seed": 0}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []

    def save(figure, path, dpi=None):
        canvas.save(figure, path, 30)
        figures.append(figure)

    for module in (activations, confusion, curves, filters):
        monkeypatch.setattr(module, "save", save)
    return figures


def texts(axes):
    return [text.get_text() for text in axes.texts]


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def history(epochs=5, **columns):
    rows = [
        {"epoch": i, "train_loss": 1 / i, "validation_loss": (i - 3) ** 2 + 0.5, "validation_accuracy": 0.9 + i / 100}
        for i in range(1, epochs + 1)
    ]
    return nn.History.from_rows([row | {k: f(row["epoch"]) for k, f in columns.items()} for row in rows])


def test_curves_mark_the_best_epoch(drawn, tmp_path):
    pictures.plot_curves(history(), tmp_path / "c.png", METRICS)
    loss, accuracy = drawn[0].axes
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["training", "held out", "best: 0.5000 in epoch 3"]
    assert accuracy.get_legend().get_texts()[-1].get_text() == "then: 93.00 % in epoch 3"
    assert is_png(tmp_path / "c.png")


def test_curves_have_a_third_axes_for_the_learning_rate(drawn, tmp_path):
    pictures.plot_curves(history(lr=lambda i: 0.1 / i), tmp_path / "c.png", METRICS)
    assert drawn[0].axes[2].get_ylabel() == "learning rate"


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_curves_can_draw_any_loss(drawn, tmp_path, value):
    rows = [{"epoch": i, "train_loss": value} for i in (1, 2)]
    pictures.plot_curves(nn.History.from_rows(rows), tmp_path / "c.png", METRICS)
    assert len(drawn[0].axes) == 1


def test_confusion_writes_counts_and_shares(drawn, tmp_path):
    pictures.plot_confusion(np.array([[3, 1], [0, 0]]), tmp_path / "c.png", ["cat", "dog"])
    axes = drawn[0].axes[0]
    assert texts(axes) == ["3", "75 %", "1", "25 %"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert drawn[0].get_suptitle() == "3 of 4 right: 75.00 %"


def test_confusion_of_many_classes_lists_the_mistakes(drawn, tmp_path):
    matrix = 10 * np.eye(100, dtype=int)
    matrix[7, 9] = 5
    pictures.plot_confusion(matrix, tmp_path / "c.png", title="hundred")
    said = [text for axes in drawn[0].axes for text in texts(axes)]
    assert said == ["most frequent mistakes", "7 as 9: 5 (33 %)", "hardest classes", "7: 67 % of 15"]
    assert is_png(tmp_path / "c.png")


def test_confusion_refuses_a_matrix_that_is_not_square(tmp_path):
    with pytest.raises(ValueError, match="square"):
        pictures.plot_confusion(np.ones((2, 3), int), tmp_path / "c.png")
    with pytest.raises(ValueError, match="2 classes, got 1"):
        pictures.plot_confusion(np.eye(2, dtype=int), tmp_path / "c.png", ["cat"])


def images(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_filters_are_the_kernels(at, drawn, tmp_path):
    model = nn.Sequential(nn.Residual(nn.Conv2d(1, 6, 3, padding=1)), nn.Conv2d(6, 2, 1), backend=at.backend, seed=0)
    assert pictures.plot_filters(model, tmp_path / "f.png")
    weight = at.get(model[0].children["body"].parameters["weight"].value)
    shown = [axes.images[0] for axes in drawn[0].axes if axes.images]
    assert len(shown) == 6
    np.testing.assert_array_equal(shown[4].get_array(), weight[4, 0])
    low, high = shown[0].get_clim()
    assert -low == high == pytest.approx(np.abs(weight).max())


def test_filters_of_colours_have_grey_for_zero(drawn, tmp_path):
    layer = nn.Conv2d(3, 1, 1)
    layer.parameters["weight"].value = np.array([0.0, 2.0, -4.0], np.float32).reshape(1, 3, 1, 1)
    assert pictures.plot_filters(layer, tmp_path / "f.png")
    np.testing.assert_allclose(images(drawn[0])[0], [[[0.5, 0.75, 0.0]]])


def test_filters_of_many_channels_are_a_row_a_kernel(drawn, tmp_path):
    layer = nn.Conv2d(12, 30, 3, seed=0)
    pictures.plot_filters(layer, tmp_path / "f.png")
    shown = images(drawn[0])
    assert len(shown) == 16 * 8
    np.testing.assert_array_equal(shown[9], layer.parameters["weight"].value[1, 1])
    assert "some of them" in texts(drawn[0])[0]


def test_a_net_without_convolution_has_no_filters(tmp_path, capsys):
    assert pictures.plot_filters(nn.models.mlp((1, 8, 8), 3), tmp_path / "f.png") is False
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_activations_show_each_layer_and_leave_the_model_as_it_was(at, drawn, tmp_path):
    model = nn.models.lenet((1, 8, 8), 3, backend=at.backend, seed=0)
    x = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    pictures.plot_activations(model, x, tmp_path / "a.png", title="two", probabilities=np.array([0.2, 0.7, 0.1]))
    # the input, eight maps for each of eight layers, three dense ones
    shown = images(drawn[0])
    assert len(shown) == 1 + 8 * 8 + 3
    expected = at.get(model[1](model[0](at.put(x[None]))))
    np.testing.assert_allclose(shown[1 + 8 + 5], expected[0, 5], rtol=1e-6)
    assert all("forward" not in vars(layer) and layer.training for _, layer in model.named_layers())
    assert "1  ReLU" in texts(drawn[0])
    assert texts(drawn[0].axes[-1]) == ["20 %", "70 %", "10 %"]


def test_deep_nets_are_shown_by_their_blocks(drawn, tmp_path):
    model = nn.models.resnet18((3, 16, 16), 4, width=2, seed=0)
    pictures.plot_activations(model, np.ones((3, 16, 16), np.float32), tmp_path / "a.png")
    said = texts(drawn[0])
    assert sum(text.endswith("Residual") for text in said) == 8
    assert is_png(tmp_path / "a.png")


def test_activations_of_a_net_of_dense_layers_are_strips(drawn, tmp_path):
    model = nn.models.mlp((1, 4, 4), 3, seed=0)
    pictures.plot_activations(model, np.zeros((1, 4, 4), np.float32), tmp_path / "a.png")
    assert [image.shape for image in images(drawn[0])[1:]][-1] == (1, 3)


def test_a_small_image_is_shaded_and_a_large_one_is_left_out():
    image = np.array([[[0.0, 1.0], [2.0, 4.0]]])
    assert picture(image).splitlines() == ["  ░░", "▒▒██"]
    assert picture(np.zeros((1, 2, 2))).strip() == ""
    assert picture(np.zeros((3, 40, 40))) == ""


def test_a_terminal_without_blocks_gets_plain_characters(monkeypatch):
    monkeypatch.setattr("sys.stdout", type("Plain", (), {"encoding": "ascii"}))
    assert picture(np.array([[[0.0, 4.0]]])) == "  ##"
    assert bar(0.1) == "###"
