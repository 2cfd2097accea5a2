"""Real tables: held-out log-likelihood of the balanced EBM, by its defaults, beside four others.

All public tables that are there (`data/public_tables.py`), made continuous once, the same way for
all methods, or a method would win by spikes on repeated values. A fifth of the rows, at most 4000,
is set apart for the test, and at most 10 000 of the others are fitted; nothing is tuned on the
test.

    gaussian    one Gaussian: what no method may be behind
    mixture     scikit-learn's Gaussian mixture, its number of components by BIC
    kernels     scikit-learn's kernel density, its bandwidth by leaving one row out
    flow        the proposal flow alone, after the balanced EBM's preprocessing, stopped early
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import tiltflow
from tiltflow.data.dequantisation import make_continuous
from tiltflow.data.preprocessing import to_model_units
from tiltflow.data.public_tables import FILES, FOLDER, PublicTable, find_public_tables
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.clock import clock
from tiltflow.experiments.table_contest import (
    BALANCED,
    balanced_figures,
    behind_one,
    choose_methods,
    comparison_table,
    figures_of,
    fit_balanced,
    verdict,
)
from tiltflow.experiments.table_scores import kernel_scores, mixture_scores
from tiltflow.training.bases import choose_base
from tiltflow.training.preprocess import fit_steps

EXPERIMENT = "tables"
METHODS = (BALANCED, "gaussian", "mixture", "kernels", "flow")
SHARE = 0.8
"""Of the tables, on which the balanced EBM shall be best."""
QUICK_TABLES = ("geyser", "wine")
GUESSED_SECONDS = {BALANCED: 110.0, "flow": 40.0}


class Budget(NamedTuple):
    """Most rows to fit and to test, and most training steps of the energy (None: the default)."""

    rest: int
    test: int
    max_steps: int | None = None


FULL = Budget(10_000, 4_000)
QUICK = Budget(1_000, 500, max_steps=200)


class Split(NamedTuple):
    """Rows that are fitted, and rows that are tested."""

    rest: Float[np.ndarray, "n d"]
    test: Float[np.ndarray, "m d"]


def reproduce_tables(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """Test log-likelihoods on every table that is there, and on how many the balanced EBM is best.

    Every seed is another split.
    """
    entered = choose_methods(methods, METHODS)
    loaders = find_public_tables(FOLDER)
    for name in [name for name in FILES if name not in loaders]:
        print(f"{name}: {', '.join(FILES[name].names)} not in {FOLDER}, left out")
    budget = QUICK if quick else FULL
    cells = [
        cell
        for run_seed in range(seed, seed + seeds)
        for name, load in loaders.items()
        if not quick or name in QUICK_TABLES
        for cell in table_cells(name, load, entered, budget, run_seed)
    ]
    lines = run_cells(cells, out, quiet=quiet)
    print(
        "test log-likelihood, nats a row, with standard errors over test rows; at most "
        f"{budget.rest} rows fitted, {budget.test} tested; {seeds} splits"
    )
    print(comparison_table(lines))
    print(verdict(lines, share=SHARE))
    if "gaussian" in entered:
        print(behind_one(lines, "gaussian"))


def table_cells(
    name: str,
    load: Callable[[], PublicTable],
    entered: Sequence[str],
    budget: Budget,
    seed: int,
) -> list[Cell]:
    """The cells of one table and split, the balanced EBM first."""
    prepared = lru_cache(maxsize=1)(lambda: split_rows(load().rows, budget, seed))

    def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
        rest, test = prepared()
        if cell.method == BALANCED:
            return fit_balanced(rest, test, seed=seed, max_steps=budget.max_steps, clock=clock)
        first = balanced_figures(lines, cell.case, cell.seed)
        started = clock()
        scores = _scores(cell.method, rest, test, first["preprocessing"], seed)
        return figures_of(scores) | {"seconds": clock() - started}

    return [
        Cell(
            EXPERIMENT,
            name,
            method,
            "defaults",
            seed,
            "full" if budget == FULL else "quick",
            (tiltflow.__version__, budget),
            GUESSED_SECONDS.get(method, 5.0),
            run,
        )
        for method in entered
    ]


def split_rows(rows: Float[np.ndarray, "n d"], budget: Budget, seed: int) -> Split:
    """Rows without order, spread where they repeat values, a fifth of them apart."""
    generator = np.random.default_rng(seed)
    rows = rows[generator.permutation(len(rows))[: budget.rest + budget.test]]
    rows = make_continuous(generator, rows)
    tested = min(budget.test, len(rows) // 5)
    return Split(rows[tested : tested + budget.rest], rows[:tested])


def _scores(
    method: str,
    rest: Float[np.ndarray, "n d"],
    test: Float[np.ndarray, "m d"],
    preprocessing: str,
    seed: int,
) -> Float[np.ndarray, " m"]:
    match method:
        case "gaussian":
            return mixture_scores(rest, test, seed, components=(1,))
        case "mixture":
            return mixture_scores(rest, test, seed)
        case "kernels":
            return kernel_scores(rest, test)
        case _:
            return _flow_scores(preprocessing, rest, test, seed)


def _flow_scores(
    preprocessing: str, rest: Float[np.ndarray, "n d"], test: Float[np.ndarray, "m d"], seed: int
) -> Float[np.ndarray, " m"]:
    held_out, training = np.split(rest, [round(0.15 * len(rest))])
    bijection = fit_steps(preprocessing, training)
    x, _ = to_model_units(bijection, training)
    x_held_out, _ = to_model_units(bijection, held_out)
    z, log_det = to_model_units(bijection, test)
    start = choose_base(jax.random.key(seed), "flow", x, x_held_out, seed=seed)
    return np.asarray(start.flow.log_prob(jnp.asarray(z)), dtype=float) + log_det
