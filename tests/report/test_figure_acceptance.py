"""The small multiples of acceptance: shared scales, means over seeds, gaps for what is infinite."""

import numpy as np
import pytest

from tiltflow.report.figure_acceptance import Column, draw_figure_acceptance
from tiltflow.report.style import png_bytes

ROWS = 5


def reports(shift=0.0, steps=range(1, 5), **more):
    """Every second report has a diagnosis."""
    found = []
    for step in steps:
        rates = {"global_acceptance_rate": 0.5 + shift, "local_acceptance_rate": 0.57}
        found.append({"step": step, **rates, "importance_ess": 0.4, "log_z": -step + shift})
        if step % 2 == 0:
            found[-1] |= {"rhat": 1.01 + shift, "ess_per_sweep": 0.5, "jump_rate": 0.1, **more}
    return found


def test_cases_are_columns_on_a_common_scale():
    columns = [Column("d = 16", [reports(), reports(0.2)]), Column("d = 64", [reports(0.4)])]
    figure = draw_figure_acceptance(columns)
    assert len(figure.axes) == 2 * ROWS
    for row in range(ROWS):
        left, right = figure.axes[2 * row : 2 * row + 2]
        assert left.get_ylim() == right.get_ylim()
        assert left.get_position().y0 == right.get_position().y0
    assert figure.axes[6].get_ylim()[1] > 1.4
    png_bytes(figure)


def test_the_thick_line_is_the_mean_at_the_steps_that_all_seeds_have():
    figure = draw_figure_acceptance([Column("d", [reports(), reports(0.2, steps=range(1, 4))])])
    mean = next(line for line in figure.axes[0].get_lines() if line.get_label()[0] != "_")
    np.testing.assert_allclose(mean.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(mean.get_ydata(), 0.6)


def test_an_infinite_rhat_is_a_gap():
    figure = draw_figure_acceptance([Column("d", [reports(rhat=np.inf)])])
    assert np.isfinite(figure.axes[3].get_ylim()).all()
    png_bytes(figure)


def test_no_column_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        draw_figure_acceptance([])
