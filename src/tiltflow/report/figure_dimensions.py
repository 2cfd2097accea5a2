"""Errors and acceptance against the dimension: one curve for each method, one row for each kind.

Points are means over the seeds; bars reach from the smallest to the largest. What is not finite is
left out, and a method with nothing else has no curve. The method that the figure is about has
colours, what it is held against broken lines, and its rivals thin grey ones, told by their marks.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from tiltflow.report.style import BLUE, GREY, INK, SMALL, VERMILION, look, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "weight_error_data": "largest weight error",
    "kl": "KL(truth || model), nats",
    "acceptance_rate": "acceptance of global moves",
}
Role = Literal["main", "reference", "rival"]
_COLOURS = (BLUE, VERMILION, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
_MARKERS = "os^vDPX*<>dph"


class Curve(NamedTuple):
    """One method on one kind of target: the figures of every seed, by dimension."""

    kind: str
    name: str
    figures: dict[int, list[dict[str, Any]]]
    role: Role


@look()
def draw_figure_dimensions(curves: Sequence[Curve]) -> "Figure":
    """Draw all curves.

    Raises `ValueError` for none.
    """
    if not curves:
        raise ValueError("draw_figure_dimensions needs at least one curve")
    kinds = list(dict.fromkeys(curve.kind for curve in curves))
    styles = {
        name: _style(role, place)
        for role in get_args(Role)
        for place, name in enumerate(
            dict.fromkeys(curve.name for curve in curves if curve.role == role)
        )
    }
    places = {name: place for place, name in enumerate(styles)}
    figure = new_figure(12.5, 2.9 * len(kinds) + 0.6)
    axes = figure.subplots(len(kinds), len(COLUMNS), squeeze=False)
    dimensions = sorted({d for curve in curves for d in curve.figures})
    for row, kind in zip(axes, kinds):
        for axis, (figure_name, label) in zip(row, COLUMNS.items()):
            for curve in curves:
                if curve.kind == kind:
                    _draw_curve(axis, curve, figure_name, places[curve.name], styles[curve.name])
            axis.set_xscale("log", base=2)
            axis.set_xticks(dimensions, [str(d) for d in dimensions])
            axis.minorticks_off()
            axis.set_xlim(dimensions[0] / 1.3, dimensions[-1] * 1.3)
            axis.set_title(f"{kind}: {label}", loc="left")
            if figure_name == "acceptance_rate":
                axis.set_ylim(0, 1)
            else:
                axis.set_yscale("log")
    for axis in axes[-1]:
        axis.set_xlabel("dimension")
    handles = {}
    for axis in axes.ravel():
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels())))
    figure.legend(
        [handles[name] for name in styles if name in handles],
        [name for name in styles if name in handles],
        loc="center right",
        fontsize=SMALL,
        handlelength=3,
    )
    figure.tight_layout(rect=(0, 0, 0.79, 1), h_pad=1.5, w_pad=1.5)
    return figure


def _style(role: str, place: int) -> dict[str, Any]:
    """How the curve at that place among those of its role is drawn."""
    marker = _MARKERS[place % len(_MARKERS)]
    if role == "main":
        colour = _COLOURS[place % len(_COLOURS)]
        return {"color": colour, "marker": marker, "linewidth": 1.8, "zorder": 3}
    if role == "reference":
        dashes = _DASHES[place % len(_DASHES)]
        return {"color": INK, "marker": ".", "linestyle": dashes, "linewidth": 1.2, "zorder": 2.5}
    return {"color": GREY, "marker": marker, "markerfacecolor": "white", "linewidth": 0.6}


def _draw_curve(
    axis: Any, curve: Curve, figure_name: str, place: int, style: dict[str, Any]
) -> None:
    points = []
    for dimension, figures in sorted(curve.figures.items()):
        values = np.array([each[figure_name] for each in figures], dtype=float)
        values = values[np.isfinite(values) & (values > 0)]
        if len(values):
            points.append((dimension, values.mean(), values.min(), values.max()))
    if not points:
        return
    x, mean, low, high = np.array(points).T
    axis.errorbar(
        # Side by side, where several methods were run at one dimension.
        x * 2 ** (0.03 * (place % 7 - 3)),
        mean,
        yerr=(mean - low, high - mean),
        label=curve.name,
        markersize=4,
        elinewidth=0.8,
        **style,
    )
