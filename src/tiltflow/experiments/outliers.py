"""Outlier detection on labelled tables: the balanced EBM beside scikit-learn's detectors.

All public tables with known outliers that are there (`data/public_tables.py`), at most 10 000 rows
to fit. Two protocols, of the same 70 % of the rows: "mixed", where a fit sees inliers and outliers
without labels, as ODDS and ADBench have it (Rayana 2016; Han et al. 2022), and "novelty", where it
sees the inliers alone, as one-class methods have it. The other 30 % are ranked, and the area under
the ROC curve says how far outliers come first. Every method has its defaults.

    balanced               log-density of the balanced EBM
    balanced_smoothed      the same EBM convolved with a normal of one standard deviation of every
                           column (this scale alone was chosen by labels of these tables, of .1, .3,
                           1 and 2, with Gaussian mixtures in the place of the EBM)
    isolation_forest       how few random cuts part a row from the others (Liu et al. 2008)
    local_outlier_factor   density by neighbours, of standardised columns (Breunig et al. 2000)
    mixture                log-density by scikit-learn's Gaussian mixture, components by BIC
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.data.public_tables import FILES, FOLDER, PublicTable, find_public_tables, numbers_of
from tiltflow.estimator import BalancedEBM
from tiltflow.experiments.cells import Cell, Line, run_cells
from tiltflow.experiments.clock import clock
from tiltflow.experiments.table_contest import BALANCED, choose_methods
from tiltflow.experiments.table_scores import mixture_scores
from tiltflow.report.table import format_table, mean_and_std

EXPERIMENT = "outliers"
SMOOTHED = "balanced_smoothed"
METHODS = (BALANCED, SMOOTHED, "isolation_forest", "local_outlier_factor", "mixture")
PROTOCOLS = ("novelty", "mixed")
TESTED = 0.3
QUICK_TABLES = ("glass", "new-thyroid")
GUESSED_SECONDS = {BALANCED: 140.0}


class Budget(NamedTuple):
    """Most rows to fit and to rank, and most training steps of the energy (None: the default)."""

    fitted: int
    ranked: int
    max_steps: int | None = None


FULL = Budget(10_000, 20_000)
QUICK = Budget(1_000, 1_000, max_steps=200)


class Split(NamedTuple):
    """Rows to fit, rows to rank, and which of these are outliers."""

    fitted: Float[np.ndarray, "n d"]
    ranked: Float[np.ndarray, "m d"]
    is_outlier: Bool[np.ndarray, " m"]


def reproduce_outliers(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """Areas under the ROC curve of all methods on every labelled table, and their mean ranks.

    Every seed is another split.

    Raises:
        InputError: no labelled table is there.
    """
    entered = choose_methods(methods, METHODS)
    labelled = [name for name, files in FILES.items() if files.outliers]
    loaders = {name: it for name, it in find_public_tables(FOLDER).items() if name in labelled}
    for name in [name for name in labelled if name not in loaders]:
        print(f"{name}: {', '.join(FILES[name].names)} not in {FOLDER}, left out")
    if not loaders:
        raise InputError(f"{FOLDER}: holds no labelled table; name their folder by TILTFLOW_DATA")
    budget = QUICK if quick else FULL
    cells = [
        cell
        for run_seed in range(seed, seed + seeds)
        for protocol in PROTOCOLS
        for name, load in loaders.items()
        if not quick or name in QUICK_TABLES
        for cell in table_cells(name, load, protocol, entered, budget, run_seed)
    ]
    print(summary(run_cells(cells, out, quiet=quiet)))


def table_cells(
    name: str,
    load: Callable[[], PublicTable],
    protocol: str,
    entered: Sequence[str],
    budget: Budget,
    seed: int,
) -> list[Cell]:
    """The cells of one table, protocol and split."""
    prepared = lru_cache(maxsize=1)(lambda: split_rows(load(), protocol, budget, seed))

    # One fit for both of its scores; its seconds are those of whichever is asked first.
    @lru_cache(maxsize=1)
    def fit() -> BalancedEBM:
        estimator = BalancedEBM(random_state=seed, max_steps=budget.max_steps)
        return estimator.fit(prepared().fitted)

    def run(cell: Cell, _: Sequence[Line]) -> dict[str, Any]:
        split = prepared()
        started = clock()
        if cell.method == BALANCED:
            scores = -fit().score_samples(split.ranked)
        elif cell.method == SMOOTHED:
            scores = -fit().smoothed_log_density(split.ranked)
        else:
            scores = -score(cell.method, split.fitted, split.ranked, seed)
        return {
            "auc": float(roc_auc_score(split.is_outlier, scores)),
            "average_precision": float(average_precision_score(split.is_outlier, scores)),
            "seconds": clock() - started,
            "fitted": len(split.fitted),
            "columns": split.fitted.shape[1],
            "ranked": len(split.ranked),
            "outliers": int(split.is_outlier.sum()),
        }

    return [
        Cell(
            EXPERIMENT,
            name,
            method,
            protocol,
            seed,
            "full" if budget == FULL else "quick",
            (tiltflow.__version__, budget),
            GUESSED_SECONDS.get(method, 3.0),
            run,
        )
        for method in entered
    ]


def split_rows(table: PublicTable, protocol: str, budget: Budget, seed: int) -> Split:
    """70 % of the rows to fit, of which "novelty" keeps the inliers, and 30 % to rank."""
    assert table.is_outlier is not None
    parts = train_test_split(
        table.rows, table.is_outlier, test_size=TESTED, stratify=table.is_outlier, random_state=seed
    )
    rest, ranked, of_rest, of_ranked = map(np.asarray, parts)
    fitted = rest[~of_rest] if protocol == "novelty" else rest
    fitted = fitted[: budget.fitted]
    # A column that is constant where it is fitted has no density, for any of the methods.
    varying = np.ptp(fitted, axis=0) > 0
    return Split(
        numbers_of(fitted),
        ranked[: budget.ranked, varying],
        of_ranked[: budget.ranked],
    )


def score(
    method: str,
    fitted: Float[np.ndarray, "n d"],
    ranked: Float[np.ndarray, "m d"],
    seed: int,
) -> Float[np.ndarray, " m"]:
    """How much each of the rows to rank is like the fitted ones, by a rival: large for inliers."""
    match method:
        case "isolation_forest":
            return IsolationForest(random_state=seed).fit(fitted).score_samples(ranked)
        case "local_outlier_factor":
            mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
            factor = LocalOutlierFactor(novelty=True).fit((fitted - mean) / scale)
            return factor.score_samples((ranked - mean) / scale)
        case _:
            return mixture_scores(fitted, ranked, seed)


def summary(lines: Sequence[Line]) -> str:
    """For each protocol a row for every table: areas of all methods; and the mean ranks."""
    methods = list(dict.fromkeys(line["method"] for line in lines))
    blocks = []
    for protocol in dict.fromkeys(line["setting"] for line in lines):
        of_protocol = [line for line in lines if line["setting"] == protocol]
        rows, areas = [], []
        for name in dict.fromkeys(line["case"] for line in of_protocol):
            groups = [
                [
                    line["figures"]
                    for line in of_protocol
                    if (line["case"], line["method"]) == (name, method)
                ]
                for method in methods
            ]
            first = groups[0][0]
            size = [str(first[it]) for it in ("fitted", "columns", "ranked", "outliers")]
            of_table = [[figures["auc"] for figures in group] for group in groups]
            areas.append([np.mean(values) for values in of_table])
            rows.append([name, *size, *(mean_and_std(values) for values in of_table)])
        ranks = rankdata(-np.array(areas), axis=1).mean(axis=0)
        rows.append(["mean rank", "", "", "", "", *(f"{rank:.2f}" for rank in ranks)])
        rows.append(["mean area", "", "", "", "", *(f"{it:.3f}" for it in np.mean(areas, axis=0))])
        columns = ["table", "fitted", "d", "ranked", "outliers", *methods]
        title = f"{protocol}: area under the ROC curve of the ranked rows"
        blocks.append(f"{title}\n{format_table(columns, rows)}")
    return "\n\n".join(blocks)
