"""Figures for the report of a fit on a user's table: how training went, and data beside samples."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.report.contours import PairContours, robust_limits
from tiltflow.report.style import (
    BLUE,
    GREY,
    INK,
    NORMAL,
    SMALL,
    VERMILION,
    look,
    new_figure,
    one_line,
    thin,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 700  # in each off-diagonal panel
_BINS = 40


@look()
def draw_training(metrics: Sequence[Mapping[str, object]]) -> "Figure":
    """Four panels against training step: held-out log-likelihood, log Z, acceptance, ESS.

    `metrics` are rows of `metrics.jsonl`. Only those whose "stage" is "energy" are drawn; a value
    that is missing or not finite leaves a gap, and a metric without any value says so.
    """
    rows = [row for row in metrics if row.get("stage") == "energy"]
    steps = _series(rows, "step")
    figure = new_figure(8.2, 4.9)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.94, bottom=0.105, wspace=0.24, hspace=0.26)
    panels = figure.subplots(2, 2, sharex=True).ravel()

    likelihood = _series(rows, "held_out_log_likelihood")
    _draw_series(panels[0], steps, likelihood, BLUE)
    _title(panels[0], "Held-out log-likelihood")
    # The first steps may be thousands of nats away; what matters is where training settles.
    _limit(panels[0], likelihood, 0.1, 1.0)
    # The comparison of two states shares its draws, the curve does not: the best of the curve's
    # independent estimates need not be the state that was kept.
    kept = np.flatnonzero(np.isfinite(likelihood) & (_series(rows, "gain") > 0))
    if kept.size:
        _mark_kept(panels[0], float(steps[kept[-1]]), float(likelihood[kept[-1]]))

    log_z = _series(rows, "log_z")
    _draw_series(panels[1], steps, log_z, BLUE)
    _title(panels[1], "log Z")
    _limit(panels[1], log_z, 0.05, 0.95)

    for key, colour, label in (
        ("local_acceptance_rate", INK, "local"),
        ("global_acceptance_rate", VERMILION, "global"),
    ):
        _draw_series(panels[2], steps, _series(rows, key), colour, label)
    _title(panels[2], "Acceptance rate")
    panels[2].set_ylim(0, 1)
    if panels[2].lines:
        panels[2].legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.015), ncols=2, columnspacing=1.2, borderpad=0
        )

    _draw_series(panels[3], steps, _series(rows, "importance_ess"), VERMILION)
    _title(panels[3], "ESS of the importance weights, share")
    panels[3].set_ylim(0, 1)

    known = steps[np.isfinite(steps)]
    first, last = (known.min(), known.max()) if known.size else (0.0, 1.0)
    panels[0].set_xlim(*((first, last) if last > first else (first - 1, first + 1)))
    for axes in panels[2:]:
        axes.set_xlabel("training step")
        axes.locator_params(axis="x", nbins=6, integer=True)
    for axes in panels[:2]:
        axes.set_ylabel("nats")
    for axes in panels:
        if not axes.lines:
            axes.set_yticks([])
            axes.grid(False)
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=GREY)
    return figure


@look()
def draw_pairs(
    data: Float[np.ndarray, "n d"],
    samples: Float[np.ndarray, "m d"],
    columns: Sequence[str],
    max_columns: int = 6,
    contours: Mapping[tuple[int, int], PairContours] | None = None,
) -> "Figure":
    """Pair plot of the first `max_columns` columns, data in ink and samples of the EBM in blue.

    On the diagonal, histograms of both over each other; below it the data, above it the samples;
    over both the `contours`, whose keys are pairs of columns (across, up) with across < up.
    The axes follow robust quantiles of the data, and the legend says what share lies outside.
    Raises `ValueError` where `columns` does not name every column.
    """
    if len(columns) != data.shape[1]:
        raise ValueError(f"{len(columns)} column names for {data.shape[1]} columns")
    shown = min(len(columns), max_columns)
    data, samples = data[:, :shown], samples[:, :shown]
    limits = np.array([robust_limits(data[:, j]) for j in range(shown)]).reshape(shown, 2)
    scales = [_scale(low, high) for low, high in limits]
    names = [_name(str(name), scale) for name, scale in zip(columns, scales)]

    # Inches; the legend takes one line where there is room for it.
    side = 4.6 if shown == 1 else shown * (2.1, 1.75, 1.6, 1.5)[min(shown, 5) - 2]
    legend_lines = 1 if shown > 3 else 2
    left, right, bottom = 0.8 if shown > 1 else 0.4, 0.15, 0.55
    top = 0.2 + 0.17 * (legend_lines + (shown < len(columns)))
    width, height = left + side + right, top + (3.2 if shown == 1 else side) + bottom
    figure = new_figure(width, height)
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=0.09,
        hspace=0.09,
    )
    panels = figure.subplots(shown, shown, squeeze=False)
    for i in range(shown):
        for j in range(shown):
            axes = panels[i, j]
            if i == j:
                _draw_histograms(axes, data[:, i], samples[:, i], limits[i])
            else:
                points, colour = (data, INK) if i > j else (samples, BLUE)
                _draw_points(axes, points[:, [j, i]], colour)
                pair = (contours or {}).get((min(i, j), max(i, j)))
                if pair is not None:
                    _draw_contours(axes, pair if j < i else pair.transposed())
                axes.set_ylim(*limits[i])
                axes.yaxis.set_major_formatter(_tick_label(scales[i]))
            axes.set_xlim(*limits[j])
            axes.xaxis.set_major_formatter(_tick_label(scales[j]))
            _dress(axes, i, j, names)
    _legend(figure, data, samples, limits, left, legend_lines)
    if shown < len(columns):
        figure.text(
            left / width,
            1 - (0.12 + 0.17 * legend_lines) / height,
            f"the first {shown} of {len(columns)} columns",
            size=SMALL,
            color=GREY,
            va="top",
        )
    return figure


def _series(rows: Sequence[Mapping[str, object]], key: str) -> Float[np.ndarray, " k"]:
    """One metric as an array; NaN where a row has no number."""
    values = (row.get(key) for row in rows)
    return np.array(
        [float(v) if isinstance(v, (int, float, np.number)) else np.nan for v in values],
        dtype=np.float64,
    )


def _draw_series(
    axes: "Axes",
    steps: Float[np.ndarray, " k"],
    values: Float[np.ndarray, " k"],
    colour: str,
    label: str = "",
) -> None:
    finite = np.isfinite(values) & np.isfinite(steps)
    if not finite.any():
        return
    # A lone value draws no line: it needs a marker.
    marker = "o" if np.count_nonzero(finite) < 15 else ""
    axes.plot(
        steps, np.where(finite, values, np.nan), color=colour, marker=marker, ms=3.5, label=label
    )


def _title(axes: "Axes", text: str) -> None:
    axes.set_title(text, loc="left", size=NORMAL, weight="bold", pad=5)


def _limit(axes: "Axes", values: Float[np.ndarray, " k"], low: float, high: float) -> None:
    """Limits from two quantiles of the values that are finite, with a margin."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return
    bottom, top = np.quantile(finite, [low, high])
    margin = 0.15 * (top - bottom) or 0.05 * abs(top) or 1.0
    axes.set_ylim(bottom - margin, top + 1.6 * margin)


def _mark_kept(axes: "Axes", step: float, value: float) -> None:
    axes.plot([step], [value], "o", ms=6, mfc="white", mec=INK, mew=1.6, zorder=4)
    axes.text(
        1.0,
        1.02,
        f"kept: {value:.4g}, step {step:.0f}".replace("-", "−"),
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        size=SMALL,
        color=INK,
    )


def _draw_histograms(
    axes: "Axes",
    data: Float[np.ndarray, " n"],
    samples: Float[np.ndarray, " m"],
    limits: Float[np.ndarray, "2"],
) -> None:
    edges = np.linspace(limits[0], limits[1], _BINS + 1)
    for values, colour, filled in ((data, INK, True), (samples, BLUE, False)):
        # Shares of all the values, so that what lies outside is missing here and not spread.
        heights = np.histogram(values, edges)[0] / max(len(values), 1)
        axes.stairs(
            heights,
            edges,
            fill=filled,
            color=colour,
            alpha=0.28 if filled else 1.0,
            lw=0 if filled else 1.3,
        )
    axes.set_ylim(bottom=0)


def _draw_points(axes: "Axes", points: Float[np.ndarray, "n 2"], colour: str) -> None:
    points = thin(points, _POINTS)
    points = points[np.all(np.isfinite(points), axis=1)]
    axes.plot(points[:, 0], points[:, 1], "o", ms=1.6, mew=0, color=colour, alpha=0.45)


def _draw_contours(axes: "Axes", contours: PairContours) -> None:
    for share, lines in zip(contours.shares, contours.lines):
        for line in lines:
            axes.plot(line[:, 0], line[:, 1], color=BLUE, lw=1.3 if share == 0.5 else 0.8)


def _dress(axes: "Axes", i: int, j: int, names: Sequence[str]) -> None:
    """Ticks and names on the left and at the bottom only; the diagonal has no vertical scale."""
    from matplotlib.transforms import blended_transform_factory

    last = len(names) - 1
    axes.grid(False)
    axes.spines[["top", "right"]].set_visible(i != j)
    axes.locator_params(axis="x", nbins=3)
    if i == j:
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    else:
        axes.locator_params(axis="y", nbins=3)
    axes.tick_params(labelbottom=i == last, labelleft=j == 0 and i != j, length=2.5)
    if i == last:
        axes.set_xlabel(names[j], parse_math=False)
    if j == 0:
        # On the first diagonal panel too, because the reader looks for a row's name there.
        axes.set_ylabel("share" if last == 0 else names[i], parse_math=False)
        figure = axes.get_figure(root=True)
        assert figure is not None
        place = blended_transform_factory(figure.dpi_scale_trans, axes.transAxes)
        axes.yaxis.set_label_coords(0.24, 0.5, transform=place)  # inches from the left edge


def _legend(
    figure: "Figure",
    data: Float[np.ndarray, "n d"],
    samples: Float[np.ndarray, "m d"],
    limits: Float[np.ndarray, "d 2"],
    left: float,
    lines: int,
) -> None:
    """What is data and what is the EBM, and how much of each the axes leave out."""
    from matplotlib.patches import Patch

    def outside(points: Float[np.ndarray, "n d"]) -> str:
        inside = np.all((points >= limits[:, 0]) & (points <= limits[:, 1]), axis=1)
        share = 1 - inside.mean() if len(points) else 0.0
        return f"{share:.0%} outside the axes" if share >= 0.005 else "all within the axes"

    below, above = (" (below)", " (above)") if len(limits) > 1 else ("", "")
    width, height = figure.get_size_inches()
    figure.legend(
        handles=[
            Patch(color=INK, alpha=0.45, lw=0, label=f"data{below}: {outside(data)}"),
            Patch(color=BLUE, lw=0, label=f"samples of the EBM{above}: {outside(samples)}"),
        ],
        loc="upper left",
        bbox_to_anchor=(left / width, 1 - 0.1 / height),
        ncols=3 - lines,
        handlelength=0.9,
        borderpad=0,
        labelspacing=0.3,
    )


class _Scale(NamedTuple):
    """A tick at `value` reads (value − offset) / unit, so that its label is short."""

    offset: float
    unit: float


def _scale(low: float, high: float) -> _Scale:
    """The offset where the range is small beside the values, the unit where they are far from 1."""
    centre, extent = (low + high) / 2, high - low
    digits = -math.floor(math.log10(extent))
    offset = round(centre, digits) if extent < 1e-3 * abs(centre) else 0.0
    size = max(abs(low - offset), abs(high - offset))
    unit = 1.0 if 1e-2 <= size < 1e4 else 10.0 ** math.floor(math.log10(size))
    return _Scale(offset, unit)


def _tick_label(scale: _Scale) -> Callable[[float, int], str]:
    def label(value: float, _: int) -> str:
        return f"{(value - scale.offset) / scale.unit:.4g}".replace("-", "−")

    return label


def _name(name: str, scale: _Scale, most: int = 20) -> str:
    """The name on one line, cut to what fits beside a panel, with what its ticks leave out."""
    sign = "−" if scale.offset > 0 else "+"
    offset = f" {sign} {abs(scale.offset):.12g}" if scale.offset else ""
    unit = f" / 1e{round(math.log10(scale.unit))}" if scale.unit != 1 else ""
    name = one_line(name, max(most - len(offset + unit), 6))
    return f"({name}{offset}){unit}" if offset and unit else name + offset + unit
