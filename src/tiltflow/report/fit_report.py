"""The HTML report of a fit: what was learned, how training went, data beside samples."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from tiltflow.report.fit_figures import draw_pairs, draw_training
from tiltflow.report.html import Section, write_report
from tiltflow.report.style import png_bytes

if TYPE_CHECKING:
    from tiltflow.estimator import BalancedEBM

SHOWN_FIGURES = (
    "rhat",
    "ess_bulk",
    "ess_tail",
    "pareto_k",
    "global_acceptance_rate",
    "local_acceptance_rate",
    "log_z_disagreement",
    "weight_disagreement",
)
VERDICTS = {
    "trusted": "Trusted: chains and flow agree on the figures below.",
    "doubtful": "Doubtful:",
    "failed": "Failed: do not use the figures below.",
}


def write_fit_report(
    path: Path,
    estimator: "BalancedEBM",
    rows: Float[np.ndarray, "n d"],
    samples: Float[np.ndarray, "m d"],
) -> None:
    """Write the report of `estimator` with `rows` of its data and `samples` of its density."""
    columns = [str(name) for name in estimator.feature_names_in_]
    verdict = estimator.verdict_
    sentences = " ".join([VERDICTS[verdict.status], *verdict.reasons])
    lead = (
        f"{sentences} Held-out log-likelihood {estimator.held_out_log_likelihood_:.4f} ± "
        f"{estimator.held_out_log_likelihood_stderr_:.4f} nats per row, in the units of the table."
    )
    figures = [
        ("verdict", verdict.status),
        *((name.replace("_", " "), _short(verdict.figures[name])) for name in SHOWN_FIGURES),
        ("base of the model", estimator.base_),
        ("preprocessing", estimator.preprocessing_),
        ("log Z of the tilt", f"{estimator.log_normalizer_:.4f}"),
        ("its standard error", f"{estimator.log_normalizer_stderr_:.4f}"),
        ("effective share of the proposal's draws", f"{estimator.importance_ess_:.3f}"),
        ("training steps of the energy kept", str(estimator.n_iter_)),
        ("training ran away", estimator.stopped_ or "no"),
    ]
    summary = [
        [
            name,
            f"{data.mean():.5g}",
            f"{drawn.mean():.5g}",
            f"{data.std():.5g}",
            f"{drawn.std():.5g}",
            "yes" if quantum > 0 else "no",
        ]
        for name, data, drawn, quantum in zip(columns, rows.T, samples.T, estimator.quanta_)
    ]
    sections = [
        Section("The fit", table=(["figure", "value"], [list(row) for row in figures])),
        Section(
            "Data and samples",
            text="Below the diagonal rows of the table, above it draws of the fitted density; on "
            "it both. Draws are ends of Metropolis-corrected chains.",
            figure_png=png_bytes(draw_pairs(rows, samples, columns)),
            figure_alt="Pair plot of rows of the table and of samples of the fitted density",
        ),
        Section(
            "Column by column",
            text="Columns on a grid were spread by uniform noise of one grid step before the fit.",
            table=(
                ["column", "mean, data", "mean, samples", "std, data", "std, samples", "on a grid"],
                summary,
            ),
        ),
    ]
    if any(report.get("stage") == "energy" for report in estimator.metrics_):
        sections.append(
            Section(
                "Training",
                text="The energy starts at zero, which is the base density alone; the averaged "
                "energy with the best held-out log-likelihood is kept.",
                figure_png=png_bytes(draw_training(estimator.metrics_)),
                figure_alt="Held-out log-likelihood, log Z, acceptance and effective sample size "
                "against training step",
            )
        )
    write_report(path, "tiltflow: a fitted density", lead, sections)


def _short(value: float) -> str:
    """Four digits, without a power of ten where whole numbers do."""
    return f"{value:.0f}" if 1e3 <= value < 1e9 else f"{value:.4g}"
