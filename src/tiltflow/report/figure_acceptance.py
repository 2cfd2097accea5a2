"""How well a flow follows an energy in training: small multiples of what the chains show.

One column for each case, one row for each quantity, all against training step. A thin line is one
seed, the thick one their mean.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.report.style import (
    BLUE,
    GREY,
    INK,
    LARGE,
    NORMAL,
    VERMILION,
    look,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches; every panel has its place by hand.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.75, 0.2, 0.42, 0.45
_WIDTH, _GAP, _HEIGHT, _HEADING, _FOOT = 3.6, 0.4, 1.05, 0.34, 0.22


class Column(NamedTuple):
    """One case: for every seed its reports, each with "step" and some of the quantities."""

    name: str
    runs: Sequence[Sequence[Mapping[str, float | int]]]


class _Row(NamedTuple):
    """Curves by name with their labels and colours, and the limits where they are known."""

    heading: str
    curves: Mapping[str, tuple[str, str]]
    low: float | None = None
    high: float | None = None


_ROWS = (
    _Row(
        "Acceptance rate",
        {
            "global_acceptance_rate": ("global, by the flow", VERMILION),
            "local_acceptance_rate": ("local, MALA", GREY),
        },
        0.0,
        1.0,
    ),
    _Row(
        "Effective share of the importance weights",
        {"importance_ess": ("averaged energy, present flow", BLUE)},
        0.0,
        1.0,
    ),
    _Row("log Z, nats", {"log_z": ("averaged energy", BLUE)}),
    _Row("R-hat of frozen sweeps", {"rhat": ("worst coordinate", VERMILION)}, 1.0),
    _Row(
        "Per frozen sweep of a chain",
        {
            "ess_per_sweep": ("effective draws, worst coordinate", VERMILION),
            "jump_rate": ("jumps between modes", INK),
        },
        0.0,
        1.0,
    ),
)


@look()
def draw_figure_acceptance(columns: Sequence[Column]) -> "Figure":
    """Draw all cases; the panels of a row share their scale. Raises `ValueError` for none."""
    if not columns:
        raise ValueError("draw_figure_acceptance needs at least one column")
    width = _LEFT + len(columns) * (_WIDTH + _GAP) - _GAP + _RIGHT
    row_height = _HEADING + _HEIGHT + _FOOT
    height = _TOP + len(_ROWS) * row_height - _FOOT + _BOTTOM
    figure = new_figure(width, height)
    for j, column in enumerate(columns):
        figure.text(
            (_LEFT + j * (_WIDTH + _GAP) + _WIDTH / 2) / width,
            1 - 0.1 / height,
            column.name,
            size=LARGE,
            weight="bold",
            ha="center",
            va="top",
            parse_math=False,
        )
    for i, row in enumerate(_ROWS):
        top = height - _TOP - i * row_height
        place = (_LEFT / width, (top - 0.06) / height)
        heading = f"{'abcde'[i]}   {row.heading}"
        figure.text(*place, heading, size=NORMAL, weight="bold", va="top")
        panels = []
        for j, column in enumerate(columns):
            left, bottom = _LEFT + j * (_WIDTH + _GAP), top - _HEADING - _HEIGHT
            axes = figure.add_axes(
                (left / width, bottom / height, _WIDTH / width, _HEIGHT / height)
            )
            _draw(axes, row, column)
            panels.append(axes)
        _share_scale(panels, row)
        for axes in panels[1:]:
            axes.tick_params(labelleft=False)
        for axes in panels:
            axes.tick_params(labelbottom=i == len(_ROWS) - 1)
            if i == len(_ROWS) - 1:
                axes.set_xlabel("training step")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="upper right",
            bbox_to_anchor=(1 - _RIGHT / width, (top - 0.06) / height),
            ncols=len(handles),
            columnspacing=1.4,
            borderpad=0.0,
        )
    return figure


def _draw(axes: "Axes", row: _Row, column: Column) -> None:
    for name, (label, colour) in row.curves.items():
        curves = [_curve(reports, name) for reports in column.runs]
        for step, values in curves:
            axes.plot(step, values, color=colour, lw=0.7, alpha=0.45)
        # Seeds of one case report at the same steps, but for one that ran away.
        shared = [step for step in curves[0][0] if all(step in other for other, _ in curves)]
        means = [np.mean([values[step_of == at][0] for step_of, values in curves]) for at in shared]
        axes.plot(shared, means, color=colour, lw=1.8, label=label)
    last = max((reports[-1]["step"] for reports in column.runs if reports), default=1)
    axes.set_xlim(0, last)


def _curve(
    reports: Sequence[Mapping[str, float | int]], name: str
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The steps and values of those reports that have the quantity."""
    found = [(each["step"], each[name]) for each in reports if name in each]
    step, values = np.array(found, float).reshape(-1, 2).T
    return step, np.where(np.isfinite(values), values, np.nan)


def _share_scale(panels: Sequence["Axes"], row: _Row) -> None:
    lows, highs = zip(*(axes.get_ylim() for axes in panels))
    low = min(lows) if row.low is None else row.low
    high = max(highs) if row.high is None else row.high
    for axes in panels:
        axes.set_ylim(low, max(high, low + 1e-3))
        axes.locator_params(axis="y", nbins=4)
