"""The report of a fit has its parts in order, whatever the fit has come to."""

import re
from types import SimpleNamespace

import numpy as np

from tiltflow.data.schema import Schema
from tiltflow.evaluation.verdict import judge
from tiltflow.report.fit_report import write_fit_report

PARTS = (
    "Weights of modes",
    "Data and samples",
    "Column by column",
    "Training",
    "What the verdict rests on",
    "Chains",
    "log Z, by several ways",
    "Most and least likely rows",
    "Configuration and versions",
)


def _report(path, estimator, evidence, **changes):
    estimator = SimpleNamespace(**{**vars(estimator), **changes})
    write_fit_report(path, estimator, evidence)
    return path.read_text(encoding="utf-8")


def test_the_report_is_small_and_holds_every_part(report):
    text = report.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert "<img src=https" not in text and "</script><img" not in text
    places = [text.index(f"<h2>{part}</h2>") for part in PARTS]
    assert places == sorted(places)
    assert text.index("Doubtful, for what is listed below; held-out") < places[0]
    assert text.index("R-hat 1.300") < places[0]
    assert text.count("data:image/png") == 5
    assert "http://" not in text


def test_the_likeliest_rows_come_first_and_the_least_likely_last(made_up_fit, report):
    text = report.read_text(encoding="utf-8")
    table = text[text.index("<td>most likely</td>") :]
    scores = made_up_fit[1].extremes.log_prob
    shown = [f"{score:.4f}".replace("-", "−") for score in scores[[0, 1, -1]]]
    first, second, last = (table.index(f">{score}<") for score in shown)
    assert first < second < table.index("least likely") < table.rindex("least likely") < last
    assert table.count("<td>most likely</td>") == table.count("<td>least likely</td>") == 5
    assert re.findall(r"likely</td><td[^>]*>(\d+)<", table) == [str(n) for n in range(91, 101)]
    assert "<td>python, fit</td><td>3.11.0</td>" in text and "<td>python, report</td>" in text


def test_rows_of_a_model_without_their_numbers_are_shown_too(made_up_fit, tmp_path):
    estimator, evidence = made_up_fit
    untold = evidence._replace(extremes=evidence.extremes._replace(numbers=None))
    text = _report(tmp_path / "r.html", estimator, untold)
    assert "Of 200 different rows of the table that are kept with the model" in text
    assert "numbered from 1" not in text and "<td>least likely</td>" in text


def test_levels_are_named(report):
    """As words in the rows, and with their numbers under the pictures; escaped in both."""
    text = report.read_text(encoding="utf-8")
    assert "Levels of d are shown by their numbers: 0 is &lt;low&gt;, 1 is high." in text
    assert "<td>&lt;low&gt;</td>" in text and "<low>" not in text


def test_weights_tell_the_density_from_the_population(report, made_up_fit, tmp_path):
    text = report.read_text(encoding="utf-8")
    assert ">population from</th>" in text and re.search(r"<td[^>]*>0\.5500</td>", text)
    estimator, evidence = made_up_fit
    untold = evidence._replace(weights=evidence.weights._replace(population_intervals=None))
    text = _report(tmp_path / "r.html", estimator, untold)
    assert "population" not in text and re.search(r"<td[^>]*>0\.6000</td>", text)


def test_a_fit_that_failed_is_reported_too(made_up_fit, tmp_path):
    """No modes, no training, draws that are nothing."""
    estimator, evidence = made_up_fit
    broken = evidence._replace(
        weights="No modes were found: X.",
        draws=evidence.draws * float("nan"),
        draw_log_prob=evidence.draw_log_prob * float("nan"),
        extremes=evidence.extremes._replace(log_prob=np.full(10, np.nan)),
        rhat=evidence.rhat * float("inf"),
        log_z=(evidence.log_z[0]._replace(value=float("-inf"), stderr=float("inf")),),
    )
    verdict = judge({"rhat": float("inf"), "ess_bulk": 0.0})
    text = _report(tmp_path / "r.html", estimator, broken, verdict_=verdict, metrics_=[])
    assert "Failed, do not use the figures below; held-out" in text
    assert "No modes were found: X." in text
    assert "<h2>Training</h2>" not in text


def test_one_column_labels_and_rollbacks(made_up_fit, tmp_path):
    estimator, evidence = made_up_fit
    weights = evidence.weights._replace(labels=np.array(["b", "<a>"]), centers=None)
    one = evidence._replace(
        rows=evidence.rows[:, :1],
        extremes=evidence.extremes._replace(rows=evidence.extremes.rows[:, :1]),
        samples=evidence.samples[:, :1],
        draws=evidence.draws[:, :, :1],
        rhat=evidence.rhat[:1],
        ess_bulk=evidence.ess_bulk[:1],
        ess_tail=evidence.ess_tail[:1],
        weights=weights,
        weights_of="labels",
    )
    back = {"stage": "energy", "event": "rollback", "step": 20, "reason": "energy gap 1e9"}
    schema = Schema(("a",), {}, estimator.quanta_[:1], np.zeros(1))
    changes = {"feature_names_in_": ["a"], "quanta_": schema.quanta, "levels_": {}}
    changes["schema_"] = schema
    changes["metrics_"] = [*estimator.metrics_, back]
    text = _report(tmp_path / "r.html", estimator, one, **changes)
    assert 'data-kind="pairs"' not in text and 'data-kind="lines"' in text
    assert "<h2>Weights of labels</h2>" in text and "<td>&lt;a&gt;</td>" in text
    assert "went back once: energy gap 1e9." in text
