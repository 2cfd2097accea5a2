"""The figure of errors against the dimension shows every method that has a finite figure."""

import math

import numpy as np
import pytest

from tiltflow.report.figure_dimensions import Curve, draw_figure_dimensions
from tiltflow.report.style import png_bytes


def figures(error, kl=0.1, rate=0.8):
    return {"weight_error_data": error, "kl": kl, "acceptance_rate": rate}


CURVES = [
    Curve(
        "four",
        "balanced (shared)",
        {16: [figures(0.004), figures(0.006)], 64: [figures(0.01)]},
        "main",
    ),
    Curve("four", "pcd (shared)", {16: [figures(0.1, math.nan, math.nan)]}, "rival"),
    Curve("warped", "balanced (shared)", {16: [figures(0.003)]}, "main"),
]


def test_every_kind_has_a_row_and_every_method_its_means():
    figure = draw_figure_dimensions(CURVES)
    assert len(figure.axes) == 6
    (balanced, pcd) = figure.axes[0].containers
    np.testing.assert_allclose(balanced.lines[0].get_ydata(), [0.005, 0.01])
    np.testing.assert_allclose(pcd.lines[0].get_ydata(), [0.1])
    # Not a number is not drawn as one.
    assert len(figure.axes[1].containers) == 1
    assert balanced.lines[0].get_linewidth() > pcd.lines[0].get_linewidth()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["balanced (shared)", "pcd (shared)"]


def test_it_is_small_and_the_same_each_time():
    first, second = (png_bytes(draw_figure_dimensions(CURVES)) for _ in range(2))
    assert first == second and len(first) < 300_000


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw_figure_dimensions([])
