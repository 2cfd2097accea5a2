"""The HTML report of a fit: may it be believed, what was learned, how it got there, with what."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltflow.data.schema import to_rows
from tiltflow.evaluation.verdict import CRITERIA
from tiltflow.report.chain_figures import draw_chains
from tiltflow.report.charts import MOST_COLUMNS, pairs_chart, training_chart
from tiltflow.report.contours import all_pair_contours, robust_limits
from tiltflow.report.fit_evidence import FitEvidence
from tiltflow.report.fit_figures import draw_pairs, draw_training
from tiltflow.report.html import Chart, Section, write_report
from tiltflow.report.interval_figures import draw_intervals
from tiltflow.report.style import png_bytes
from tiltflow.versions import installed_versions

if TYPE_CHECKING:
    from tiltflow.estimator import BalancedEBM

FIGURES = {
    "rhat": "R-hat of the chains, worst coordinate",
    "ess_bulk": "effective draws of the chains, worst coordinate",
    "ess_tail": "effective draws of their tails, worst coordinate",
    "pareto_k": "Pareto k of the flow's importance weights",
    "importance_ess": "effective share of the flow's draws",
    "global_acceptance_rate": "acceptance of the flow's proposals",
    "local_acceptance_rate": "acceptance of local moves",
    "stuck_share": "share of chains that are stuck",
    "log_z_disagreement": "log Z, two ways, standard errors apart",
    "weight_disagreement": "shares of regions, chains against flow, standard errors apart",
    "start_disagreement": "shares of regions, by the chains' starts, standard errors apart",
    "log_z_stderr": "standard error of log Z, nats",
}
SHOWN_CHAIN_COLUMNS = 3
SHOWN_CELLS = 12
SHOWN_WEIGHTS = 20
STARTS = ("started at rows of the table", "started at draws of the flow")
STATUS = {
    "trusted": "Trusted: chains and flow agree on the figures below",
    "doubtful": "Doubtful, for what is listed below",
    "failed": "Failed, do not use the figures below",
}


def write_fit_report(path: Path, estimator: "BalancedEBM", evidence: FitEvidence) -> None:
    """Write the report of a fitted estimator, with what was gathered of it."""
    verdict = estimator.verdict_
    lead = (
        f"{STATUS[verdict.status]}; held-out log-likelihood "
        f"{_signed(estimator.held_out_log_likelihood_)} ± "
        f"{estimator.held_out_log_likelihood_stderr_:.4f} nats per row, in the units of the table."
    )
    columns = [str(name) for name in estimator.feature_names_in_]
    sections = [
        _weights(evidence, columns),
        _pairs(estimator, evidence, columns),
        _columns(estimator, evidence, columns),
        _training(estimator),
        _judged(estimator),
        _chains(evidence, columns),
        _log_z(evidence),
        _rows(estimator, evidence, columns),
        _configuration(estimator),
    ]
    title = "tiltflow: a fitted density"
    write_report(path, title, lead, [it for it in sections if it is not None], verdict.reasons)


def _weights(evidence: FitEvidence, columns: list[str]) -> Section:
    weights = evidence.weights
    heading = f"Weights of {evidence.weights_of}"
    if isinstance(weights, str):
        return Section(heading, text=weights)
    order = np.argsort(-weights.weights, kind="stable")[:SHOWN_WEIGHTS]
    by_label = weights.centers is None
    names = [str(weights.labels[k]) if by_label else f"mode {k + 1}" for k in order]
    told = columns[:SHOWN_CELLS] if weights.centers is not None else []
    population = weights.population_intervals
    rows = []
    for name, k in zip(names, order):
        center = [] if weights.centers is None else weights.centers[k][: len(told)]
        numbers = [weights.weights[k], *weights.intervals[k]]
        numbers += [] if population is None else [*population[k]]
        shares = (f"{value:.4f}" for value in numbers)
        rows.append([name, *shares, *(_digits(value) for value in center)])
    more = len(weights.weights) - len(order)
    text = (
        "The share of the density's mass with each label, with its 95 % interval, from and to."
        if by_label
        else "Modes are the basins of the learned log-density in its own coordinates, merged where "
        "less than one nat stands between them; the weight is the share of mass of the basin, with "
        "its 95 % interval, from and to, and the columns are the place of its top."
    )
    if population is not None:
        text += (
            " The population's interval, the thin line, is that of the share where the rows come "
            "from: it holds their error besides, if each was drawn without regard to the others."
        )
    text += " Weights are by chains and by weighed draws of the flow together."
    if more:
        text += f" {more} of smaller weight are left out."
    figure = draw_intervals(
        names,
        weights.weights[order],
        weights.intervals[order],
        "share of the mass",
        wider=None if population is None else population[order],
        from_zero=True,
    )
    ends = ["from", "to"] + ([] if population is None else ["population from", "population to"])
    return Section(
        heading,
        text=text,
        table=([evidence.weights_of[:-1], "weight", *ends, *told], rows),
        figure_png=png_bytes(figure),
        figure_alt=f"Weights of {evidence.weights_of} with their 95 % intervals; the figures are "
        "in the table above",
    )


def _pairs(estimator: "BalancedEBM", evidence: FitEvidence, columns: list[str]) -> Section:
    shown = min(len(columns), MOST_COLUMNS)
    rows, samples = evidence.rows[:, :shown], evidence.samples[:, :shown]
    draws = evidence.draws[:, :, :shown]
    limits = np.array([robust_limits(column) for column in rows.T])
    contours = all_pair_contours(draws, limits)
    count = draws.shape[0] * draws.shape[1]
    text = (
        "Below the diagonal rows of the table, above it draws of the fitted density, ends of "
        "Metropolis-corrected chains; on it both."
    )
    if shown > 1:
        text += (
            " Contours are those of the density's marginal on two columns, all others summed out: "
            f"a smoothed histogram of {count} draws of chains, with the smallest regions that hold "
            "50 % and 90 % of the mass."
        )
    for name, levels in estimator.levels_.items():
        numbered = ", ".join(f"{code} is {level}" for code, level in enumerate(levels))
        text += f" Levels of {name} are shown by their numbers: {numbered}."
    if shown < len(columns):
        text += f" Of {len(columns)} columns the first {shown} can be chosen."
    return Section(
        "Data and samples",
        text=text,
        figure_png=png_bytes(
            draw_pairs(evidence.rows, evidence.samples, columns, contours=contours)
        ),
        figure_alt="Pair plot of rows of the table and of samples of the fitted density, with "
        "contours of the density on each pair of columns",
        chart=Chart("pairs", pairs_chart(rows, samples, columns[:shown], limits, contours))
        if shown > 1
        else None,
    )


def _columns(estimator: "BalancedEBM", evidence: FitEvidence, columns: list[str]) -> Section:
    rows = [
        [
            name,
            _digits(data.mean()),
            _digits(drawn.mean()),
            _digits(data.std()),
            _digits(drawn.std()),
            f"{evidence.rhat[j]:.3f}",
            f"{evidence.ess_bulk[j]:.0f}",
            f"{evidence.ess_tail[j]:.0f}",
            f"{quantum:.3g}" if quantum > 0 else "—",
        ]
        for j, (name, data, drawn, quantum) in enumerate(
            zip(columns, evidence.rows.T, evidence.samples.T, estimator.quanta_)
        )
    ]
    heads = "mean, data|mean, samples|std, data|std, samples|R-hat|ESS, bulk|ESS, tail|grid"
    return Section(
        "Column by column",
        text="A column on a grid was spread by uniform noise of one grid step before the fit. "
        "R-hat and effective draws (ESS) are those of the chains in that column.",
        table=(["column", *heads.split("|")], rows),
    )


def _training(estimator: "BalancedEBM") -> Section | None:
    if not any(report.get("stage") == "energy" for report in estimator.metrics_):
        return None
    text = (
        "The energy starts at zero, which is the base density alone; the averaged energy with the "
        "best held-out log-likelihood is kept. Here the likelihood is in the model's units."
    )
    back = [report for report in estimator.metrics_ if report.get("event") == "rollback"]
    if back:
        often = "once" if len(back) == 1 else f"{len(back)} times"
        text += f" Training ran away and went back {often}: {back[-1].get('reason')}."
    return Section(
        "Training",
        text=text,
        figure_png=png_bytes(draw_training(estimator.metrics_)),
        figure_alt="Held-out log-likelihood, log Z, acceptance and effective sample size "
        "against training step",
        chart=Chart("lines", training_chart(estimator.metrics_), replaces=True),
    )


def _judged(estimator: "BalancedEBM") -> Section:
    figures = estimator.verdict_.figures
    limits = {each.figure: each for each in CRITERIA}
    rows = []
    for name, said in FIGURES.items():
        if name not in figures:
            continue
        limit = limits[name]
        side = "more than" if limit.above else "less than"
        rows.append([said, _short(figures[name]), f"{side} {limit.doubtful:g}"])
    return Section(
        "What the verdict rests on",
        text="Two witnesses: chains of the frozen density, and independent draws of its flow. "
        "A figure beyond its limit is a doubt.",
        table=(["figure", "value", "in doubt from"], rows),
    )


def _chains(evidence: FitEvidence, columns: list[str]) -> Section:
    worst = np.argsort(-np.nan_to_num(evidence.rhat, posinf=1e9), kind="stable")
    worst = sorted(worst[:SHOWN_CHAIN_COLUMNS].tolist())
    shown = np.concatenate([evidence.draw_log_prob[..., None], evidence.draws[..., worst]], axis=-1)
    names = ["log-density", *(columns[j] for j in worst)]
    sweeps, chains = evidence.draw_log_prob.shape
    left_out = len(columns) > len(worst)
    which = f", and the {len(worst)} columns with the largest R-hat" if left_out else ""
    return Section(
        "Chains",
        text=f"{chains} chains of {sweeps} recorded sweeps: the log-density of where they are"
        f"{which}. Left: some chains, the median of all and the range of nine tenths of them. "
        "Right: ranks among all draws, in the first and in the last half of the sweeps. Chains "
        "that have mixed have level ranks, whatever they started at; the band is two standard "
        "errors wide on either side.",
        figure_png=png_bytes(draw_chains(shown, names, STARTS)),
        figure_alt="Trace and rank plots of chains that started at rows of the table and of those "
        "that started at draws of the flow",
    )


def _log_z(evidence: FitEvidence) -> Section:
    estimates = evidence.log_z
    rows = [
        [each.name, _signed(each.value), f"{each.stderr:.4f}", each.remark] for each in estimates
    ]
    values = np.array([each.value for each in estimates])
    error = np.array([each.stderr for each in estimates])
    with np.errstate(invalid="ignore"):  # an estimate that is -inf has an infinite error
        intervals = np.stack([values - 1.96 * error, values + 1.96 * error], axis=1)
    axis = "log Z of the tilt relative to the base, nats, ± 1.96 standard errors"
    return Section(
        "log Z, by several ways",
        text="log Z of the tilt, relative to the base. Two ways that err differently and agree are "
        "the best evidence there is. The bounds, by annealed paths between flow and density, hold "
        "within about three standard errors; the upper one as far as chains are draws of the "
        "density.",
        table=(["way", "log Z, nats", "standard error", "what it is"], rows),
        figure_png=png_bytes(
            draw_intervals([each.name for each in estimates], values, intervals, axis)
        ),
        figure_alt="The estimates of log Z and its bounds with their errors; the figures are in "
        "the table above",
    )


def _rows(estimator: "BalancedEBM", evidence: FitEvidence, columns: list[str]) -> Section:
    shown = columns[:SHOWN_CELLS]
    extremes = evidence.extremes
    numbers = extremes.numbers
    found = to_rows(estimator.schema_, extremes.rows)[:, : len(shown)]
    rows = []
    for k, (score, cells) in enumerate(zip(extremes.log_prob, found)):
        said = "most likely" if 2 * k < len(found) else "least likely"
        number = [] if numbers is None else [str(numbers[k] + 1)]
        rows.append([said, *number, _signed(score), *(_digits(value, 9) for value in cells)])
    of_table = "table that are kept with the model" if numbers is None else "table"
    text = (
        f"Of {extremes.scored} different rows of the {of_table}, those of highest and of lowest "
        "log-density, nats, in the units of the table. Rows far down are the first to look at: "
        "mistakes in the table, or what the density does not know."
    )
    if numbers is not None:
        text += (
            " Rows are numbered from 1, a line of names not counted; of equal rows the first is "
            "shown."
        )
    if len(shown) < len(columns):
        text += f" The first {len(shown)} of {len(columns)} columns are shown."
    heads = ["which", *([] if numbers is None else ["row"]), "log-density", *shown]
    return Section("Most and least likely rows", text=text, table=(heads, rows))


def _configuration(estimator: "BalancedEBM") -> Section:
    now = installed_versions()
    then = estimator.versions_
    chosen = {
        "base of the model": estimator.base_,
        "preprocessing chosen": estimator.preprocessing_,
        "chains": estimator.chains_,
        "local steps": estimator.local_steps_,
        "hidden layers of the energy": f"{estimator.energy_depth_} of {estimator.energy_width_}",
        "training steps of the energy, at most": estimator.max_steps_ or "not known",
        "training steps of the energy kept": estimator.n_iter_,
        "training ran away": estimator.stopped_ or "no",
        "chains climb a ladder of earlier energies": "yes" if estimator._frozen.climbs else "no",
    }
    rows = [[name, str(value)] for name, value in chosen.items()]
    rows += [[f"argument {name}", str(value)] for name, value in estimator.get_params().items()]
    rows += [[f"{name}, fit", value] for name, value in then.items()]
    rows += [[f"{name}, report", value] for name, value in now.items() if value != then.get(name)]
    return Section("Configuration and versions", table=(["setting", "value"], rows))


def _short(value: float) -> str:
    """Four digits, without a power of ten where whole numbers do."""
    return f"{value:.0f}" if 1e3 <= value < 1e9 else f"{value:.4g}".replace("-", "−")


def _digits(value: float | str, most: int = 5) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{most}g}".replace("-", "−")


def _signed(value: Any) -> str:
    """Four decimals with a minus sign that is one."""
    value = float(value)
    return f"{value + 0.0:.4f}".replace("-", "−") if math.isfinite(value) else str(value)
