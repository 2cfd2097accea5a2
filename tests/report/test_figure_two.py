"""The figure of all methods stays readable whatever one of them has learned."""

import io

import numpy as np
import pytest
from PIL import Image

from tiltflow.report.figure_two import DEPTH, Panel, draw_figure_two
from tiltflow.report.style import DPI, png_bytes

AXIS = np.linspace(-3.0, 3.0, 40)
TRUTH = -0.5 * (AXIS[:, None] ** 2 + AXIS**2) - np.log(2 * np.pi)


def panel(log_prob, name="method"):
    return Panel(name, "KL 0.1", AXIS, AXIS, log_prob)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2), (14, 4)])
def test_panels_lie_in_rows_of_four_and_never_overlap(count, rows):
    figure = draw_figure_two([panel(TRUTH)] * count)
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == count + 1
    assert len({round(box.y0, 6) for box in boxes[:count]}) == rows
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0
    width, height = Image.open(io.BytesIO(png_bytes(figure))).size
    assert (width, height) == tuple(int(DPI * inches) for inches in figure.get_size_inches())


def test_a_broken_density_is_drawn_as_the_floor_and_the_truth_sets_the_scale():
    wild = np.full_like(TRUTH, -np.inf)
    wild[0, 0], wild[1, 1], wild[2, 2] = np.nan, np.inf, 1e30
    figure = draw_figure_two([panel(TRUTH), panel(wild, "broken $x_{"), panel(TRUTH - 1e3)])
    images = [axes.get_images()[0] for axes in figure.axes[:3]]
    assert all(image.get_clim() == (-DEPTH, 0.0) for image in images)
    values = np.asarray(images[1].get_array())
    assert values[0, 0] == -DEPTH and values[1, 1] == values[2, 2] == 0
    assert (np.asarray(images[2].get_array()) == -DEPTH).all()
    assert np.asarray(images[0].get_array()).max() == 0
    words = [[text.get_text() for text in axes.texts] for axes in figure.axes[:3]]
    assert words == [[], [], ["below −12 nats everywhere"]]
    png_bytes(figure)


def test_no_panel_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw_figure_two([])
