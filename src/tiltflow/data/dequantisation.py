"""Columns recorded on a grid (counts, one decimal): find the grid, and spread its points.

A density fitted to grid points grows without bound at them. Uniform noise of one grid step makes
the column continuous, and the mean log-density of the noisy column is then a lower bound of the
log-probability of the grid cells, per cell volume (Theis, van den Oord and Bethge 2016, eq. 2).
"""

import math

import numpy as np
from jaxtyping import Float

# Rows that are looked at: a grid that so many rows do not show is too fine to matter.
MOST_ROWS = 50_000

# Where more rows than this share repeat values off any grid, these are spread too, by so many
# standard deviations, where tables are compared.
MOST_TIES = 0.2
RESOLUTION = 0.02


def find_quanta(X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """The grid step of every column that is quantised, and 0 for every other.

    A column is quantised if at least 5 % of its rows repeat another row's value, 99 % of its rows
    (and of those without its most frequent value) lie within 5 % of a step from the points of a
    grid, and at least a tenth of the gaps between neighbouring values are ten steps or less. The
    last condition tells a grid from a continuous column in which whole rows repeat: any table
    printed to nine digits is a grid of 1e-9. The largest such step is taken.

    Args:
        X: (n, d), finite.
    """
    return np.array([_find_quantum(column) for column in X.T])


def dequantise(
    generator: np.random.Generator, X: Float[np.ndarray, "n d"], quanta: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "n d"]:
    """X + quanta · (U − 1/2), U uniform on [0, 1): (n, d)."""
    return X + quanta * (generator.random(X.shape) - 0.5)


def requantise(
    X: Float[np.ndarray, "*n d"],
    quanta: Float[np.ndarray, " d"],
    origin: Float[np.ndarray, " d"],
) -> Float[np.ndarray, "*n d"]:
    """The nearest points origin + k · quanta; columns of quantum 0 stay as they are.

    Points are rounded to 14 digits, if not whole: 47.2 is 47.2 again, not 47.199999999999996.

    Args:
        X: (n, d), or with further leading axes.
        quanta: (d,) of `find_quanta`.
        origin: (d,) any point of each grid, such as the most frequent value of the column.
    """
    step = np.where(quanta > 0, quanta, 1.0)
    points = origin + np.round((X - origin) / step) * step
    for j in np.flatnonzero(quanta > 0):
        column = points[..., j]
        largest = np.abs(column[np.isfinite(column)]).max(initial=step[j])
        points[..., j] = np.round(column, max(0, 14 - math.ceil(math.log10(largest))))
    return np.where(quanta > 0, points, X)


def share_of_ties(
    X: Float[np.ndarray, "n d"], quanta: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " d"]:
    """The share of rows whose value another row has too; 0 for columns on a grid.

    A density narrows onto repeated values without bound: where this is large and no grid can be
    spread, likelihoods measure how narrow, and nothing else.
    """
    shares = np.zeros(X.shape[1])
    for j in np.flatnonzero(quanta == 0):
        _, counts = np.unique(X[:, j], return_counts=True)
        shares[j] = counts[counts > 1].sum() / len(X)
    return shares


def make_continuous(
    generator: np.random.Generator, X: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "n d"]:
    """X with no column left on which a density could narrow without bound: (n, d).

    Grids are spread by one step, and columns where more than a fifth of the rows repeat values off
    any grid by .02 standard deviations: so that methods can be compared on real tables.
    """
    quanta = find_quanta(X)
    tied = share_of_ties(X, quanta) > MOST_TIES
    return dequantise(generator, X, np.where(tied, RESOLUTION * X.std(axis=0), quanta))


def _find_quantum(column: Float[np.ndarray, " n"]) -> float:
    if len(column) > MOST_ROWS:
        column = np.random.default_rng(0).choice(column, MOST_ROWS, replace=False)
    values, counts = np.unique(column, return_counts=True)
    if len(values) < 2 or len(values) > 0.95 * len(column):
        return 0.0
    gaps = np.sort(np.diff(values))
    # Values that differ by rounding alone (0.3 and 0.1 + 0.2) are one value.
    gaps = gaps[gaps > 1e-9 * np.abs(values).max()]
    if len(gaps) == 0:
        return 0.0
    others = np.where(np.arange(len(counts)) == counts.argmax(), 0, counts)
    # The step divides most gaps: some common gap is a small multiple of it.
    common = np.unique(np.quantile(gaps, [0.0, 0.05, 0.1, 0.25, 0.5, 0.75], method="nearest"))
    candidates = np.unique(common[:, None] / np.arange(1, 21))[::-1]
    for candidate in candidates:
        refined = _refine(gaps, candidate)
        quantum, share = _fit_grid(values, others, refined)
        if (gaps <= 10.5 * quantum).mean() < 0.1:
            return 0.0
        # Both: zeros alone, if there are enough, are on any grid; and the most frequent value off
        # the grid of all others would come back as its neighbour.
        if share >= 0.99 and _fit_grid(values, counts, refined)[1] >= 0.99:
            # Most grids are decimal: 0.1, not 0.1000000000000032.
            short = float(f"{quantum:.2g}")
            return short if abs(short - quantum) < 1e-6 * quantum else quantum
    return 0.0


def _refine(gaps: Float[np.ndarray, " g"], quantum: float) -> float:
    """Least squares of gap = k · quantum, first over small k, then over ever larger ones.

    A step read off one printed gap is too coarse to count the steps of a large gap.
    """
    reach = 2.0
    while True:
        steps, near = _steps(gaps, quantum)
        used = near & (steps > 0) & (steps <= reach)
        if used.any():
            quantum = float((gaps[used] * steps[used]).sum() / (steps[used] ** 2).sum())
        if reach * quantum > gaps[-1]:
            return quantum
        reach *= 2


def _steps(gaps: Float[np.ndarray, " g"], quantum: float) -> tuple[np.ndarray, np.ndarray]:
    """The nearest number of steps of every gap, and whether it is within a tenth of a step."""
    steps = np.round(gaps / quantum)
    return steps, np.abs(gaps / quantum - steps) < 0.1


def _fit_grid(
    values: Float[np.ndarray, " m"], counts: np.ndarray, quantum: float
) -> tuple[float, float]:
    """The step fitted to the sorted values, and the share of the counted rows on its grid."""
    # Count steps along values that a whole number of steps parts from a neighbour: values off the
    # grid would spoil the count.
    whole, near = _steps(np.diff(values), quantum)
    near = near & (whole > 0)
    on_grid = np.append(near, False) | np.insert(near, 0, False)
    steps = np.zeros(len(values))
    steps[on_grid] = np.cumsum(np.round(np.diff(values[on_grid], prepend=values[0]) / quantum))
    for _ in range(3):
        if on_grid.sum() < 2 or np.ptp(steps[on_grid]) == 0:
            return quantum, 0.0
        centred = steps[on_grid] - steps[on_grid].mean()
        quantum = float(centred @ values[on_grid] / (centred @ centred))
        phase = (values - values[0]) / quantum
        origin = np.angle((counts * np.exp(2j * np.pi * phase)).sum()) / (2 * np.pi)
        steps = np.round(phase - origin)
        on_grid = np.abs(phase - origin - steps) < 0.05
    return quantum, float(counts[on_grid].sum() / counts.sum())


def most_frequent(X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """A value of each column that lies on its grid, if it has one: the minimum need not."""
    origins = []
    for column in X.T:
        values, counts = np.unique(column, return_counts=True)
        origins.append(values[counts.argmax()])
    return np.array(origins)
