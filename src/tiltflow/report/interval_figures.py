"""Estimates with their intervals, one below the other: weights of modes, ways to log Z."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from tiltflow.report.style import BLUE, GREY, INK, look, new_figure, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMES = 24


@look()
def draw_intervals(
    names: Sequence[str],
    values: Float[np.ndarray, " m"],
    intervals: Float[np.ndarray, "m 2"],
    axis: str,
    *,
    wider: Float[np.ndarray, "m 2"] | None = None,
    from_zero: bool = False,
) -> "Figure":
    """A dot and a bar for each name, the first on top; `axis` says what is shown, in its units.

    `wider` intervals are thin lines. What is not finite is left out, its name is not.
    """
    m = len(names)
    height = 0.62 + 0.3 * m
    figure = new_figure(8.2, height)
    figure.subplots_adjust(left=0.24, right=0.96, top=1 - 0.08 / height, bottom=0.5 / height)
    axes = figure.subplots()
    for place, interval in enumerate(() if wider is None else wider):
        axes.plot(interval, [place, place], color=GREY, lw=1.2)
    for place, (value, (low, high)) in enumerate(zip(values, intervals)):
        if np.isfinite([low, high]).all():
            axes.plot([low, high], [place, place], color=BLUE, lw=2.4, solid_capstyle="butt")
        if np.isfinite(value):
            axes.plot([value], [place], "o", color=INK, ms=4.5, zorder=3)
    axes.set_ylim(m - 0.5, -0.5)
    axes.set_yticks(range(m), [one_line(name, MOST_NAMES) for name in names], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=7)
    axes.set_xlabel(axis)
    if from_zero:
        axes.set_xlim(left=0)
        axes.axvline(0, color=GREY, lw=1)
    return figure
