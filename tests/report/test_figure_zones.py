"""The figures of the four zones show every share as it is, whatever a method has learned."""

import io

import numpy as np
import pytest
from PIL import Image

from tiltflow.report.figure_latent import ChainsView, Plane, draw_figure_latent
from tiltflow.report.figure_zones import Truth, ZonesView, draw_figure_zones, levels_of
from tiltflow.report.style import BLUE, DPI, VERMILION, png_bytes

AXIS = np.linspace(-3.0, 3.0, 40)
LOG_PROB = -0.5 * (AXIS[:, None] ** 2 + AXIS**2) - np.log(2 * np.pi)
SHARES = np.array([0.4, 0.3, 0.2, 0.1])
TRUTH = Truth(AXIS, AXIS, LOG_PROB, SHARES, SHARES)
POINTS = np.random.default_rng(0).normal(size=(100, 2))


def view(**changed):
    return ZonesView("method $x_{", "shared", "KL 0.1", POINTS, SHARES, SHARES)._replace(**changed)


def boxes_apart(figure):
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0
    return boxes


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (5, 2)])
def test_blocks_lie_in_rows_of_four_and_never_overlap(count, rows):
    figure = draw_figure_zones(TRUTH, [view()] * count)
    boxes = boxes_apart(figure)
    assert len(boxes) == 2 * count
    assert len({round(box.y0, 6) for box in boxes}) == 2 * rows


def test_bars_are_the_shares_and_cut_off_ones_say_how_far_they_reach():
    (_, axes) = draw_figure_zones(TRUTH, [view(density=np.array([0.97, 0.0, np.nan, 0.03]))]).axes
    heights = [[round(bar.get_height(), 3) for bar in each] for each in axes.containers]
    assert heights == [[0.4, 0.3, 0.2, 0.1], [0.6, 0, 0, 0.03], [0.4, 0.3, 0.2, 0.1]]
    assert [text.get_text() for text in axes.texts] == ["0.97"]


def test_points_are_in_the_colour_of_what_they_are_and_the_lost_ones_are_counted():
    wild = np.concatenate([POINTS, [[np.nan, 0], [np.inf, 1], [1e30, 0], [50.0, 0]]])
    plane, _ = draw_figure_zones(TRUTH, [view(points=wild)]).axes
    points = plane.lines[0]
    assert points.get_color() == VERMILION and np.size(points.get_xdata()) == 100
    assert [text.get_text() for text in plane.texts] == ["4% outside"]
    figure = draw_figure_zones(TRUTH, [view(chains=None)])
    plane, bars = figure.axes
    assert plane.lines[0].get_color() == BLUE and len(bars.containers) == 2
    png_bytes(figure)


def test_level_lines_enclose_their_shares_of_the_mass():
    """A normal in the plane has exp(-r^2 / 2) of its mass outside of the radius r."""
    fine = np.linspace(-6, 6, 400)
    log_prob = -0.5 * (fine[:, None] ** 2 + fine**2)
    log_prob[0, 0], log_prob[0, 1] = -np.inf, np.nan
    np.testing.assert_allclose(levels_of(log_prob, [0.5, 0.9]), np.log([0.5, 0.1]), atol=0.01)


@pytest.mark.parametrize("count", [1, 2])
def test_chains_over_time_are_drawn_beside_their_zones(count):
    zone = np.where(AXIS > 0, 1, 3) * np.ones((40, 1), int)
    broken = np.full_like(LOG_PROB, -np.inf)
    learned = broken if count == 1 else LOG_PROB
    plane = Plane(AXIS, AXIS, learned, LOG_PROB, zone)
    positions = np.random.default_rng(1).normal(size=(30, 4, 2))
    zones = np.repeat([[0, 1, 2, 3]], 30, axis=0)
    chains = ChainsView("method", "no jumps", plane, positions, zones, 300)
    figure = draw_figure_latent([chains] * count)
    assert len(boxes_apart(figure)) == 2 * count
    strips = figure.axes[1].get_images()[0]
    np.testing.assert_array_equal(strips.get_array(), zones.T)
    assert strips.get_extent() == [0, 300, 4.5, 0.5]
    width, height = Image.open(io.BytesIO(png_bytes(figure))).size
    assert (width, height) == tuple(int(DPI * inches) for inches in figure.get_size_inches())


def test_no_method_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw_figure_zones(TRUTH, [])
    with pytest.raises(ValueError, match="at least one"):
        draw_figure_latent([])
