"""The motivating figure stays readable for a good method and for any broken one."""

import numpy as np
import pytest

from tiltflow.report.figure_one import MethodView, Truth, draw_figure_one
from tiltflow.report.style import png_bytes

LEFT, RIGHT, STD = -1.0, 2.0, 0.3


def _log_prob(x, weight):
    def log_normal(center):
        return -0.5 * ((x - center) / STD) ** 2 - np.log(STD * np.sqrt(2 * np.pi))

    return np.logaddexp(np.log(1 - weight) + log_normal(LEFT), np.log(weight) + log_normal(RIGHT))


def _truth():
    rng = np.random.default_rng(0)
    labels = rng.random(3000) < 1 / 3
    data = np.where(labels[:, None], RIGHT, LEFT) + STD * rng.standard_normal((3000, 2))
    axis = np.linspace(-3.0, 4.0, 141)
    return Truth(data, axis, _log_prob(axis, 1 / 3), 1 / 3, float(labels.mean()))


def _method(**changes):
    rng = np.random.default_rng(1)
    grid = np.linspace(-2.5, 3.5, 61)
    along = np.exp(_log_prob(grid, 1 / 3))
    steps = np.arange(0, 2000, 50)
    view = MethodView(
        name="balanced",
        grid_x=grid,
        grid_y=grid,
        density=np.outer(along, along),
        axis_log_prob=_log_prob(np.linspace(-3.0, 4.0, 141), 1 / 3),
        chain=np.repeat([LEFT, RIGHT, LEFT, RIGHT], 50) + 0.1 * rng.standard_normal(200),
        weight_steps=steps,
        weight_by_quadrature=np.full(len(steps), 0.33),
        weight_by_chains=0.33 + 0.02 * rng.standard_normal(len(steps)),
    )
    return view._replace(**changes)


def _broken():
    """A density that is zero but in one cell, −inf and NaN log-densities, a chain that left."""
    density = np.zeros((61, 61))
    density[40, 50] = 1e300
    axis = np.full(141, -np.inf)
    axis[100:110] = -1e30
    axis[3] = np.nan
    chain = np.concatenate([np.full(50, LEFT), np.full(50, 1e300), np.full(20, np.nan), [np.inf]])
    return _method(
        name="broken $x_{",
        density=density,
        axis_log_prob=axis,
        chain=chain,
        weight_by_quadrature=np.full(40, 1e-28),
        weight_by_chains=np.full(40, np.nan),
    )


def _titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def _texts(figure):
    return [text.get_text() for text in figure.texts]


def test_one_column_for_each_method_and_four_rows():
    figure = draw_figure_one(_truth(), [_method(name="first"), _method(name="second")])
    assert len(figure.axes) == 8
    assert {"first", "second"} <= set(_texts(figure))
    boxes = [axes.get_position() for axes in figure.axes]
    for row in range(4):
        assert boxes[row].y0 == pytest.approx(boxes[row + 4].y0)
        assert boxes[row].x1 < boxes[row + 4].x0
    for axes in (figure.axes[3], figure.axes[7]):
        assert axes.get_ylim() == (0, 1)
    assert len(png_bytes(figure)) < 300_000


def test_panels_say_what_they_show():
    exact = _titles(draw_figure_one(_truth(), [_method()]))
    assert exact[1] == "learned − true at the centres: +0.00 and +0.00 nats"
    assert exact[2] == "crosses 3 times in 200 steps"
    assert exact[3].startswith("last: learned 0.330, its chains 0.")
    assert exact[3].endswith("truth 0.333")
    low = _method(axis_log_prob=_truth().axis_log_prob - 64.0 * (_truth().axis_positions < 0))
    shifted = _titles(draw_figure_one(_truth(), [low]))
    assert shifted[1] == "learned − true at the centres: −64 and +0.00 nats"


def test_a_chain_that_trembles_on_the_barrier_does_not_cross():
    barrier = (LEFT + RIGHT) / 2
    chain = np.concatenate([[LEFT], barrier + 0.1 * (-1.0) ** np.arange(100), [LEFT]])
    titles = _titles(draw_figure_one(_truth(), [_method(chain=chain)]))
    assert titles[2] == "never crosses in 102 steps"


def test_a_broken_method_does_not_spoil_the_scales():
    truth = _truth()
    good = draw_figure_one(truth, [_method(), _method()])
    figure = draw_figure_one(truth, [_method(), _broken()])
    for a, b in zip(good.axes[:3], figure.axes[4:7]):
        assert a.get_ylim() == b.get_ylim()
    low, high = figure.axes[5].get_ylim()
    assert -30 < low < truth.axis_log_prob.min() + 30
    assert 0 < high < 5
    titles = _titles(figure)
    assert titles[5] == "the learned curve lies outside this panel"
    assert titles[6].endswith("21 of them not finite")
    assert titles[7].startswith("last: learned 1e-28, its chains nan")
    assert len(png_bytes(figure)) < 300_000


def test_a_truth_without_two_peaks_is_drawn_too():
    truth = _truth()._replace(axis_log_prob=np.full(141, -np.inf), data=np.zeros((1, 2)))
    figure = draw_figure_one(truth, [_method(density=np.zeros((61, 61)))])
    assert len(figure.axes) == 4
    assert len(png_bytes(figure)) < 300_000


def test_one_training_step_and_none():
    one = _method(
        weight_steps=np.array([0]),
        weight_by_quadrature=np.array([0.5]),
        weight_by_chains=np.array([0.5]),
    )
    none = np.zeros(0)
    empty = _method(weight_steps=none, weight_by_quadrature=none, weight_by_chains=none, chain=none)
    for methods in ([empty], [one, empty]):
        assert png_bytes(draw_figure_one(_truth(), methods))


def test_headings_and_legends_do_not_overlap():
    figure = draw_figure_one(_truth(), [_method(), _method()])
    png_bytes(figure)
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    boxes += [axes.title.get_window_extent(renderer) for axes in figure.axes]
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[i + 1 :] if a.width and b.width)


def test_no_method_is_refused():
    with pytest.raises(ValueError, match="at least one method"):
        draw_figure_one(_truth(), [])
