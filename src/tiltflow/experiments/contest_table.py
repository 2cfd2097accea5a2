"""The table of a contest: one row for each method, setting and budget, over all seeds."""

from collections.abc import Sequence

import numpy as np

from tiltflow.experiments.cells import Line
from tiltflow.report.table import format_table, mean_and_std

FIGURES = {
    "weight error, data": "weight_error_data",
    "weight error, truth": "weight_error_truth",
    "KL(truth || model)": "kl",
    "KL(model || truth)": "reverse_kl",
    "SW2": "sliced_wasserstein",
    "Fisher": "fisher",
    "acceptance": "acceptance_rate",
    "R-hat": "chains_rhat",
    "ESS": "chains_ess",
    "seconds": "seconds",
}
COLUMNS = ["method", "setting", "equal", "seeds", *FIGURES, "evaluations"]


def table_rows(lines: Sequence[Line]) -> list[list[str]]:
    """Mean and standard deviation of every figure over its seeds, in the order of the lines."""
    rows = []
    for names, group in _groups(lines).items():
        figures = [line["figures"] for line in group]
        columns = [
            mean_and_std([each[name] for each in figures]) if _has(figures, name) else "-"
            for name in FIGURES.values()
        ]
        evaluations = round(sum(each["evaluations"] for each in figures) / len(figures))
        rows.append([*names, str(len(group)), *columns, f"{evaluations:,}".replace(",", " ")])
    return rows


def summary(title: str, lines: Sequence[Line]) -> str:
    """The table under its title, and below it all that one should know of its figures."""
    by_seed = {line["seed"]: line["figures"]["sliced_wasserstein_floor"] for line in lines}
    floor = mean_and_std(list(by_seed.values()))
    notes = [
        f"SW2 of two samples of the truth: {floor}; SW2 and Fisher in units of the data's "
        "standard deviations, KL in nats"
    ]
    stderrs = np.array([line["figures"]["weight_stderr"] for line in lines], float)
    stderrs = stderrs[stderrs > 0]
    if len(stderrs):
        notes.append(
            f"weights are judged to a standard error of {np.median(stderrs):.4f} (the median of "
            f"the runs; at most {stderrs.max():.4f})"
        )
    for names, group in _groups(lines).items():
        name = ", ".join(names)
        statuses = [line["figures"]["status"] for line in group]
        notes.extend(
            f"{name}: {statuses.count(status)} of {len(group)} seeds {status}"
            for status in ("doubtful", "failed", "broken")
            if status in statuses
        )
        stopped = [line for line in group if line["figures"]["stopped"]]
        if stopped:
            why = stopped[0]["figures"]["stopped"]
            notes.append(f"{name}: {len(stopped)} of {len(group)} trainings ran away, as: {why}")
        reused = sum(line["figures"].get("reused", False) for line in group)
        if reused:
            notes.append(
                f"{name}: {reused} of {len(group)} seeds from the run of equal evaluations"
            )
    return "\n".join([title, format_table(COLUMNS, table_rows(lines)), *notes])


def _has(figures: Sequence[Line], name: str) -> bool:
    """Whether the figure means something: a method without chains has none of theirs."""
    of_chains = name.startswith("chains_") or name == "acceptance_rate"
    return not of_chains or any(each[name] == each[name] for each in figures)


def _groups(lines: Sequence[Line]) -> dict[tuple[str, ...], list[Line]]:
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        names = tuple(line[name] for name in ("method", "setting", "budget"))
        groups.setdefault(names, []).append(line)
    return groups
