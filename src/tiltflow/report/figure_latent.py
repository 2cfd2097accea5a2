"""Four chains of a method over time: where they go in their own space, and between which zones.

After Grenioux, Moulines, Gabrié (2023), "Balanced Training of Energy-Based Models with Adaptive
Flow Sampling", Figure 5. One column for each method. Above: the space in which its chains move (of
neural transport the latent space of the flow), cut by colour into the zones of the data's plane,
with level lines of the learned density in blue and of the truth in ink, and the chains. Below: the
zone of each chain over time; a chain that crosses changes its colour.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tiltflow.report.figure_zones import LEVELS, ZONES, levels_of
from tiltflow.report.style import BLUE, GREY, INK, NORMAL, SMALL, look, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHAINS = ("#d55e00", "#7a2f8f", "#00664b", "#7d6500")
"""The chains' colours: vermilion, purple, green, ochre."""
STRONG = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7")
"""The zones' colours where nothing lies on them."""

# Inches; every panel has its place by hand.
_PANEL, _STRIPS, _GAP, _BETWEEN = 3.8, 1.1, 0.7, 0.35
_LEFT, _RIGHT, _TOP, _HEADING, _FOOT = 0.75, 0.15, 0.3, 0.5, 0.5


class Plane(NamedTuple):
    """The space that chains move in, on a regular grid: two log-densities (nats) and the zone."""

    x: Float[np.ndarray, " gx"]
    y: Float[np.ndarray, " gy"]
    learned: Float[np.ndarray, "gy gx"]
    truth: Float[np.ndarray, "gy gx"]
    zone: Int[np.ndarray, "gy gx"]


class ChainsView(NamedTuple):
    """One method: a few chains in their plane over time, and the zone in which they are.

    `evaluations` are what each chain has cost in the end.
    """

    name: str
    note: str
    plane: Plane
    position: Float[np.ndarray, "t chains 2"]
    zones: Int[np.ndarray, "t chains"]
    evaluations: int


@look()
def draw_figure_latent(views: Sequence[ChainsView]) -> "Figure":
    """Draw one column for each method. Raises `ValueError` for none."""
    if not views:
        raise ValueError("draw_figure_latent needs at least one method")
    width = _LEFT + len(views) * _PANEL + (len(views) - 1) * _GAP + _RIGHT
    height = _TOP + _HEADING + _PANEL + _BETWEEN + _STRIPS + _FOOT
    figure = new_figure(width, height)
    for column, view in enumerate(views):
        left, top = _LEFT + column * (_PANEL + _GAP), height - _TOP
        for lift, text, style in (
            (0.27, view.name, {"size": NORMAL, "weight": "bold"}),
            (0.09, view.note, {"size": SMALL, "color": GREY}),
        ):
            at = left / width, (top - _HEADING + lift) / height
            figure.text(*at, text, fontdict=style, parse_math=False)
        for bottom, high, draw in (
            (top - _HEADING - _PANEL, _PANEL, _draw_plane),
            (_FOOT, _STRIPS, _draw_strips),
        ):
            box = (left / width, bottom / height, _PANEL / width, high / height)
            draw(figure.add_axes(box), view, first=column == 0)
    _draw_legend(figure, (_LEFT / width, 1 - 0.08 / height))
    return figure


def _draw_plane(axes: "Axes", view: ChainsView, *, first: bool) -> None:
    from matplotlib.colors import ListedColormap

    x, y, learned, truth, zone = view.plane
    axes.grid(False)
    half = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    axes.imshow(
        zone,
        origin="lower",
        extent=(x[0] - half[0], x[-1] + half[0], y[0] - half[1], y[-1] + half[1]),
        cmap=ListedColormap(ZONES),
        vmin=0,
        vmax=3,
        interpolation="nearest",
        aspect="auto",
        zorder=0,
    )
    for values, colour in ((truth, INK), (learned, BLUE)):
        if np.isfinite(values).any():
            levels = np.unique(levels_of(values, LEVELS))
            lines: dict[str, Any] = {"linewidths": 0.8, "linestyles": "solid", "zorder": 2}
            axes.contour(x, y, values, levels=levels, colors=colour, **lines)
    for chain in range(view.position.shape[1]):
        path = view.position[:, chain]
        colour = CHAINS[chain % len(CHAINS)]
        axes.plot(path[:, 0], path[:, 1], color=colour, lw=0.4, alpha=0.18, zorder=1)
        axes.plot(path[:, 0], path[:, 1], "o", ms=1.8, mew=0, color=colour, zorder=3)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axes.spines[:].set_visible(False)


def _draw_strips(axes: "Axes", view: ChainsView, *, first: bool) -> None:
    """One strip for each chain, coloured by its zone."""
    from matplotlib.colors import ListedColormap

    count = view.zones.shape[1]
    axes.grid(False)
    axes.imshow(
        view.zones.T,
        extent=(0, view.evaluations, count + 0.5, 0.5),
        cmap=ListedColormap(STRONG),
        vmin=0,
        vmax=3,
        interpolation="nearest",
        aspect="auto",
    )
    for line in range(1, count):
        axes.axhline(line + 0.5, color="white", lw=3)
    axes.set_yticks(np.arange(count) + 1, [str(chain + 1) for chain in range(count)])
    for chain, label in enumerate(axes.get_yticklabels()):
        label.set_color(CHAINS[chain % len(CHAINS)])
        label.set_fontweight("bold")
    axes.set_xlabel("gradients of the energy, a chain")
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    if first:
        axes.set_ylabel("zone of chain")


def _draw_legend(figure: "Figure", place: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=BLUE, lw=0.8, label="learned density")]
    handles.append(Line2D([], [], color=INK, lw=0.8, label="true density"))
    handles += [Patch(color=colour, label=f"zone {zone}") for zone, colour in enumerate(STRONG)]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=place,
        ncols=len(handles),
        columnspacing=1.2,
        fontsize=SMALL,
    )
