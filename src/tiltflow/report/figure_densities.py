"""Figure: learned densities of the plane beside the truth, a row for every density.

As in Grathwohl et al. (2019), "FFJORD", Figure 2. The colour is the density itself as a share of
the truth's highest in that row, so that it shows where the mass is; what is higher is cut.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.report.style import GREY, NORMAL, SMALL, density_image, look, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches; every panel has its place by hand.
_PANEL, _GAP, _NOTE, _HEADING, _MARGIN = 1.25, 0.08, 0.2, 0.3, 0.1


class Picture(NamedTuple):
    """A density on a regular grid: a note that stands below it, and normalised log-densities."""

    note: str
    log_prob: Float[np.ndarray, "gy gx"]
    """Nats; may hold -inf and nan, which are drawn as no density."""


@look()
def draw_figure_densities(
    columns: Sequence[str], rows: Sequence[Sequence[Picture | None]]
) -> "Figure":
    """Draw all rows; the first picture of each is the truth, and None leaves its place empty.

    Raises `ValueError` where there are no rows, or one has not a place for each column.
    """
    if not rows or any(len(row) != len(columns) or row[0] is None for row in rows):
        raise ValueError("draw_figure_densities needs rows of a truth and a place for each method")
    width = 2 * _MARGIN + len(columns) * (_PANEL + _GAP) - _GAP
    height = 2 * _MARGIN + _HEADING + len(rows) * (_PANEL + _NOTE)
    figure = new_figure(width, height)
    for number, name in enumerate(columns):
        place = (_left(number) + _PANEL / 2) / width, 1 - (_MARGIN + _HEADING / 2) / height
        figure.text(*place, name, size=NORMAL, weight="bold", ha="center", va="center")
    for line, row in enumerate(rows):
        bottom = height - _MARGIN - _HEADING - (line + 1) * (_PANEL + _NOTE) + _NOTE
        assert row[0] is not None
        truth = row[0].log_prob
        highest = float(truth[np.isfinite(truth)].max(initial=-np.inf))
        for number, picture in enumerate(row):
            if picture is None:
                continue
            place = (_left(number) / width, bottom / height, _PANEL / width, _PANEL / height)
            axes = figure.add_axes(place)
            density_image(axes, _shares(picture.log_prob, highest), 0.0, 1.0)
            place = (_left(number) + _PANEL / 2) / width, (bottom - _NOTE / 2) / height
            note = picture.note
            figure.text(*place, note, size=SMALL, color=GREY, ha="center", va="center")
    return figure


def _left(column: int) -> float:
    return _MARGIN + column * (_PANEL + _GAP)


def _shares(log_prob: Float[np.ndarray, "gy gx"], highest: float) -> Float[np.ndarray, "gy gx"]:
    below = np.nan_to_num(log_prob - highest, nan=-np.inf, posinf=0.0)
    return np.exp(np.minimum(below, 0.0))
