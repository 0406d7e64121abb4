"""The pages of the course run, what they assert is true, and their pictures can be read by everybody.

Pages run as sphinx-gallery runs them: in their folder, on the backend of ``XPNN_BACKEND``.
"""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn

COURSE = Path(nn.__file__).parent / "docs" / "course"
PAGES = sorted(COURSE.glob("plot_*.py"))
# Inches and points: what a phone shows without a loupe.
WIDEST, SMALLEST = 8.0, 9.0
# The three that the device is checked with too: images, volumes and gradients.
ON_DEVICE = [page for page in PAGES if page.stem[:7] in ("plot_01", "plot_02", "plot_05")]


@pytest.fixture
def run(monkeypatch):
    """A function that runs a page and returns its figures."""
    matplotlib = pytest.importorskip("matplotlib", reason="Matplotlib is not installed: the course draws with it")
    pytest.importorskip("sklearn", reason="the course shows scikit-learn's photograph")
    matplotlib.use("agg")
    from matplotlib import pyplot

    def figures(page, backend):
        pyplot.close("all")
        monkeypatch.setenv("XPNN_BACKEND", backend)
        # As in sphinx-gallery, after all other folders.
        monkeypatch.setattr(sys, "path", [*sys.path, str(COURSE)])
        monkeypatch.chdir(COURSE)
        runpy.run_path(str(page), run_name="__main__")
        return [pyplot.figure(number) for number in pyplot.get_fignums()]

    with matplotlib.rc_context():
        yield figures
    pyplot.close("all")


def pixels(figure):
    """The figure as it is drawn, from 0 to 1."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def texts(figure):
    from matplotlib.text import Text

    return [each for each in figure.findobj(Text) if each.get_visible() and each.get_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_its_pictures_can_be_read(page, run):
    found = run(page, "numpy")
    assert found, "a page has pictures"
    for figure in found:
        # sphinx-gallery takes the title of a figure as the alternative text of its picture.
        alternative = figure.get_suptitle()
        assert len(alternative.split()) >= 8, f"{page.stem}: describe {alternative!r} for those who can't see it"
        width, height = figure.get_size_inches()
        assert width <= WIDEST
        for text in texts(figure):
            assert text.get_fontsize() >= SMALLEST, f"{page.stem}: {text.get_text()!r} is too small"
        figure.canvas.draw()  # which lays it out
        drawn = figure.get_tightbbox()
        cut_off = drawn.x0 < -0.01 or drawn.y0 < -0.01 or drawn.x1 > width + 0.01 or drawn.y1 > height + 0.01
        assert not cut_off, f"{page.stem}: the picture of {alternative!r} is larger than its figure"


@pytest.mark.parametrize("page", ON_DEVICE, ids=lambda page: page.stem)
def test_a_page_draws_the_same_pictures_on_a_device(page, run, on_gpu):
    on_host = [pixels(figure) for figure in run(page, "numpy")]
    on_device = [pixels(figure) for figure in run(page, on_gpu.backend.spec)]
    assert len(on_device) == len(on_host)
    for ours, theirs in zip(on_device, on_host, strict=True):
        assert ours.shape == theirs.shape
        # Rounding may move a shade by one of 256.
        assert np.abs(ours - theirs).max() <= 2 / 255


def test_pages_are_numbered_without_gaps():
    assert PAGES
    assert [int(page.stem.split("_")[1]) for page in PAGES] == list(range(1, len(PAGES) + 1))
