"""Four zones of the plane: where each method's draws are, and what share every zone is given.

After Grenioux, Moulines, Gabrié (2023), "Balanced Training of Energy-Based Models with Adaptive
Flow Sampling", Figures 3 and 4. Above: the zones by colour, level lines of the true density in
ink, and draws: the chains that taught the method, in vermilion, or for want of chains draws of its
density, in blue. Below: each zone's share by the chains, by the learned density and in the data.
Chains can look right where the density is wrong, and only the bars tell.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.report.style import (
    BLUE,
    GREY,
    INK,
    NORMAL,
    SMALL,
    VERMILION,
    look,
    new_figure,
    thin,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ZONES = ("#fbe3c4", "#d3ecf8", "#d3efe5", "#f3dbe8")
"""Pale orange, sky blue, green and purple: the zones 0 to 3."""

LEVELS = (0.1, 0.5, 0.9)
"""Level lines of the truth enclose these shares of its mass."""

_MOST_POINTS = 350
_HIGHEST = 0.6
"""Share at which bars are cut off; how far they would reach is written on them."""

# Inches; every panel has its place by hand.
_COLUMNS = 4
_PANEL, _BARS, _GAP, _BETWEEN = 2.3, 0.95, 0.4, 0.1
_LEFT, _TOP, _HEADING, _FOOT = 0.6, 0.3, 0.68, 0.35
_NARROWEST = 5.9  # for the legend


class Truth(NamedTuple):
    """The true log-density on a regular grid (nats), and every zone's share of data and truth."""

    x: Float[np.ndarray, " gx"]
    y: Float[np.ndarray, " gy"]
    log_prob: Float[np.ndarray, "gy gx"]
    data: Float[np.ndarray, " 4"]
    weights: Float[np.ndarray, " 4"]


class ZonesView(NamedTuple):
    """One method: its name, its setting, a note, points to be drawn, and the zones' shares.

    `chains` are the shares by its chains, None where it has none; the points are then draws of its
    density. Shares need not add up to one, and may be nan.
    """

    name: str
    setting: str
    note: str
    points: Float[np.ndarray, "n 2"]
    chains: Float[np.ndarray, " 4"] | None
    density: Float[np.ndarray, " 4"]


@look()
def draw_figure_zones(truth: Truth, views: Sequence[ZonesView]) -> "Figure":
    """Draw all methods in rows of blocks. Raises `ValueError` for none."""
    if not views:
        raise ValueError("draw_figure_zones needs at least one method")
    columns = min(_COLUMNS, len(views))
    rows = -(-len(views) // columns)
    block = _HEADING + _PANEL + _BETWEEN + _BARS + _FOOT
    width = max(_NARROWEST, _LEFT + columns * _PANEL + (columns - 1) * _GAP + 0.15)
    height = _TOP + rows * block
    figure = new_figure(width, height)

    def place(left: float, bottom: float, high: float) -> "Axes":
        return figure.add_axes((left / width, bottom / height, _PANEL / width, high / height))

    for index, view in enumerate(views):
        row, column = divmod(index, columns)
        left, top = _LEFT + column * (_PANEL + _GAP), height - _TOP - row * block
        for lift, text, style in (
            (0.42, view.name, {"size": NORMAL, "weight": "bold"}),
            (0.25, view.setting, {"size": SMALL, "color": GREY}),
            (0.08, view.note, {"size": SMALL, "color": GREY}),
        ):
            at = left / width, (top - _HEADING + lift) / height
            figure.text(*at, text, fontdict=style, parse_math=False)
        bottom = top - _HEADING - _PANEL
        _draw_plane(place(left, bottom, _PANEL), truth, view)
        bars = place(left, bottom - _BETWEEN - _BARS, _BARS)
        _draw_shares(bars, truth, view)
        bars.tick_params(labelleft=column == 0)
        if column == 0:
            bars.set_ylabel("share")
    _draw_legend(figure, (_LEFT / width, 1 - 0.08 / height), views)
    return figure


def _draw_plane(axes: "Axes", truth: Truth, view: ZonesView) -> None:
    axes.grid(False)
    half = _half_width(truth)
    for zone, (right, up) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        axes.fill_between([0, right * half], 0, up * half, color=ZONES[zone], lw=0, zorder=0)
    axes.contour(
        truth.x,
        truth.y,
        truth.log_prob,
        levels=np.unique(levels_of(truth.log_prob, LEVELS)),
        colors=INK,
        linewidths=0.7,
        linestyles="solid",
        zorder=2,
    )
    colour = BLUE if view.chains is None else VERMILION
    inside = np.all(np.abs(view.points) < half, axis=1)
    points = thin(view.points[inside], _MOST_POINTS)
    axes.plot(points[:, 0], points[:, 1], "o", ms=2.0, mew=0, color=colour, alpha=0.7, zorder=1)
    axes.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    outside = 1 - inside.sum() / max(len(view.points), 1)
    if outside > 0.005:
        text = f"{outside:.0%} outside"
        axes.text(0.03, 0.03, text, transform=axes.transAxes, size=SMALL, color=colour)


def levels_of(
    log_density: Float[np.ndarray, "gy gx"], shares: Sequence[float]
) -> Float[np.ndarray, " k"]:
    """The values whose level lines enclose these shares of the mass; -inf and nan have none."""
    values = np.sort(log_density[np.isfinite(log_density)])[::-1]
    mass = np.cumsum(np.exp(values - values[0]))
    return values[np.searchsorted(mass, np.array(shares) * mass[-1])]


def _half_width(truth: Truth) -> float:
    """Half the side of the square about the origin that holds nearly all of the mass, and room."""
    (low,) = levels_of(truth.log_prob, [0.98])
    rows, columns = np.nonzero(truth.log_prob >= low)
    return 1.15 * float(np.abs(np.concatenate([truth.x[columns], truth.y[rows]])).max())


def _draw_shares(axes: "Axes", truth: Truth, view: ZonesView) -> None:
    zones = np.arange(4)
    kinds = [(view.chains, VERMILION), (view.density, BLUE), (truth.data, INK)]
    bars = [(shares, colour) for shares, colour in kinds if shares is not None]
    wide = 0.8 / len(kinds)
    for zone in zones:
        axes.axvspan(zone - 0.5, zone + 0.5, color=ZONES[zone], lw=0, zorder=0)
        axes.plot([zone - 0.5, zone + 0.5], [truth.weights[zone]] * 2, color=GREY, lw=0.8, zorder=1)
    for index, (shares, colour) in enumerate(bars):
        at = zones + wide * (index - (len(bars) - 1) / 2)
        heights = np.minimum(np.nan_to_num(shares), _HIGHEST)
        axes.bar(at, heights, 0.9 * wide, color=colour, zorder=2)
        for zone in np.flatnonzero(shares > _HIGHEST):
            text = f"{shares[zone]:.2f}"
            style = {"size": SMALL, "color": "white", "ha": "center", "va": "top"}
            axes.text(at[zone], _HIGHEST - 0.02, text, fontdict=style, rotation=90)
    axes.grid(False)
    axes.set_xlim(-0.5, 3.5)
    axes.set_ylim(0, _HIGHEST)
    axes.set_yticks([0, 0.2, 0.4, 0.6])
    axes.set_xticks(zones, [str(zone) for zone in zones])
    axes.tick_params(axis="x", length=0)


def _draw_legend(figure: "Figure", place: tuple[float, float], views: Sequence[ZonesView]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=INK, lw=0.8, label="true density")]
    if any(view.chains is not None for view in views):
        handles.append(Patch(color=VERMILION, label="chains"))
    handles.append(Patch(color=BLUE, label="learned density"))
    handles.append(Patch(color=INK, label="data"))
    handles.append(Line2D([], [], color=GREY, lw=0.8, label="true weight"))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=place,
        ncols=len(handles),
        columnspacing=1.5,
        fontsize=SMALL,
    )
