"""Real tables: held-out log-likelihood of the balanced EBM, a Gaussian mixture and the flow alone.

Every table is dequantised once, the same way for all methods, or a mixture would win by spikes on
repeated values. A fifth of the rows is set apart for the test; nothing is tuned on it. The mixture
is scikit-learn's, its number of components chosen by BIC on all the other rows; the flow is the
proposal flow of the same preprocessing, stopped early.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from sklearn.datasets import load_breast_cancer, load_wine

from tiltflow.data.dequantisation import dequantise, find_quanta
from tiltflow.data.preprocessing import to_model_units
from tiltflow.data.tables import read_table
from tiltflow.estimator import BalancedEBM
from tiltflow.experiments.table_scores import mixture_scores, paired_difference, standard_error
from tiltflow.report.files import append_json_lines
from tiltflow.report.table import format_table
from tiltflow.training.bases import choose_base
from tiltflow.training.preprocess import fit_steps

FOLDER = Path(os.environ.get("TILTFLOW_DATA", "../shared/data/tabular"))
# File, and columns that are not part of the density: classes.
FILES = {
    "geyser": ("geyser.csv", "kind", 0),
    "HTRU_2": ("HTRU_2.csv.gz", None, 1),
    "winequality-white": ("winequality-white.csv", None, 1),
    "mammography": ("mammography.csv.gz", "x6", 0),
    "earth_volerup": ("earth_volerup.csv", None, 0),
}


def reproduce_tables(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """Every table that is there, `seeds` splits each: mean test log-likelihoods and differences."""
    rows = []
    for name, table in load_tables().items():
        results = []
        for i in range(seeds):
            results.append(compare_on_table(name, table, seed=seed + i))
            append_json_lines(out / "results.jsonl", results[-1:])
            if not quiet:
                print(json.dumps(results[-1]), flush=True)
        rows.append([name, str(table.shape[0]), str(table.shape[1]), *_summary(results)])
    columns = [
        "table",
        "rows",
        "columns",
        "mixture (BIC)",
        "flow",
        "balanced",
        "balanced - mixture",
        "balanced - flow",
        "base",
        "seconds",
    ]
    print("test log-likelihood, nats per row, with standard errors over the test rows")
    print(format_table(columns, rows))


def load_tables() -> dict[str, Float[np.ndarray, "n d"]]:
    """scikit-learn's tables, and those of `FOLDER` (set TILTFLOW_DATA) that are there."""
    tables = {}
    for name, (file, label, dropped) in FILES.items():
        path = FOLDER / file
        if path.exists():
            values = read_table(path, label_column=label).values
            tables[name] = values[:, : values.shape[1] - dropped]
        else:
            print(f"{name}: {path} is not there, left out")
    tables["wine"] = load_wine(return_X_y=True)[0]
    tables["breast-cancer"] = load_breast_cancer(return_X_y=True)[0]
    return tables


def compare_on_table(name: str, table: Float[np.ndarray, "n d"], *, seed: int) -> dict[str, Any]:
    """All three methods on one split of one table."""
    generator = np.random.default_rng(seed)
    rows = dequantise(generator, table, find_quanta(table))
    # A value that fills a column's rows without a grid is a spike no density can have.
    rows = rows[generator.permutation(len(rows))]
    test, rest = np.split(rows, [len(rows) // 5])
    started = time.perf_counter()
    estimator = BalancedEBM(random_state=seed).fit(rest)
    seconds = time.perf_counter() - started
    scores = {
        "balanced": estimator.score_samples(test),
        "mixture": mixture_scores(rest, test, seed),
        "flow": _flow_scores(estimator.preprocessing_, rest, test, seed),
    }
    log_z_stderr = estimator.log_normalizer_stderr_
    differences = {
        rival: paired_difference(scores["balanced"], scores[rival], log_z_stderr=log_z_stderr)
        for rival in ("mixture", "flow")
    }
    return {
        "table": name,
        "seed": seed,
        "base": estimator.base_,
        "preprocessing": estimator.preprocessing_,
        "seconds": seconds,
        "log_z_stderr": log_z_stderr,
        "importance_ess": estimator.importance_ess_,
        **{method: float(values.mean()) for method, values in scores.items()},
        **{f"{method}_stderr": standard_error(values) for method, values in scores.items()},
        **{f"minus_{rival}": mean for rival, (mean, _) in differences.items()},
        **{f"minus_{rival}_stderr": stderr for rival, (_, stderr) in differences.items()},
    }


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


def _summary(results: list[dict[str, Any]]) -> list[str]:
    """Means over the splits; the standard error of a mean over splits of the same table."""

    def cell(value: str) -> str:
        values = np.array([result[value] for result in results])
        errors = np.array([result[f"{value}_stderr"] for result in results])
        # Splits share rows, so their errors are not independent: the mean one is the honest one.
        return f"{values.mean():.3f} ± {errors.mean():.3f}"

    bases = sorted({result["base"].split(":")[0] for result in results})
    return [
        cell("mixture"),
        cell("flow"),
        cell("balanced"),
        cell("minus_mixture"),
        cell("minus_flow"),
        ", ".join(bases),
        f"{np.mean([result['seconds'] for result in results]):.0f}",
    ]
