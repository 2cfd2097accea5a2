"""How methods on tables are compared: log-densities of the same test rows, row by row.

A line (`cells.py`) of a method on a table holds the log-density of every test row. Differences to
the balanced EBM are paired, and have the error of log Z; where a method is dear to judge, its line
says of `every` how many-th row it has the log-density. A mean that is not finite, as where a row
has no density, counts as -inf: a method that has it is never the best.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from tiltflow.data.errors import InputError
from tiltflow.estimator import BalancedEBM
from tiltflow.experiments.cells import Line, find_line
from tiltflow.experiments.table_scores import paired_difference, standard_error
from tiltflow.report.table import format_table, mean_and_std

BALANCED = "balanced"
ERROR_BARS = 2.0


def choose_methods(methods: tuple[str, ...] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Those called; all if None. The balanced EBM is always run: others are compared with it.

    Raises:
        InputError: a name is not known.
    """
    for name in methods or ():
        if name not in known:
            raise InputError(f"--methods: '{name}' is not known; use some of {', '.join(known)}")
    return tuple(name for name in known if methods is None or name in (BALANCED, *methods))


def fit_balanced(
    rest: Float[np.ndarray, "n d"],
    test: Float[np.ndarray, "m d"],
    *,
    seed: int,
    max_steps: int | None,
    clock: Callable[[], float],
) -> dict[str, Any]:
    """Figures of the estimator with its defaults; it holds rows out by itself."""
    started = clock()
    estimator = BalancedEBM(random_state=seed, max_steps=max_steps).fit(rest)
    seconds = clock() - started
    return figures_of(estimator.score_samples(test)) | {
        "seconds": seconds,
        "log_z_stderr": estimator.log_normalizer_stderr_,
        "importance_ess": estimator.importance_ess_,
        "base": estimator.base_,
        "preprocessing": estimator.preprocessing_,
        "verdict": estimator.verdict_.status,
        "rows": len(rest),
        "columns": rest.shape[1],
    }


def figures_of(scores: Float[np.ndarray, " m"]) -> dict[str, Any]:
    """The mean of log-densities with its standard error, and every one of them."""
    finite = bool(np.isfinite(scores).all())
    return {
        "log_likelihood": float(scores.mean()) if finite else -math.inf,
        "stderr": standard_error(scores) if finite else math.nan,
        # Paired differences need them row by row; a ten-thousandth of a nat is enough.
        "scores": np.round(scores, 4).tolist(),
    }


def comparison_table(lines: Sequence[Line]) -> str:
    """A row for every table and method: log-likelihood, balanced minus it, seconds."""
    columns = ["table", "rows", "d", "method", "log-likelihood", "balanced - it", "seconds", "note"]
    rows = []
    for (name, method), group in _grouped(lines).items():
        figures = [line["figures"] for line in group]
        first = balanced_figures(lines, name, group[0]["seed"])
        size = [str(first["rows"]), str(first["columns"])] if method == BALANCED else ["", ""]
        rows.append(
            [
                name if method == BALANCED else "",
                *size,
                method,
                _with_error([_likelihood(it) for it in figures], [it["stderr"] for it in figures]),
                "" if method == BALANCED else _with_error(*zip(*_gaps(lines, group))),
                f"{np.mean([it['seconds'] for it in figures]):.0f}",
                _note(figures[0]),
            ]
        )
    return format_table(columns, rows)


def verdict(lines: Sequence[Line], *, share: float) -> str:
    """On how many tables the balanced EBM is best, or within the error bars of the best.

    The bar is the `share` of the tables, rounded up.
    """
    tables = list(dict.fromkeys(line["case"] for line in lines))
    behind = [words for name in tables if (words := _behind(lines, name)) is not None]
    good, needed = len(tables) - len(behind), int(np.ceil(share * len(tables)))
    met = "met" if good >= needed else "missed"
    words = f"balanced EBM best, or within {ERROR_BARS:.0f} standard errors of the best, on"
    return "\n".join([f"{words} {good} of {len(tables)} tables, bar {needed}: {met}", *behind])


def behind_one(lines: Sequence[Line], method: str) -> str:
    """On which tables the balanced EBM is behind one method by more than the error bars."""
    tables = list(dict.fromkeys(line["case"] for line in lines if line["method"] == method))
    only = [line for line in lines if line["method"] in (BALANCED, method)]
    behind = [words for name in tables if (words := _behind(only, name)) is not None]
    words = f"behind {method} by more than {ERROR_BARS:.0f} standard errors on {len(behind)} of"
    return "\n".join([f"{words} {len(tables)} tables", *behind])


def balanced_figures(lines: Sequence[Line], case: str, seed: int) -> dict[str, Any]:
    """Of the balanced EBM on this table with this seed, which must be among the lines."""
    found = find_line(lines, {"case": case, "seed": seed, "method": BALANCED})
    assert found is not None
    return found["figures"]


def _behind(lines: Sequence[Line], name: str) -> str | None:
    """How far the balanced EBM is behind the best other method on a table; None if it is not."""
    groups = {key: group for key, group in _grouped(lines).items() if key[0] == name}
    others = {key[1]: group for key, group in groups.items() if key[1] != BALANCED}
    if not others:
        return None
    if not all(math.isfinite(_likelihood(line["figures"])) for line in groups[name, BALANCED]):
        return f"{name}: the balanced EBM has no finite log-likelihood"
    gaps = {method: np.mean(_gaps(lines, group), axis=0) for method, group in others.items()}
    best = min(gaps, key=lambda method: gaps[method][0])
    gap, error = gaps[best]
    if gap == math.inf or gap >= -ERROR_BARS * error:
        return None
    return f"{name}: {gap:.3f} ± {error:.3f} behind {best}"


def _grouped(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["case"], line["method"]), []).append(line)
    return groups


def _gaps(lines: Sequence[Line], group: Sequence[Line]) -> list[tuple[float, float]]:
    """Balanced minus the method, seed by seed, with its standard error."""
    gaps = []
    for line in group:
        first = balanced_figures(lines, line["case"], line["seed"])
        own, other = _likelihood(first), _likelihood(line["figures"])
        if not math.isfinite(own + other):
            gaps.append((own - other, math.nan))
            continue
        gaps.append(
            paired_difference(
                np.array(first["scores"])[:: line["figures"].get("every", 1)],
                np.array(line["figures"]["scores"]),
                log_z_stderr=first["log_z_stderr"],
            )
        )
    return gaps


def _likelihood(figures: dict[str, Any]) -> float:
    mean = figures["log_likelihood"]
    return mean if math.isfinite(mean) else -math.inf


def _with_error(values: Sequence[float], errors: Sequence[float]) -> str:
    if not np.isfinite(values).all():
        return f"{sum(values):.0f}"
    # Seeds share rows, so that more of them do not make these errors smaller.
    spread = f" ({mean_and_std(list(values))} over seeds)" if len(values) > 1 else ""
    return f"{np.mean(values):.3f} ± {np.mean(errors):.3f}{spread}"


def _note(figures: dict[str, Any]) -> str:
    if "base" in figures:
        return f"{figures['base']}; {figures['preprocessing']}; {figures['verdict']}"
    if "best_step" in figures:
        calls = f", {figures['evaluations']:.0f} calls a step" if "evaluations" in figures else ""
        return f"best of {figures['steps']} steps: {figures['best_step']}{calls}"
    return ""
