"""What every method learned, side by side: log-densities in the plane, and the truth's.

After Grenioux, Moulines, Gabrié (2023), "Balanced Training of Energy-Based Models with Adaptive
Flow Sampling", Figure 2. All panels share one scale of colours, in nats below the truth's highest
density; what lies deeper than `DEPTH` is white. A mode with too little mass is a paler one, which
by the density itself could hardly be seen.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.report.style import (
    GREY,
    NORMAL,
    SMALL,
    density_image,
    look,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH = 12.0
"""Nats below the truth's highest density at which the colours end."""

# Inches; every panel has its place by hand.
_COLUMNS = 4
_PANEL, _GAP, _HEADING, _MARGIN, _BAR = 2.3, 0.22, 0.52, 0.15, 0.85


class Panel(NamedTuple):
    """One density: its name, a note below the name, and log-densities on a regular grid."""

    name: str
    note: str
    x: Float[np.ndarray, " gx"]
    y: Float[np.ndarray, " gy"]
    log_prob: Float[np.ndarray, "gy gx"]
    """Normalised, in nats; may hold -inf and nan, which are drawn as the floor."""


@look()
def draw_figure_two(panels: Sequence[Panel]) -> "Figure":
    """Draw all panels in rows; the first one, the truth, sets the scale.

    Raises `ValueError` for none.
    """
    if not panels:
        raise ValueError("draw_figure_two needs at least one panel")
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width = _MARGIN + columns * (_PANEL + _GAP) + _BAR
    height = _MARGIN + rows * (_HEADING + _PANEL) + (rows - 1) * _GAP / 2
    figure = new_figure(width, height)
    truth = panels[0].log_prob
    highest = float(truth[np.isfinite(truth)].max(initial=-np.inf))
    highest = highest if np.isfinite(highest) else 0.0
    image = None
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        left = _MARGIN + column * (_PANEL + _GAP)
        top = height - row * (_HEADING + _PANEL + _GAP / 2)
        bottom = top - _HEADING - _PANEL
        axes = figure.add_axes((left / width, bottom / height, _PANEL / width, _PANEL / height))
        below = np.nan_to_num(panel.log_prob - highest, nan=-np.inf, posinf=0.0)
        extent = (panel.x[0], panel.x[-1], panel.y[0], panel.y[-1])
        image = density_image(axes, np.clip(below, -DEPTH, 0.0), -DEPTH, 0.0, extent)
        if (below <= -DEPTH).all():
            text = f"below −{DEPTH:.0f} nats everywhere"
            axes.text(0.5, 0.5, text, transform=axes.transAxes, size=SMALL, color=GREY, ha="center")
        place = (left / width, (bottom + _PANEL + 0.25) / height)
        figure.text(*place, panel.name, size=NORMAL, weight="bold", parse_math=False)
        place = (left / width, (bottom + _PANEL + 0.06) / height)
        figure.text(*place, panel.note, size=SMALL, color=GREY, parse_math=False)
    assert image is not None
    bar = figure.add_axes(
        (
            (width - _BAR + 0.05) / width,
            (height - _HEADING - _PANEL) / height,
            0.12 / width,
            _PANEL / height,
        )
    )
    figure.colorbar(image, cax=bar)
    bar.set_ylabel("nats from the truth's highest", size=SMALL)
    bar.grid(False)
    return figure
