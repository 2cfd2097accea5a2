"""How often the 95 % intervals of a share hold that of the population, over tables of fresh rows.

A density that is fitted to few rows has their share of a mode, not the population's. Every cell
draws a table from a known mixture, fits it anew and asks `mode_weights` for the share of every
mode, of which `population_intervals` should hold the truth 95 times in 100; `intervals`, which are
of the fitted density alone, need not.

The true share of a label is its mode's weight: the modes overlap by far less than the rows' error.
Fits are short and from one Gaussian, so that the energy alone has the modes to make.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import binom

import tiltflow
from tiltflow.data.mixtures import GaussianMixture, four_modes, two_modes
from tiltflow.estimator import BalancedEBM
from tiltflow.evaluation.mode_weights import LEVEL
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.report.table import format_table

EXPERIMENT = "population"
SETTINGS: dict[str, Any] = {"base": "gaussian", "preprocessing": "standardise", "max_steps": 300}


class Case(NamedTuple):
    """A population, how many rows of it a table has, and how many tables a seed is."""

    name: str
    make: Callable[[], GaussianMixture]
    rows: int
    tables: int
    guess: float


def four() -> GaussianMixture:
    """Weights .4, .3, .2, .1 in eight dimensions."""
    return four_modes(8, 4.0)


CASES = (
    Case("two modes, d = 2, 400 rows", two_modes, 400, 100, 12.0),
    Case("four modes, d = 8, 1500 rows", four, 1500, 40, 40.0),
)


def reproduce_population(
    *, seeds: int, seed: int, quiet: bool, out: Path, quick: bool = False
) -> None:
    """A table for each case; every seed adds its tables of rows, with `quick` two."""
    cells = [
        Cell(
            EXPERIMENT,
            case.name,
            "balanced",
            "standardised, from one Gaussian",
            run_seed * case.tables + table,
            "full",
            (tiltflow.__version__, case.rows, SETTINGS),
            case.guess,
            _runner(case),
        )
        for case in CASES
        for run_seed in range(seed, seed + seeds)
        for table in range(2 if quick else case.tables)
    ]
    lines = run_cells(cells, out, quiet=quiet)
    for case in CASES:
        print(summary(case, [line for line in lines if line["case"] == case.name]))


def _runner(case: Case) -> Callable[[Cell, Sequence[Line]], dict[str, Any]]:
    return lambda cell, _: fit_table(case, cell.seed)


def fit_table(case: Case, seed: int) -> dict[str, Any]:
    """Of every mode its share in the table, its weight, both intervals; and the verdict."""
    target = case.make()
    rows = np.asarray(target.sample(jax.random.key(seed), case.rows), float)
    label = jax.jit(jax.vmap(target.label))
    estimator = BalancedEBM(random_state=seed, **SETTINGS).fit(rows)
    found = estimator.mode_weights(lambda x: np.asarray(label(x)))
    assert found.population_intervals is not None
    modes = len(target.weights)
    shares = np.zeros((modes, 6))
    shares[:, 0] = np.bincount(np.asarray(label(rows)), minlength=modes) / len(rows)
    shares[found.labels.astype(int), 1:] = np.column_stack(
        [found.weights, found.intervals, found.population_intervals]
    )
    return {"shares": shares.tolist(), "verdict": estimator.verdict_.status}


def summary(case: Case, lines: Sequence[Line]) -> str:
    """The case's table: a line for each mode, and the band for exact intervals.

    The standard deviations over tables are those of the weight, of the share among the rows, and of
    the difference of the two.
    """
    shares = np.array([line["figures"]["shares"] for line in lines])
    low, high = binom.interval(0.95, len(lines), LEVEL)
    rows = []
    for mode, truth in enumerate(np.asarray(case.make().weights, float)):
        of_rows, weights, *ends = shares[:, mode].T
        covered = [f"{np.mean((ends[i] <= truth) & (truth <= ends[i + 1])):.3f}" for i in (2, 0)]
        width = np.mean(ends[3] - ends[2])
        rows.append(
            [
                f"{truth:.2f}",
                *covered,
                f"{width:.4f}",
                f"{np.std(weights - truth):.4f}",
                f"{np.std(of_rows - truth):.4f}",
                f"{np.std(weights - of_rows):.4f}",
            ]
        )
    verdicts = [line["figures"]["verdict"] for line in lines]
    counted = ", ".join(f"{verdicts.count(each)} {each}" for each in sorted(set(verdicts)))
    columns = ["weight", "population", "density", "width", "std weight", "std rows", "between"]
    return "\n".join(
        [
            f"{case.name}: {len(lines)} tables; the share of 95 % intervals that hold the weight, "
            f"where exact ones hold it in {low / len(lines):.3f} to {high / len(lines):.3f}",
            format_table(columns, rows),
            f"verdicts: {counted}",
            "",
        ]
    )
