"""Intervals stand below one another in the order given, whatever is not finite."""

import numpy as np

from tiltflow.report.interval_figures import draw_intervals
from tiltflow.report.style import png_bytes


def test_a_dot_and_a_bar_for_each_name():
    values = np.array([0.7, 0.3, np.nan])
    intervals = np.array([[0.6, 0.8], [0.2, np.inf], [np.nan, np.nan]])
    names = ["mode 1", "$x_", "a very long name of a label that is cut"]
    figure = draw_intervals(names, values, intervals, "share", from_zero=True)
    (axes,) = figure.axes
    told = [text.get_text() for text in axes.get_yticklabels()]
    assert told == ["mode 1", "$x_", "a very long name of a l…"]
    drawn = [line.get_xydata().tolist() for line in axes.lines]
    assert drawn[:3] == [[[0.6, 0], [0.8, 0]], [[0.7, 0]], [[0.3, 1]]]
    assert axes.get_ylim() == (2.5, -0.5) and axes.get_xlim()[0] == 0
    assert len(png_bytes(figure)) < 50_000


def test_wider_intervals_are_thin_lines_beneath():
    values, intervals = np.array([0.7]), np.array([[0.6, 0.8]])
    figure = draw_intervals(["a"], values, intervals, "share", wider=np.array([[0.5, 0.9]]))
    thin, bar, _ = figure.axes[0].lines
    assert thin.get_xdata().tolist() == [0.5, 0.9] and bar.get_xdata().tolist() == [0.6, 0.8]
    assert thin.get_linewidth() < bar.get_linewidth()
