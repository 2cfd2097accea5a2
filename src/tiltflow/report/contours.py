"""Contours of a density on a pair of columns, from draws of two independent groups of chains.

What is drawn is the marginal density of the pair, all other columns summed out, as a histogram of
the draws smoothed by a normal kernel. Its width is chosen by likelihood: the histogram of one
group, smoothed, is the density that the other group is scored by, and the reverse (Stone 1984 for
one group left out at a time). A contour holds a share of the mass: it bounds the smallest region
that does (Hyndman 1996), where draws beyond the grid count as mass outside.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

SHARES = (0.5, 0.9)
CELLS = 96
WIDTHS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)
"""Standard deviations of the kernel, in cells."""
LEAST_DRAWS = 500
MARGIN = 0.25
"""How far the grid reaches beyond the limits on either side, in lengths between them."""

Lines = tuple[Float[np.ndarray, "k 2"], ...]


class PairContours(NamedTuple):
    """For each share of the mass, in falling order of density, the lines that bound it."""

    shares: tuple[float, ...]
    lines: tuple[Lines, ...]

    def transposed(self) -> "PairContours":
        """The same with the columns exchanged."""
        return PairContours(
            self.shares, tuple(tuple(line[:, ::-1] for line in each) for each in self.lines)
        )


def pair_contours(
    first: Float[np.ndarray, "n 2"],
    second: Float[np.ndarray, "m 2"],
    limits: Float[np.ndarray, "2 2"],
) -> PairContours:
    """Contours of the density that both groups are draws of, around `limits` (low, high) of each.

    Empty where there are fewer than `LEAST_DRAWS` draws; a share that the grid does not hold is
    left out.
    """
    low, extent = limits[:, 0], limits[:, 1] - limits[:, 0]
    grid = np.stack([low - MARGIN * extent, low + (1 + MARGIN) * extent], axis=1)
    total = len(first) + len(second)
    if total < LEAST_DRAWS:
        return PairContours((), ())
    counts = [
        np.histogram2d(group[:, 0], group[:, 1], bins=CELLS, range=grid.tolist())[0]
        for group in (first, second)
    ]
    density = _smooth(counts[0] + counts[1], _best_width(counts)) / total
    falling = np.sort(density.ravel())[::-1]
    mass = np.cumsum(falling)
    shares = tuple(share for share in SHARES if mass[-1] > share)
    levels = [falling[np.searchsorted(mass, share)] for share in shares]
    step = (grid[:, 1] - grid[:, 0]) / CELLS
    centres = [grid[i, 0] + step[i] * (np.arange(CELLS) + 0.5) for i in range(2)]
    return PairContours(shares, tuple(_trace(centres, density, level) for level in levels))


def all_pair_contours(
    draws: Float[np.ndarray, "sweeps chains d"], limits: Float[np.ndarray, "d 2"]
) -> dict[tuple[int, int], PairContours]:
    """Contours of every pair of columns (across, up), across < up; chains are split in halves."""
    half, d = draws.shape[1] // 2, draws.shape[2]
    first, second = (part.reshape(-1, d) for part in (draws[:, :half], draws[:, half:]))
    return {
        (i, j): pair_contours(first[:, [i, j]], second[:, [i, j]], limits[[i, j]])
        for i in range(d)
        for j in range(i + 1, d)
    }


def robust_limits(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """From the 0.5 % to the 99.5 % quantile, a margin of 12 % on both sides."""
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 1.0)
    margin = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - margin), float(high + margin)


def _smooth(counts: Float[np.ndarray, "c c"], width: float) -> Float[np.ndarray, "c c"]:
    from scipy.ndimage import gaussian_filter

    # Mirrored at the edges, so that no mass is lost there.
    return gaussian_filter(counts, width, mode="reflect")


def _best_width(counts: list[Float[np.ndarray, "c c"]]) -> float:
    def score(width: float) -> float:
        likelihood = 0.0
        for ours, theirs in (counts, counts[::-1]):
            density = _smooth(theirs, width) / max(theirs.sum(), 1.0)
            # One stray draw must not decide: a thousandth of the mass is spread evenly.
            density = 0.999 * density + 0.001 / density.size
            likelihood += float((ours * np.log(density)).sum())
        return likelihood

    return max(WIDTHS, key=score)


def _trace(
    centres: list[Float[np.ndarray, " c"]], density: Float[np.ndarray, "c c"], level: float
) -> Lines:
    from contourpy import contour_generator

    lines = contour_generator(centres[0], centres[1], density.T).lines(level)
    return tuple(np.asarray(line) for line in lines)
