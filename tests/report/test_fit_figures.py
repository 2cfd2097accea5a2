"""Training curves and pair plots of whatever a user's table and a failing run can bring."""

import numpy as np
import pytest

from tiltflow.report.fit_figures import draw_pairs, draw_training
from tiltflow.report.style import png_bytes

LIMIT = 300_000


def _row(step, **changes):
    row = {
        "stage": "energy",
        "step": step,
        "held_out_log_likelihood": -3.0 - 100 * np.exp(-step / 50),
        "log_z": -1.0,
        "local_acceptance_rate": 0.6,
        "global_acceptance_rate": 0.8,
        "importance_ess": 0.7,
    }
    return row | changes


def _notes(figure):
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def test_training_shows_the_energy_stage_only():
    rows = [_row(10**6, stage="base"), *(_row(step) for step in range(0, 2000, 10))]
    figure = draw_training(rows)
    assert len(figure.axes) == 4
    assert figure.axes[0].get_xlim() == (0, 1990)
    assert len(figure.axes[2].lines) == 2
    assert figure.axes[2].get_ylim() == (0, 1)
    # The first steps, 100 nats down, must not flatten the rest.
    assert figure.axes[0].get_ylim()[0] > -10
    assert len(png_bytes(figure)) < LIMIT


def test_the_state_that_was_kept_is_marked():
    """The last report with a gain, not the highest point of a noisy curve."""
    rows = [
        _row(step, held_out_log_likelihood=-1.0, gain=0.1 if step <= 30 else -0.1)
        for step in range(0, 60, 5)
    ]
    rows[2]["held_out_log_likelihood"] = -0.5
    rows[1]["held_out_log_likelihood"] = float("inf")
    assert _notes(draw_training(rows))[0] == ["kept: −1, step 30"]
    assert _notes(draw_training([_row(3, gain=-1.0)]))[0] == []


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"stage": "energy", "step": 3}],
        [_row(3)],
        [{"step": 3, "log_z": 1.0}],
        [_row(step, log_z=float("nan"), importance_ess=None) for step in range(5)],
        [_row(step, log_z=[1e300, -np.inf, np.nan][step % 3]) for step in range(9)],
    ],
)
def test_training_of_ugly_metrics(rows):
    figure = draw_training(rows)
    assert len(figure.axes) == 4
    assert len(png_bytes(figure)) < LIMIT


def test_a_metric_without_values_says_so():
    rows = [_row(step, log_z=float("nan"), importance_ess=None) for step in range(5)]
    notes = _notes(draw_training(rows))
    assert notes[1] == notes[3] == ["not recorded"]
    assert notes[2] == []


def _table(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize(("d", "shown"), [(1, 1), (2, 2), (12, 6)])
def test_pairs_show_at_most_six_columns(d, shown):
    names = [f"column {j}" for j in range(d)]
    figure = draw_pairs(_table(2000, d), _table(1500, d, 1), names)
    assert len(figure.axes) == shown**2
    notes = [text.get_text() for text in figure.texts]
    assert notes == (["the first 6 of 12 columns"] if d == 12 else [])
    assert len(png_bytes(figure)) < LIMIT


def test_pairs_put_data_below_and_samples_above():
    figure = draw_pairs(np.full((50, 2), 1.0), np.full((60, 2), 1.01), ["a", "b"], 2)
    _, above, below, _ = figure.axes
    assert np.unique(above.lines[0].get_xydata()) == [1.01]
    assert np.unique(below.lines[0].get_xydata()) == [1.0]
    assert len(above.lines[0].get_xydata()) == 60


def test_axes_follow_the_data_and_the_legend_counts_what_lies_outside():
    data, samples = _table(4000, 2), _table(4000, 2, 1)
    data[:3] = 1e9
    samples[:1000] = 1e30
    samples[1000] = np.nan
    figure = draw_pairs(data, samples, ["a", "b"])
    assert all(np.max(np.abs(axes.get_xlim())) < 10 for axes in figure.axes)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[0].startswith("data (below): ")
    assert labels[1] in [f"samples of the EBM (above): {p}% outside the axes" for p in (25, 26, 27)]
    assert len(png_bytes(figure)) < LIMIT


def test_tick_labels_are_short_and_the_name_says_what_they_leave_out():
    data = _table(500, 3)
    data[:, 0] = 1_612_000_000 + 1e5 * data[:, 0]
    data[:, 1] *= 1e-7
    figure = draw_pairs(data, data, ["time", "tiny", "plain"])
    png_bytes(figure)
    names = [axes.get_xlabel() for axes in figure.axes[6:]]
    assert names == ["(time − 1612000000) / 1e5", "tiny / 1e-7", "plain"]
    for axes in figure.axes:
        assert all(len(tick.get_text()) <= 5 for tick in axes.get_xticklabels())


def test_ugly_names_and_columns():
    data = np.column_stack([np.full(30, 7.0), np.zeros(30), np.full(30, np.nan)])
    names = ["$\\frac{", "年齢\n\x1b[2J", "a name that is far too long for a panel"]
    figure = draw_pairs(data, data[:0], names)
    assert len(png_bytes(figure)) < LIMIT
    assert figure.axes[8].get_xlabel() == "a name that is far …"


def test_every_column_needs_a_name():
    with pytest.raises(ValueError, match="1 column names for 2 columns"):
        draw_pairs(np.zeros((3, 2)), np.zeros((3, 2)), ["a"])
