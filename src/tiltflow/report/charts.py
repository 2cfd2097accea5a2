"""What the charts of a page are drawn from: plain dictionaries that become JSON.

A chart is drawn by `charts.js` in the reader's browser. Numbers are cut to the digits that a
reader may ask for, and what is not finite becomes null, which JSON has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from tiltflow.report.contours import MARGIN, PairContours
from tiltflow.report.style import thin

MOST_COLUMNS = 16
MOST_POINTS = 1000


def training_chart(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Held-out log-likelihood, log Z, acceptance and effective share against training step.

    `metrics` are rows of `metrics.jsonl`; those of stage "energy" that have a step are shown.
    """
    rows = [row for row in metrics if row.get("stage") == "energy" and row.get("event") is None]
    rows = [row for row in rows if number(row.get("step")) is not None]

    def series(name: str, colour: str, key: str) -> dict[str, Any]:
        return {"name": name, "colour": colour, "y": [number(row.get(key)) for row in rows]}

    def panel(title: str, *lines: dict[str, Any], **rest: Any) -> dict[str, Any]:
        return {"title": title, "series": lines, "fixed": None, "robust": [0, 1], **rest}

    kept = [row for row in rows if (number(row.get("gain")) or 0) > 0]
    mark = None
    if kept:
        step, value = kept[-1]["step"], number(kept[-1].get("held_out_log_likelihood"))
        mark = {"x": step, "y": value, "text": f"last gain at step {step}"}
    return {
        "label": "Training: held-out log-likelihood, log Z, acceptance rates and effective sample "
        "size against training step",
        "x": [row["step"] for row in rows],
        "x_name": "training step",
        "panels": [
            panel(
                "Held-out log-likelihood, nats",
                series("held out", "model", "held_out_log_likelihood"),
                robust=[0.1, 1],
                mark=mark,
            ),
            panel("log Z, nats", series("log Z", "model", "log_z"), robust=[0.05, 0.95]),
            panel(
                "Acceptance rate",
                series("local", "data", "local_acceptance_rate"),
                series("global", "chains", "global_acceptance_rate"),
                fixed=[0, 1],
            ),
            panel(
                "ESS of the importance weights, share",
                series("share", "chains", "importance_ess"),
                fixed=[0, 1],
            ),
        ],
    }


def pairs_chart(
    rows: Float[np.ndarray, "n d"],
    samples: Float[np.ndarray, "m d"],
    columns: Sequence[str],
    limits: Float[np.ndarray, "d 2"],
    contours: Mapping[tuple[int, int], PairContours],
) -> dict[str, Any]:
    """Data, samples and contours of any two of the columns, `MOST_POINTS` of each at most.

    A contour is a flat list of coordinates in thousandths of its grid, across before up.
    """
    rows, samples = thin(rows, MOST_POINTS), thin(samples, MOST_POINTS)
    shares = max((each.shares for each in contours.values()), key=len, default=())
    held = " and ".join(f"{share:.0%}".replace("%", " %") for share in shares)
    return {
        "label": "Rows of the table, samples of the density and its contours on two columns",
        "contours_name": f"contours that hold {held} of the mass" if held else "contours",
        "grid": [-MARGIN, 1 + MARGIN],
        "columns": [
            {
                "name": str(name),
                "low": float(low),
                "high": float(high),
                "data": _cut(of_data, high - low),
                "samples": _cut(of_samples, high - low),
            }
            for name, (low, high), of_data, of_samples in zip(columns, limits, rows.T, samples.T)
        ],
        "contours": {
            f"{i},{j}": [
                [_thousandths(line, limits[[i, j]]) for line in lines] for lines in each.lines
            ]
            for (i, j), each in contours.items()
        },
    }


def number(value: Any) -> float | int | None:
    """The number to seven digits; None where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return None
    try:
        value = float(value)
    except OverflowError:  # whole numbers of JSON have no end
        return None
    if not np.isfinite(value):
        return None
    short = float(f"{value:.7g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def _cut(values: Float[np.ndarray, " n"], extent: float) -> list[float | None]:
    """To a hundred-thousandth of the extent: a large mean must not cost the digits that differ."""
    decimals = 5 - int(np.floor(np.log10(extent)))
    return [round(float(it), decimals) if np.isfinite(it) else None for it in values]


def _thousandths(line: Float[np.ndarray, "k 2"], limits: Float[np.ndarray, "2 2"]) -> list[int]:
    extent = limits[:, 1] - limits[:, 0]
    share = ((line - limits[:, 0]) / extent + MARGIN) / (1 + 2 * MARGIN)
    return np.round(1000 * share).astype(int).ravel().tolist()
