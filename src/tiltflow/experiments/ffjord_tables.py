"""Continuous flows and the balanced EBM on tables, at equal seconds (Grathwohl et al. 2019).

Where the five standard files are found (`data/flow_tables.py`) they are the tables, and what is
published of them stands beside; continuous flows then have the published networks. Elsewhere eight
small tables stand in, of which nothing is published.

On a core the first steps of the published networks take two seconds (POWER, MINIBOONE) to minutes
(BSDS300, by its operations), later ones more, so that equal seconds are few steps and no
convergence; the exact trace of 20 000 test rows takes minutes to hours. An accelerator is advised.
`STANDARD` with `seconds` of its own gives every flow that long: say 200 000, which is two days and
a third for each table and flow, to see them converge.

On each table the balanced EBM is trained first, by its defaults, on all rows but those of the test.
What it took, from choosing the preprocessing to the verdict, every flow has for its training
(`table_rivals.py`), on the rows after the same preprocessing, whose Jacobian counts. A Gaussian and
a mixture by BIC, of standardised rows, are the floors. Differences are paired: of the same test
rows, with the error of log Z.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.data.flow_tables import FOLDERS, Splits, load_flow_table
from tiltflow.data.preprocessing import to_model_units
from tiltflow.data.public_tables import FOLDER
from tiltflow.data.stand_in_tables import STAND_INS, load_stand_in
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.clock import clock
from tiltflow.experiments.failures import failures
from tiltflow.experiments.published_tables import NEGATIVE_LOG_LIKELIHOODS, NETWORKS, TABLES
from tiltflow.experiments.table_contest import (
    BALANCED,
    balanced_figures,
    choose_methods,
    comparison_table,
    figures_of,
    fit_balanced,
    verdict,
)
from tiltflow.experiments.table_rivals import (
    Continuous,
    Rival,
    fit_rival,
    log_prob_of_rows,
    rivals,
)
from tiltflow.experiments.table_scores import COMPONENTS, mixture_scores
from tiltflow.report.table import format_table
from tiltflow.training.preprocess import fit_steps

EXPERIMENT = "ffjord-tables"
FLOORS = {"gaussian": (1,), "mixture": COMPONENTS}
METHODS = (BALANCED, *(each.name for each in rivals(None)), *FLOORS)
SHARE = 0.75
"""Of the tables, on which the balanced EBM shall be best: six of eight."""
GUESSED_SECONDS = 150.0


class Budget(NamedTuple):
    """Most rows of each part, most training steps of the energy, seconds of the others.

    None stands for all rows, the default steps, and the seconds of the balanced EBM. Continuous
    flows, which the exact trace makes dear to judge, have at most `judged` of the test rows.
    """

    train: int
    validation: int
    test: int | None
    max_steps: int | None = None
    seconds: float | None = None
    judged: int | None = None


STANDARD = Budget(200_000, 20_000, None, judged=20_000)
STAND_IN = Budget(10_000, 1_000, 4_000)
QUICK = Budget(1_500, 300, 500, max_steps=200, seconds=5.0)
QUICK_TABLES = ("parkinsons",)


def reproduce_ffjord_tables(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """Test log-likelihoods of all methods on all tables, and on how many the balanced EBM is best.

    The folder is TILTFLOW_DATA, or the one beside it called `uci`.
    """
    entered = choose_methods(methods, METHODS)
    standard, loaders = find_tables()
    budget = QUICK if quick else STANDARD if standard else STAND_IN
    names = [name for name in loaders if not quick or name in QUICK_TABLES] or list(loaders)[:1]
    cells = [
        cell
        for run_seed in range(seed, seed + seeds)
        for name in names
        for cell in table_cells(name, loaders[name], entered, budget, standard, run_seed)
    ]
    lines = run_cells(cells, out, quiet=quiet)
    print(summary(lines, budget))
    if standard:
        print(f"\n{published(names)}")
    else:
        print("stand-ins: nothing is published of these tables, and nothing to compare with")
    print(
        verdict(lines, share=SHARE)
        if budget.seconds is None
        else "seconds were not equal: nothing is judged"
    )


def find_tables() -> tuple[bool, dict[str, Callable[[], Splits]]]:
    """Whether the standard files are there, and a loader for every table that is.

    Raises:
        InputError: there is none.
    """
    places = (FOLDER, FOLDER.parent, FOLDER.parent / "uci")
    for place in places:
        found = {
            name: partial(load_flow_table, name, place)
            for name, folder in FOLDERS.items()
            if (place / folder).is_dir()
        }
        if found:
            return True, found
    for place in places:
        found = {
            name: partial(load_stand_in, name, place)
            for name, (file, _) in STAND_INS.items()
            if (place / file).exists()
        }
        if found:
            return False, found
    raise InputError(
        f"{FOLDER}: found none of the tables here, beside, or in a folder 'uci' beside; set "
        "TILTFLOW_DATA to the folder that holds power/, gas/, hepmass/, miniboone/ and BSDS300/"
    )


def table_cells(
    name: str,
    load: Callable[[], Splits],
    entered: Sequence[str],
    budget: Budget,
    standard: bool,
    seed: int,
) -> list[Cell]:
    """The cells of one table and seed, the balanced EBM first."""
    prepared = lru_cache(maxsize=1)(lambda: capped(load(), budget, seed))
    known = {each.name: each for each in rivals(NETWORKS.get(name) if standard else None)}

    def run(cell: Cell, lines: Sequence[Line]) -> dict[str, Any]:
        splits = prepared()
        if cell.method == BALANCED:
            rest = np.concatenate([splits.train, splits.validation])
            return fit_balanced(
                rest, splits.test, seed=seed, max_steps=budget.max_steps, clock=clock
            )
        first = balanced_figures(lines, cell.case, cell.seed)
        seconds = budget.seconds or first["seconds"]
        if cell.method in FLOORS:
            return fit_floor(cell.method, splits, seed, seconds)
        rival = known[cell.method]
        judged = budget.judged if isinstance(rival.make, Continuous) else None
        return fit_flow_on(rival, splits, first["preprocessing"], seed, seconds, judged)

    return [
        Cell(
            EXPERIMENT,
            name,
            method,
            "standard" if standard else "stand-in",
            seed,
            "seconds",
            (tiltflow.__version__, budget, known.get(method)),
            GUESSED_SECONDS,
            run,
        )
        for method in entered
    ]


def capped(splits: Splits, budget: Budget, seed: int) -> Splits:
    """The splits with no more rows than the budget has, drawn without order."""
    generator = np.random.default_rng(seed)

    def some(rows: Float[np.ndarray, "n d"], most: int | None) -> Float[np.ndarray, "m d"]:
        if most is None or len(rows) <= most:
            return rows
        return rows[generator.permutation(len(rows))[:most]]

    # The test rows are the same for every seed.
    test = splits.test if budget.test is None else splits.test[: budget.test]
    train, validation = some(splits.train, budget.train), some(splits.validation, budget.validation)
    return Splits(train, validation, test)


def fit_floor(name: str, splits: Splits, seed: int, seconds: float) -> dict[str, Any]:
    """Figures of one Gaussian, or of a mixture by BIC."""
    started = clock()
    rest = np.concatenate([splits.train, splits.validation])
    scores = mixture_scores(rest, splits.test, seed, components=FLOORS[name], most_seconds=seconds)
    return figures_of(scores) | {"seconds": clock() - started}


def fit_flow_on(
    rival: Rival,
    splits: Splits,
    preprocessing: str,
    seed: int,
    seconds: float,
    judged: int | None = None,
) -> dict[str, Any]:
    """Figures of one flow after the preprocessing of that name, fitted to the training rows.

    It is judged on all test rows, or on every n-th of them (`every`), at most `judged`.
    """
    bijection = fit_steps(preprocessing, splits.train)
    x, held_out = (to_model_units(bijection, part)[0] for part in splits[:2])
    flow, figures = fit_rival(jax.random.key(seed), rival, x, held_out, seconds=seconds)
    every = -(-len(splits.test) // (judged or len(splits.test)))
    z, log_det = to_model_units(bijection, splits.test[::every])
    scores = log_prob_of_rows(flow, z) + log_det
    failed = int((~np.isfinite(scores)).sum())
    return figures_of(scores) | figures | {"failed_rows": failed, "every": every}


def summary(lines: Sequence[Line], budget: Budget) -> str:
    """The table of all methods, with what was left of the rows."""
    caps = f"at most {budget.train} rows to train on and {budget.validation} held out"
    test = "all test rows" if budget.test is None else f"at most {budget.test} test rows"
    if budget.judged is not None:
        test += f", of which continuous flows are judged on at most {budget.judged}, spread evenly"
    return (
        f"test log-likelihood, nats a row, with standard errors over test rows; {caps}, {test}\n"
        f"{comparison_table(lines)}\n{failures(lines)}"
    )


def published(names: Sequence[str]) -> str:
    """What is published, as log-likelihoods, of the tables that were found."""
    rows = [
        [
            method,
            *(
                f"{-mean:.2f} ± {spread:.2f}"
                for table, (mean, spread) in zip(TABLES, values)
                if table in names
            ),
        ]
        for method, values in NEGATIVE_LOG_LIKELIHOODS.items()
    ]
    columns = ["published", *(table for table in TABLES if table in names)]
    return f"Grathwohl et al. (2019), three runs\n{format_table(columns, rows)}"
