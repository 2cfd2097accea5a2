"""Trace and rank plots of many short chains, those from rows of the table beside those of the flow.

Ranks among all draws are uniform in every part of the draws if the chains have mixed (Vehtari,
Gelman, Simpson, Carpenter, Bürkner 2021, section 5.1). With hundreds of short chains the parts are
not single chains but what could differ: the two kinds of start, in the first and in the last half
of the sweeps. The band is where the share of a part of independent chains scatters, by the spread
between its chains.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from tiltflow.report.style import (
    GREY,
    INK,
    NORMAL,
    SMALL,
    VERMILION,
    look,
    new_figure,
    one_line,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 10
TRACES = 4
STANDARD_ERRORS = 2.0


@look()
def draw_chains(
    draws: Float[np.ndarray, "sweeps chains k"], names: Sequence[str], halves: tuple[str, str]
) -> "Figure":
    """A row for each of k quantities: its trace, then its ranks in both halves of the sweeps.

    `halves` name the two halves of the chains. Raises `ValueError` where `names` does not name
    every quantity.
    """
    k = draws.shape[2]
    if len(names) != k:
        raise ValueError(f"{len(names)} names for {k} quantities")
    height = 0.75 + 1.55 * k
    figure = new_figure(8.2, height)
    figure.subplots_adjust(
        left=0.1, right=0.985, top=1 - 0.4 / height, bottom=0.5 / height, wspace=0.2, hspace=0.22
    )
    panels = figure.subplots(k, 3, squeeze=False, width_ratios=(1.7, 1, 1))
    for row, name in enumerate(names):
        values = np.where(np.isfinite(draws[:, :, row]), draws[:, :, row], np.nan)
        _draw_trace(panels[row, 0], values)
        panels[row, 0].set_ylabel(one_line(name, 20), parse_math=False)
        middle = len(values) // 2
        ranks = _ranks(values)
        for axes, part in zip(panels[row, 1:], (ranks[:middle], ranks[middle:])):
            _draw_ranks(axes, part, halves)
    for axes in panels[:-1].ravel():
        axes.tick_params(labelbottom=False)
    panels[0, 0].set_title("Trace", loc="left", size=NORMAL, weight="bold")
    panels[0, 1].set_title("Ranks, first sweeps", loc="left", size=NORMAL, weight="bold")
    panels[0, 2].set_title("Ranks, last sweeps", loc="left", size=NORMAL, weight="bold")
    panels[-1, 0].set_xlabel("sweep")
    for axes in panels[-1, 1:]:
        axes.set_xlabel("rank among all draws, share")
    for axes in panels[:, 2]:
        axes.tick_params(labelleft=False)
    _legend(figure, halves, height)
    return figure


def rank_shares(
    ranks: Float[np.ndarray, "sweeps chains"],
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Shares of `BINS` bins of ranks in [0, 1), times `BINS`, and their standard errors."""
    index = np.minimum((ranks * BINS).astype(int), BINS - 1)
    # One row for each chain, which is independent of the others as its own sweeps are not.
    by_chain = np.stack([np.bincount(each, minlength=BINS) for each in index.T]) / len(ranks)
    chains = len(by_chain)
    error = by_chain.std(axis=0, ddof=1) / np.sqrt(chains) if chains > 1 else np.zeros(BINS)
    return BINS * by_chain.mean(axis=0), BINS * error


def _ranks(values: Float[np.ndarray, "sweeps chains"]) -> Float[np.ndarray, "sweeps chains"]:
    """Ranks among all, from 0 to below 1; equal values share theirs at random, but the same way."""
    order = np.random.default_rng(0).permutation(values.size)
    flat = values.ravel()[order]
    ranks = np.empty(values.size)
    ranks[order[np.argsort(flat, kind="stable")]] = np.arange(values.size) / values.size
    return ranks.reshape(values.shape)


def _draw_trace(axes: "Axes", values: Float[np.ndarray, "sweeps chains"]) -> None:
    sweeps, chains = values.shape
    steps = np.arange(1, sweeps + 1)
    if np.isfinite(values).all(axis=0).any():
        low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95], axis=1)
        axes.fill_between(steps, low, high, color=GREY, alpha=0.22, lw=0)
        axes.plot(steps, middle, color=GREY, lw=1, ls=(0, (3, 2)))
    half = chains // 2
    shown = min(TRACES, half)
    for colour, first in ((INK, 0), (VERMILION, half)):
        for chain in first + np.linspace(0, half - 1, shown).astype(int):
            axes.plot(steps, values[:, chain], color=colour, lw=0.8, alpha=0.75)
    axes.set_xlim(1, sweeps)
    axes.locator_params(axis="x", integer=True, nbins=7)
    axes.locator_params(axis="y", nbins=4)


def _draw_ranks(
    axes: "Axes", ranks: Float[np.ndarray, "sweeps chains"], halves: tuple[str, str]
) -> None:
    half = ranks.shape[1] // 2
    edges = np.linspace(0, 1, BINS + 1)
    parts = ((INK, ranks[:, :half]), (VERMILION, ranks[:, half:]))
    found = [rank_shares(part) for _, part in parts]
    error = STANDARD_ERRORS * np.mean([each[1] for each in found], axis=0)
    axes.stairs(1 + error, edges, baseline=1 - error, fill=True, color=GREY, alpha=0.22, lw=0)
    axes.axhline(1, color=GREY, lw=1, ls=(0, (3, 2)))
    for (colour, _), (shares, _), name in zip(parts, found, halves):
        axes.stairs(shares, edges, baseline=None, color=colour, lw=1.4, label=name)
    top = max(1.6, *(1.1 * shares.max() for shares, _ in found))
    axes.set_ylim(0, top)
    axes.set_xlim(0, 1)
    axes.locator_params(axis="x", nbins=3)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(axis="x", visible=False)


def _legend(figure: "Figure", halves: tuple[str, str], height: float) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, lw=1.6, label=name)
        for colour, name in zip((INK, VERMILION), halves)
    ]
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(0.985, 1 - 0.04 / height),
        ncols=2,
        columnspacing=1.2,
        borderpad=0,
        fontsize=SMALL,
    )
