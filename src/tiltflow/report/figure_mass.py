"""The mass of a mode against training step: one column for each method, one row for each energy.

After Carbone, Hua, Coste, Vanden-Eijnden (2023), "Efficient Training of Energy-Based Models Using
Jarzynski Equality", the Gaussian mixture experiment. A thin line is one seed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from tiltflow.report.style import BLUE, GREY, INK, LARGE, NORMAL, SMALL, look, new_figure
from tiltflow.report.table import mean_and_std

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches; every panel has its place by hand.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.7, 0.3, 0.42, 0.5
_WIDTH, _GAP, _HEIGHT, _HEADING, _FOOT = 2.35, 0.4, 1.5, 0.46, 0.4


class Course(NamedTuple):
    """The mass on the way of one seed; it may be nan."""

    step: Integer[np.ndarray, " k"]
    mass: Float[np.ndarray, " k"]


class Panel(NamedTuple):
    """One method with one energy: the courses of all its seeds."""

    method: str
    energy: str
    courses: Sequence[Course]


@look()
def draw_figure_mass(panels: Sequence[Panel], *, truth: float, mode: str) -> "Figure":
    """Draw all panels; `mode` names the mode whose mass is `truth`.

    Methods and energies are in the order in which they first come. Raises `ValueError` for none.
    """
    if not panels:
        raise ValueError("draw_figure_mass needs at least one panel")
    methods = list(dict.fromkeys(panel.method for panel in panels))
    energies = list(dict.fromkeys(panel.energy for panel in panels))
    width = _LEFT + len(methods) * (_WIDTH + _GAP) - _GAP + _RIGHT
    row_height = _HEADING + _HEIGHT + _FOOT
    height = _TOP + len(energies) * row_height + _BOTTOM - _FOOT
    figure = new_figure(width, height)
    for column, method in enumerate(methods):
        figure.text(
            (_LEFT + column * (_WIDTH + _GAP) + _WIDTH / 2) / width,
            1 - 0.12 / height,
            method,
            size=LARGE,
            weight="bold",
            ha="center",
            va="top",
            parse_math=False,
        )
    for row, energy in enumerate(energies):
        top = height - _TOP - row * row_height
        heading = f"{'abcdefgh'[row]}   Mass of {mode}, {energy}"
        place = (_LEFT / width, (top - 0.02) / height)
        figure.text(*place, heading, size=NORMAL, weight="bold", va="top", parse_math=False)
        here = [panel for panel in panels if panel.energy == energy]
        last = max((course.step[-1] for panel in here for course in panel.courses), default=1)
        for panel in here:
            left = _LEFT + methods.index(panel.method) * (_WIDTH + _GAP)
            bottom = top - _HEADING - _HEIGHT
            axes = figure.add_axes(
                (left / width, bottom / height, _WIDTH / width, _HEIGHT / height)
            )
            _draw(axes, panel.courses, truth)
            axes.set_xlim(0, last)
            if row == len(energies) - 1:
                axes.set_xlabel("training step")
            if panel is here[0]:
                axes.set_ylabel("mass")
            else:
                axes.tick_params(labelleft=False)
    return figure


def _draw(axes: "Axes", courses: Sequence[Course], truth: float) -> None:
    axes.axhline(truth, color=INK, lw=1.2, ls=(0, (4, 2)), zorder=3)
    for course in courses:
        # Not clipped, because a mass of 0 or 1 would be hidden half by the panel's edge.
        axes.plot(
            course.step, np.clip(course.mass, 0, 1), color=BLUE, lw=1.1, alpha=0.8, clip_on=False
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.locator_params(axis="x", nbins=4)
    ends = [course.mass[-1] for course in courses]
    note = f"last: {mean_and_std(ends)}, truth {truth:g}" if ends else "no course"
    axes.set_title(note, loc="left", size=SMALL, color=GREY, pad=3)
