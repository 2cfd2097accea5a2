"""Densities beside the truth: a place for each, one scale in a row, whatever was learned."""

import numpy as np
import pytest

from tiltflow.report.figure_densities import Picture, draw_figure_densities
from tiltflow.report.style import png_bytes

AXIS = np.linspace(-3.0, 3.0, 40)
TRUTH = -0.5 * (AXIS[:, None] ** 2 + AXIS**2) - np.log(2 * np.pi)


def test_every_picture_has_its_place_and_a_missing_one_is_empty():
    rows = [[Picture("truth", TRUTH), None, Picture("KL 0.1", TRUTH)]] * 2
    figure = draw_figure_densities(["truth", "one", "other"], rows)
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 4
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0
    png_bytes(figure)


def test_the_truth_sets_the_scale_and_broken_numbers_are_no_density():
    wild = TRUTH - np.log(2)
    wild[0, 0], wild[1, 1], wild[2, 2] = np.nan, np.inf, -np.inf
    figure = draw_figure_densities(["truth", "wild"], [[Picture("", TRUTH), Picture("", wild)]])
    truth, drawn = (np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes)
    assert truth.max() == 1
    assert drawn[20, 20] == pytest.approx(truth[20, 20] / 2)
    assert (drawn[0, 0], drawn[1, 1], drawn[2, 2]) == (0, 1, 0)


@pytest.mark.parametrize("rows", [[], [[None]], [[Picture("", TRUTH)] * 2]])
def test_a_row_without_truth_or_of_another_length_is_an_error(rows):
    with pytest.raises(ValueError, match="rows of a truth"):
        draw_figure_densities(["truth"], rows)
