"""The look does not depend on the user's settings, and files are written whole."""

import matplotlib
import matplotlib.style
import numpy as np
import pytest

from tiltflow.report.files import write_atomically
from tiltflow.report.style import look, new_figure, png_bytes, save_png, thin


@look()
def _some_figure():
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    axes.set_title("年")
    return figure


def test_png_is_the_same_under_any_style_of_the_user():
    plain = png_bytes(_some_figure())
    with matplotlib.style.context("dark_background"):
        settings = dict(matplotlib.rcParams)
        assert png_bytes(_some_figure()) == plain
        assert dict(matplotlib.rcParams) == settings


def test_figures_are_unknown_to_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    _some_figure()
    assert plt.get_fignums() == before


def test_save_png_writes_the_bytes_and_nothing_else(tmp_path):
    figure = _some_figure()
    save_png(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == png_bytes(figure)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_thin_spans_the_rows():
    points = np.arange(1000.0)[:, None]
    few = thin(points, 11)
    assert few.shape == (11, 1)
    assert few[0, 0] == 0
    assert few[-1, 0] == 999
    assert thin(points, 1000) is points
