"""The motivating figure: two modes of unequal weight, what each method learned of them and why.

After Grenioux, Moulines, Gabrié (2023), "Balanced Training of Energy-Based Models with Adaptive
Flow Sampling", Figure 1. One column for each method, four rows:

    a  the data over the learned density
    b  log-density along the axis through the two centres, learned and true
    c  one chain over time: its position along that axis
    d  weight of the top-right mode against training step
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from tiltflow.report.style import (
    BLUE,
    GREY,
    INK,
    LARGE,
    NORMAL,
    SMALL,
    VERMILION,
    density_colours,
    look,
    new_figure,
    thin,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches. Every panel has its place by hand, so that columns line up and nothing overlaps.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.8, 0.2, 0.42, 0.08
_PANEL_WIDTH, _LONE_PANEL_WIDTH, _GAP = 3.4, 6.6, 0.4
_PANEL_HEIGHTS = (3.4, 1.5, 1.25, 1.5)
_HEADINGS = (0.32, 0.52, 0.52, 0.52)  # above: the row's heading and legend, the panel's own note
_FOOTS = (0.32, 0.5, 0.5, 0.5)  # below: ticks and, but for the first row, a label


class Truth(NamedTuple):
    """What is known exactly: the data, the true density and the true weight of the mode."""

    data: Float[np.ndarray, "n 2"]
    axis_positions: Float[np.ndarray, " m"]
    """Where the log-densities are given, along the axis through the two centres."""
    axis_log_prob: Float[np.ndarray, " m"]
    """Normalised, in nats."""
    weight: float
    """True weight of the top-right mode."""
    data_share: float
    """Share of the data that lies in the top-right mode."""


class MethodView(NamedTuple):
    """What one method learned; densities are normalised by quadrature."""

    name: str
    grid_x: Float[np.ndarray, " gx"]
    grid_y: Float[np.ndarray, " gy"]
    """The regular grid of `density`."""
    density: Float[np.ndarray, "gy gx"]
    """`density[i, j]` belongs to (`grid_x[j]`, `grid_y[i]`)."""
    axis_log_prob: Float[np.ndarray, " m"]
    """At `Truth.axis_positions`, in nats; may be −inf."""
    chain: Float[np.ndarray, " t"]
    """One chain's coordinate along the axis, step by step."""
    weight_steps: Integer[np.ndarray, " k"] | Float[np.ndarray, " k"]
    weight_by_quadrature: Float[np.ndarray, " k"]
    weight_by_chains: Float[np.ndarray, " k"]


class _Peaks(NamedTuple):
    """Indices on the axis: the two highest maxima of the truth and the minimum between them."""

    left: int
    barrier: int
    right: int


@look()
def draw_figure_one(truth: Truth, methods: Sequence[MethodView]) -> "Figure":
    """Draw the four rows for each method, on common scales. Raises `ValueError` for no method."""
    if not methods:
        raise ValueError("draw_figure_one needs at least one method")
    # A single column is wider, because a row's heading and legend need the room.
    panel_width = _PANEL_WIDTH if len(methods) > 1 else _LONE_PANEL_WIDTH
    width = _LEFT + len(methods) * panel_width + (len(methods) - 1) * _GAP + _RIGHT
    height = _TOP + sum(_PANEL_HEIGHTS) + sum(_HEADINGS) + sum(_FOOTS) + _BOTTOM
    figure = new_figure(width, height)
    peaks = _find_peaks(truth.axis_log_prob)
    for column, method in enumerate(methods):
        left = _LEFT + column * (panel_width + _GAP)
        figure.text(
            (left + panel_width / 2) / width,
            1 - 0.1 / height,
            method.name,
            size=LARGE,
            weight="bold",
            ha="center",
            va="top",
            parse_math=False,
        )
        top = height - _TOP
        for row, panel_height in enumerate(_PANEL_HEIGHTS):
            bottom = top - _HEADINGS[row] - panel_height
            axes = figure.add_axes(
                (left / width, bottom / height, panel_width / width, panel_height / height)
            )
            match row:
                case 0:
                    _draw_density(axes, truth, method, methods)
                case 1:
                    _draw_axis(axes, truth, method, peaks)
                case 2:
                    _draw_chain(axes, truth, method, peaks)
                case _:
                    _draw_weight(axes, truth, method, methods)
            if column == 0:
                _head_row(axes, row, (_LEFT / width, (top - 0.06) / height, 1 - _RIGHT / width))
            else:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
            top = bottom - _FOOTS[row]
    return figure


def _head_row(axes: "Axes", row: int, place: tuple[float, float, float]) -> None:
    """The row's letter and heading on the left, its legend on the right of the figure."""
    heading = (
        "Data and learned density",
        "Log-density along the axis through both centres",
        "One chain of the sampler",
        "Weight of the top-right mode",
    )[row]
    left, top, right = place
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.text(left, top, f"{'abcd'[row]}   {heading}", size=NORMAL, weight="bold", va="top")
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="upper right",
            bbox_to_anchor=(right, top),
            ncols=len(handles),
            columnspacing=1.4,
            borderpad=0.0,
        )


def _note(axes: "Axes", text: str) -> None:
    """A line of small grey text right above the panel."""
    axes.set_title(text, loc="left", size=SMALL, color=GREY, pad=3)


def _draw_density(
    axes: "Axes", truth: Truth, method: MethodView, methods: Sequence[MethodView]
) -> None:
    density = np.nan_to_num(method.density, nan=0.0, posinf=np.finfo(np.float64).max)
    highest = density.max()
    # The square root keeps a light mode visible beside a heavy one.
    shade = np.sqrt(density / highest) if highest > 0 else density
    half_x = (method.grid_x[1] - method.grid_x[0]) / 2
    half_y = (method.grid_y[1] - method.grid_y[0]) / 2
    axes.imshow(
        shade,
        origin="lower",
        extent=(
            method.grid_x[0] - half_x,
            method.grid_x[-1] + half_x,
            method.grid_y[0] - half_y,
            method.grid_y[-1] + half_y,
        ),
        cmap=density_colours(),
        vmin=0.0,
        vmax=1.0,
        interpolation="bilinear",
        aspect="equal",
        zorder=0,
    )
    points = thin(truth.data, 400)
    axes.plot(points[:, 0], points[:, 1], "o", ms=1.8, mew=0, color=INK, alpha=0.65)
    axes.plot([], [], "o", ms=3, mew=0, color=INK, label=f"{len(points)} of the data points")
    axes.plot([], [], "s", ms=7, color=BLUE, label="learned density")
    axes.grid(False)
    axes.set_xlim(min(m.grid_x[0] for m in methods), max(m.grid_x[-1] for m in methods))
    axes.set_ylim(min(m.grid_y[0] for m in methods), max(m.grid_y[-1] for m in methods))


def _draw_axis(axes: "Axes", truth: Truth, method: MethodView, peaks: _Peaks | None) -> None:
    low, high = _log_prob_limits(truth.axis_log_prob, peaks)
    # Far below the panel is enough: a curve at −inf or at −1e30 just leaves it.
    floor, ceiling = low - 3 * (high - low), high + 3 * (high - low)
    true = np.clip(truth.axis_log_prob, floor, ceiling)
    learned = np.clip(method.axis_log_prob, floor, ceiling)
    axes.plot(truth.axis_positions, true, color=INK, lw=3.2, alpha=0.3, label="truth")
    axes.plot(truth.axis_positions, learned, color=BLUE, label="learned, normalised")
    axes.set_xlim(truth.axis_positions[0], truth.axis_positions[-1])
    axes.set_ylim(low, high)
    axes.set_xlabel("position along the axis")
    axes.set_ylabel("log-density, nats")
    if not np.any((learned > low) & (learned < high)):
        _note(axes, "the learned curve lies outside this panel")
    elif peaks is not None:
        errors = [
            _signed(method.axis_log_prob[i] - truth.axis_log_prob[i])
            for i in (peaks.left, peaks.right)
        ]
        _note(axes, f"learned − true at the centres: {errors[0]} and {errors[1]} nats")


def _draw_chain(axes: "Axes", truth: Truth, method: MethodView, peaks: _Peaks | None) -> None:
    positions = truth.axis_positions
    span = positions[-1] - positions[0]
    steps = thin(np.arange(len(method.chain), dtype=np.float64), 2_000)
    chain = np.clip(thin(method.chain, 2_000), positions[0] - span, positions[-1] + span)
    axes.plot(steps, chain, color=VERMILION, lw=0.4, alpha=0.35)
    axes.plot(steps, chain, "o", ms=1.5, mew=0, color=VERMILION, alpha=0.8)
    axes.set_xlim(0, max(len(method.chain), 1))
    axes.set_ylim(positions[0], positions[-1])
    axes.set_xlabel("step of the chain")
    axes.set_ylabel("position")
    if peaks is not None:
        axes.axhline(
            float(positions[peaks.barrier]),
            color=GREY,
            lw=1.0,
            ls=(0, (1, 2)),
            label="barrier between the modes",
        )
        count = _count_crossings(method.chain, *(float(positions[i]) for i in peaks))
        times = {0: "never crosses", 1: "crosses once"}.get(count, f"crosses {count} times")
        lost = np.count_nonzero(~np.isfinite(method.chain))
        broken = f"; {lost} of them not finite" if lost else ""
        _note(axes, f"{times} in {len(method.chain)} steps{broken}")


def _draw_weight(
    axes: "Axes", truth: Truth, method: MethodView, methods: Sequence[MethodView]
) -> None:
    marker = "o" if len(method.weight_steps) < 3 else ""
    axes.axhline(
        truth.data_share,
        color=INK,
        lw=1.2,
        ls=(0, (4, 2)),
        zorder=3,
        label=f"data: {truth.data_share:.3f}",
    )
    for values, colour, width, label in (
        (method.weight_by_chains, VERMILION, 1.0, "by its chains"),
        (method.weight_by_quadrature, BLUE, 1.6, "learned, by quadrature"),
    ):
        # Not clipped, because a weight of 0 or 1 would be hidden half by the panel's edge.
        axes.plot(
            method.weight_steps,
            np.clip(values, 0.0, 1.0),
            color=colour,
            lw=width,
            marker=marker,
            ms=4,
            label=label,
            clip_on=False,
        )
    starts = [float(m.weight_steps[0]) for m in methods if len(m.weight_steps)]
    ends = [float(m.weight_steps[-1]) for m in methods if len(m.weight_steps)]
    start, end = min(starts, default=0.0), max(ends, default=1.0)
    axes.set_xlim(start, end if end > start else start + 1)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.set_xlabel("training step")
    axes.set_ylabel("weight")
    if len(method.weight_steps):
        _note(
            axes,
            f"last: learned {_weight(method.weight_by_quadrature[-1])}, "
            f"its chains {_weight(method.weight_by_chains[-1])}, truth {truth.weight:.3f}",
        )


def _find_peaks(log_prob: Float[np.ndarray, " m"]) -> _Peaks | None:
    """The two highest local maxima and what lies between them; None for fewer than two."""
    inner = log_prob[1:-1]
    maxima = np.flatnonzero((inner > log_prob[:-2]) & (inner >= log_prob[2:])) + 1
    if len(maxima) < 2:
        return None
    highest = maxima[np.argsort(log_prob[maxima])[-2:]]
    left, right = int(highest.min()), int(highest.max())
    # The middle of the lowest stretch, because a barrier may be flat at −inf.
    between = log_prob[left : right + 1]
    lowest = np.flatnonzero(between == between.min())
    return _Peaks(left, left + int(lowest[len(lowest) // 2]), right)


def _log_prob_limits(
    log_prob: Float[np.ndarray, " m"], peaks: _Peaks | None
) -> tuple[float, float]:
    """Limits that show the truth's peaks and its barrier, whatever was learned."""
    finite = log_prob[np.isfinite(log_prob)]
    if finite.size == 0:
        return -1.0, 1.0
    high = float(finite.max())
    low = float(finite.min()) if peaks is None else float(log_prob[peaks.barrier])
    # Deeper than 40 nats nothing is ever visited, and the peaks' difference must stay visible.
    low = min(max(low, high - 40.0), high - 1.0)
    return low - 0.2 * (high - low), high + 0.12 * (high - low)


def _count_crossings(
    chain: Float[np.ndarray, " t"], left: float, barrier: float, right: float
) -> int:
    """How often the chain goes from one mode to the other.

    It is in a mode once it is over half the way from the barrier to the peak, so that a chain that
    trembles on the barrier is not counted as crossing.
    """
    side = np.zeros(len(chain), dtype=np.int64)
    side[chain < (left + barrier) / 2] = -1
    side[chain > (right + barrier) / 2] = 1
    visited = side[side != 0]
    return int(np.count_nonzero(visited[1:] != visited[:-1]))


def _weight(weight: float) -> str:
    """A weight to three decimals; one that would read 0.000 by its order of magnitude."""
    return f"{weight:.0e}" if 0 < weight < 5e-4 else f"{weight:.3f}"


def _signed(nats: float) -> str:
    """A difference of log-densities with its sign, to two decimals or to whole nats."""
    if not np.isfinite(nats):
        return "not finite" if np.isnan(nats) else ("+∞" if nats > 0 else "−∞")
    if abs(nats) >= 1e5:
        text = f"{nats:+.0e}"
    else:
        text = f"{nats:+.2f}" if abs(nats) < 9.995 else f"{nats:+.0f}"
    return text.replace("-", "−")
