"""The command line as its user meets it: exit codes, messages, files; the estimator is a fake."""

import errno
import json
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tiltflow.experiments
from tiltflow.cli import main
from tiltflow.data.errors import InputError
from tiltflow.data.schema import Schema
from tiltflow.data.table_writing import write_table
from tiltflow.data.tables import read_table
from tiltflow.evaluation.mode_weights import ModeWeights
from tiltflow.evaluation.verdict import Verdict

COMMANDS = ["demo", "fit", "sample", "score", "weights", "report", "watch", "reproduce", "bench"]


class FakeEstimator:
    """A density that takes what the real one takes, and writes what it was given."""

    base_, preprocessing_ = "gaussian", "whiten"
    n_iter_, max_steps_ = 350, 400
    energy_depth_, energy_width_, chains_, local_steps_ = 3, 64, 256, 10
    held_out_log_likelihood_ = -1.25
    held_out_log_likelihood_stderr_ = 0.5
    log_normalizer_ = 0.75
    log_normalizer_stderr_ = 0.0625
    verdict_ = Verdict("doubtful", ("The chains disagree (R-hat 1.300).",), {"rhat": 1.3})

    def __init__(self, **parameters):
        self.parameters = parameters

    def fit(self, X, on_report=None, checkpoints=None):
        if self.parameters["base"] == "nonsense":
            raise InputError("base: 'nonsense' is not known; use auto")
        self.feature_names_in_ = np.array(X.columns)
        self.n_features_in_ = X.width
        if on_report is not None:
            on_report({"stage": "base", "step": 1, "total_steps": 2})
            on_report({"stage": "energy", "step": 1, "total_steps": 4, "log_z": float("nan")})
            on_report({"stage": "energy", "step": 4, "held_out_log_likelihood": -1.25})
        if self.parameters["base"] == "runaway":
            raise RuntimeError("training ran away:\nenergy gap 1e9")
        if self.parameters["base"] == "faulty":
            raise KeyError("levels")
        if self.parameters["base"] == "blown up":
            self.verdict_ = Verdict("failed", ("Only 0.1% count.",), {"importance_ess": 0.001})
        if self.parameters["base"] == "tied":
            warnings.warn("X: column 'a': 76% of the rows\nrepeat a value", stacklevel=2)
        if self.parameters["base"] == "interrupted":
            raise KeyboardInterrupt
        if self.parameters["base"] == "disk full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/metrics.jsonl")
        return self

    def score_samples(self, X):
        X = X.to_numpy()
        return -0.5 * (X**2).sum(axis=1) + X[:, 0]

    def set_output(self, *, transform):
        assert transform == "polars"
        return self

    def sample(self, n, key=None):
        draws = np.random.default_rng(key).normal(size=(n, self.n_features_in_))
        return pl.DataFrame(draws, schema=list(self.feature_names_in_))

    def mode_weights(self):
        centers = np.array([[1.0, -2.0], [0.5, 3.25]])
        intervals = np.array([[0.65, 0.75], [0.25, 0.35]])
        population = intervals + np.array([[-0.0625, 0.125], [-0.125, 0.0625]])
        return ModeWeights(np.array([0, 1]), centers, np.array([0.7, 0.3]), intervals, population)

    def save(self, path):
        config = {"names": list(self.feature_names_in_), "parameters": self.parameters}
        (path / "config.json").write_text(json.dumps(config))

    def report(self, path):
        path.write_text("<html>")


def fake_load(path):
    config = path / "config.json"
    if not config.exists():
        raise InputError(f"{path}: holds no model; name a folder that fit wrote")
    estimator = FakeEstimator()
    estimator.feature_names_in_ = np.array(json.loads(config.read_text())["names"])
    estimator.n_features_in_ = len(estimator.feature_names_in_)
    zeros = np.zeros(estimator.n_features_in_)
    estimator.schema_ = Schema(tuple(estimator.feature_names_in_), {}, zeros, zeros)
    return estimator


@pytest.fixture(autouse=True)
def _fake_estimator(monkeypatch):
    module = types.ModuleType("tiltflow.estimator")
    module.__dict__.update(BalancedEBM=FakeEstimator, load=fake_load)
    monkeypatch.setitem(sys.modules, "tiltflow.estimator", module)


@pytest.fixture
def table(tmp_path):
    """A table of 40 rows with columns a and b, and labels."""
    path = tmp_path / "table.csv"
    values = np.random.default_rng(0).normal(size=(40, 2)).round(3)
    lines = [f"{a},{b},{'pq'[i % 2]}" for i, (a, b) in enumerate(values)]
    path.write_text("a,b,kind\n" + "\n".join(lines))
    return path


@pytest.fixture
def run_folder(tmp_path, table, capsys):
    """A run of the fake on columns a and b."""
    out = tmp_path / "run"
    assert main(["fit", str(table), "--out", str(out), "--label-column", "kind", "--quiet"]) == 0
    capsys.readouterr()
    return out


def check_refusal(capsys, arguments, *parts, code=2):
    """The command ends with `code`, one line on stderr that holds all parts, none on stdout."""
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("tiltflow: ")
    for part in parts:
        assert part in lines[0]


def save_text(text):
    return lambda path: path.write_text(text)


def save_truncated_parquet(path):
    pl.DataFrame({"a": np.arange(500.0), "b": np.arange(500.0) ** 2}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])


def save_pickled(path):
    np.save(path, np.array([[1, "a"], [2, "b"]], dtype=object), allow_pickle=True)


ROWS = "".join(f"{i},{i * i}\n" for i in range(20))


@pytest.mark.parametrize(
    ("name", "save", "parts"),
    [
        ("nan.csv", save_text(f"a,b\n{ROWS}1,NaN\n"), ["row 21", "'b'", "nan"]),
        ("empty-cell.csv", save_text(f"a,b\n{ROWS},3\n"), ["row 21", "'a'", "nan"]),
        ("infinite.csv", save_text(f"a,b\n{ROWS}-inf,3\n"), ["row 21", "'a'", "inf"]),
        ("text.csv", save_text(f"a,b\n{ROWS}1,red\n"), ["row 21", "'b'", "red", "not a number"]),
        ("no-rows.csv", save_text("a,b\n"), ["no rows"]),
        ("nothing.csv", save_text(""), ["empty"]),
        ("one-row.csv", save_text("a,b\n1,2\n"), ["one row"]),
        ("wide.csv", save_text("a,b,c,d\n1,2,3,4\n5,6,8,7\n9,8,7,7\n"), ["(3)", "(4)"]),
        ("constant.csv", save_text("a,b\n1,7\n2,7\n3,7\n"), ["'b'", "constant"]),
        ("twice.csv", save_text("a,b,a\n1,2,3\n4,5,6\n"), ["'a'", "twice"]),
        ("ragged.csv", save_text(f"a,b\n{ROWS}1\n"), ["row 21"]),
        ("truncated.parquet", save_truncated_parquet, ["Parquet"]),
        ("pickled.npy", save_pickled, ["pickled"]),
        ("missing.csv", lambda path: None, ["no such file"]),
        ("folder.csv", Path.mkdir, ["is a folder"]),
        ("table.xlsx", save_text("x"), [".parquet"]),
    ],
)
def test_bad_tables_are_refused_before_anything_is_made(tmp_path, capsys, name, save, parts):
    path, out = tmp_path / name, tmp_path / "run"
    save(path)
    check_refusal(capsys, ["fit", path, "--out", out], str(path), *parts)
    assert not out.exists()


def test_fit_refuses_bad_arguments(tmp_path, capsys, table):
    out = tmp_path / "run"
    fit = ["fit", table, "--label-column", "kind", "--out"]
    check_refusal(capsys, ["fit", table, "--out", out, "--label-column", "x"], "'x'", "a, b, kind")
    check_refusal(capsys, [*fit, out, "--base", "nonsense"], "nonsense")
    for seed in ("-1", "5000000000"):
        check_refusal(capsys, [*fit, out, "--seed", seed], "--seed", seed, "0 to 4294967295")
    check_refusal(capsys, [*fit, table], str(table), "is a file")
    check_refusal(capsys, [*fit, table / "run"], "choose another place")
    assert list(tmp_path.iterdir()) == [table]
    out.mkdir()
    (out / "notes.txt").touch()
    check_refusal(capsys, [*fit, out], str(out), "not empty")
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_fit_writes_the_run_and_a_summary(tmp_path, capsys, table):
    out = tmp_path / "runs" / "first"
    options = ["--label-column", "kind", "--max-steps", "7", "--base", "flow", "--seed", "3"]
    assert main(["fit", str(table), "--out", str(out), *options]) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "metrics.jsonl", "report.html"}
    config = json.loads((out / "config.json").read_text())
    assert config["names"] == ["a", "b"]
    given = config["parameters"]
    assert (given["max_steps"], given["base"], given["random_state"]) == (7, "flow", 3)
    assert (given["chains"], given["learning_rate"]) == (None, None)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics[:-1]] == [1, 1, 4]
    assert metrics[-1] == {"stage": "report"}
    assert metrics[1]["log_z"] is None
    captured = capsys.readouterr()
    for part in (
        "whiten",
        "step 350 kept, of at most 400",
        "3 layers of 64, 256 chains, 10 local steps",
        "40",
        "2: a, b",
        "gaussian",
        "-1.2500 ± 0.5000",
        "0.7500 ± 0.0625",
        "report.html",
    ):
        assert part in captured.out
    assert "held-out=-1.250" in captured.err


def test_quiet_shows_no_progress(tmp_path, capsys, table):
    arguments = ["--out", str(tmp_path / "run"), "--label-column", "kind", "--quiet"]
    assert main(["fit", str(table), *arguments]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_also_where_it_is_quiet(tmp_path, capsys, table):
    arguments = ["--out", str(tmp_path / "run"), "--label-column", "kind", "--quiet"]
    assert main(["fit", str(table), *arguments, "--base", "tied"]) == 0
    assert capsys.readouterr().err == "tiltflow: X: column 'a': 76% of the rows repeat a value\n"


def test_failed_and_interrupted_work_has_its_exit_code(tmp_path, capsys, table):
    fit = ["fit", table, "--label-column", "kind", "--quiet"]
    out = tmp_path / "failed"
    message = "training ran away: energy gap 1e9"
    check_refusal(capsys, [*fit, "--out", out, "--base", "runaway"], message, code=1)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert json.loads(lines[-1]) == {"stage": "failed", "reason": message}
    arguments = [*fit, "--out", tmp_path / "stopped", "--base", "interrupted"]
    check_refusal(capsys, arguments, "interrupted", code=130)


def test_what_nothing_foresaw_is_told_with_its_place(tmp_path, capsys, table):
    arguments = ["fit", table, "--label-column", "kind", "--quiet", "--base", "faulty", "--out"]
    parts = ("KeyError in cli_fit.py, line ", "'levels'", "report it", "developers")
    check_refusal(capsys, [*arguments, tmp_path / "run"], *parts, code=70)


def test_fit_says_what_it_finds_in_the_folder(tmp_path, capsys, table, run_folder):
    fit = ["fit", table, "--label-column", "kind", "--quiet", "--out"]
    new, foreign, begun = (tmp_path / name for name in ("new", "foreign", "begun"))
    check_refusal(capsys, [*fit, new, "--checkpoint-seconds", "-1"], "--checkpoint-seconds", "-1")
    (begun / "checkpoints").mkdir(parents=True)
    check_refusal(capsys, [*fit, begun], "unfinished fit", "--resume")
    foreign.mkdir()
    (foreign / "notes.txt").touch()
    check_refusal(capsys, [*fit, foreign, "--resume"], "no fit to go on with")
    (run_folder / "model.safetensors").touch()
    before = (run_folder / "config.json").read_bytes()
    for arguments in ([*fit, new, "--resume"], [*fit, run_folder, "--resume"]):
        assert main([str(argument) for argument in arguments]) == 0
    assert "this fit is finished" in capsys.readouterr().out
    assert (run_folder / "config.json").read_bytes() == before
    check_refusal(capsys, [*fit, run_folder], "not empty")


def test_a_full_disk_is_one_line_that_says_how_to_go_on(tmp_path, capsys, table):
    arguments = ["fit", table, "--label-column", "kind", "--quiet", "--base", "disk full", "--out"]
    parts = ("No space left on device", "metrics.jsonl", "--resume")
    check_refusal(capsys, [*arguments, tmp_path / "run"], *parts, code=1)


def test_sample_writes_named_columns_and_follows_the_seed(tmp_path, capsys, run_folder):
    def sample(name, *options):
        out = tmp_path / name
        arguments = ["sample", str(run_folder), "--num-samples", "5", "--out", str(out), *options]
        assert main(arguments) == 0
        return read_table(out)

    first = sample("1.csv")
    assert first.columns == ["a", "b"]
    assert first.values.shape == (5, 2)
    np.testing.assert_array_equal(first.values, sample("2.parquet", "--seed", "0").values)
    assert not np.array_equal(first.values, sample("3.npy", "--seed", "1").values)


def test_sample_refuses_bad_arguments(tmp_path, capsys, run_folder):
    sample = ["sample", run_folder, "--num-samples"]
    check_refusal(capsys, [*sample, 0, "--out", tmp_path / "o.csv"], "--num-samples", "0")
    check_refusal(capsys, [*sample, 5, "--out", tmp_path / "o.txt"], "o.txt", ".parquet")
    check_refusal(capsys, [*sample, 5, "--out", tmp_path / "none" / "o.csv"], "no folder")
    sample = ["sample", tmp_path / "nowhere", "--num-samples", 5]
    check_refusal(capsys, [*sample, "--out", tmp_path / "o.csv"], "nowhere")
    assert not list(tmp_path.glob("o.*"))


def test_sample_refuses_text_in_a_file_of_numbers_before_it_draws(
    tmp_path, capsys, run_folder, monkeypatch
):
    def load(path):
        estimator = fake_load(path)
        levels = {"b": ("red", "blue")}
        estimator.schema_ = estimator.schema_._replace(levels=levels)
        monkeypatch.delattr(FakeEstimator, "sample")
        return estimator

    monkeypatch.setattr(sys.modules["tiltflow.estimator"], "load", load)
    out = tmp_path / "draws.npy"
    arguments = ["sample", run_folder, "--num-samples", 5, "--out", out]
    check_refusal(capsys, arguments, "draws.npy", "'b' is text", ".parquet")


@pytest.mark.parametrize("command", [["sample", "--num-samples", "5"], ["score", "new.csv"]])
def test_a_file_that_is_there_is_not_overwritten(
    tmp_path, capsys, run_folder, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    Path("new.csv").write_text("a,b\n1,2\n")
    Path("mine.csv").write_text("a\n1\n")
    name, *others = command
    arguments = [name, run_folder, *others, "--out", "mine.csv"]
    check_refusal(capsys, arguments, "mine.csv: is there already", "elsewhere")
    assert Path("mine.csv").read_text() == "a\n1\n"


def score(tmp_path, run_folder, capsys, text, *options):
    """Scores of a CSV file, and what was said on stdout and stderr."""
    (tmp_path / "new.csv").write_text(text)
    out = tmp_path / f"scores{len(options)}.npz"
    arguments = ["score", str(run_folder), str(tmp_path / "new.csv"), "--out", str(out)]
    assert main([*arguments, *options]) == 0
    written = read_table(out)
    assert written.columns == ["log_prob"]
    return written.values[:, 0], capsys.readouterr()


def test_score_matches_columns_by_name(tmp_path, capsys, run_folder):
    text = "when,b,a\nmonday,0,1\ntuesday,2,0\n"
    log_prob, said = score(tmp_path, run_folder, capsys, text)
    np.testing.assert_array_equal(log_prob, [0.5, -2.0])
    assert "when" in said.err
    assert len(said.err.splitlines()) == 1
    assert "-0.7500 ± 1.2500" in said.out
    assert score(tmp_path, run_folder, capsys, text, "--quiet")[1].err == ""


def test_score_takes_a_table_without_names_by_place(tmp_path, capsys, run_folder):
    log_prob, said = score(tmp_path, run_folder, capsys, "1,0\n")
    np.testing.assert_array_equal(log_prob, [0.5])
    assert "x0, x1 taken in that order for a, b" in said.err


def test_a_mean_that_is_infinite_has_no_error(tmp_path, capsys, run_folder, monkeypatch):
    scores = np.array([-np.inf, -1.0])
    monkeypatch.setattr(FakeEstimator, "score_samples", lambda self, X: scores)
    log_prob, said = score(tmp_path, run_folder, capsys, "a,b\n1,0\n0,0\n")
    np.testing.assert_array_equal(log_prob, scores)
    assert "mean log_prob -inf nats over 2 rows" in said.out


def test_score_refuses_bad_input(tmp_path, capsys, run_folder):
    new, out = tmp_path / "new.csv", tmp_path / "scores.csv"
    arguments = ["score", run_folder, new, "--out", out]
    check_refusal(capsys, arguments, str(new), "no such file")
    new.write_text("a,c\n1,2\n")
    check_refusal(capsys, arguments, str(new), "'b' is missing", "a, b")
    new.write_text("1,2,3\n4,5,6\n")
    check_refusal(capsys, arguments, str(new), "3 columns", "fitted on 2 (a, b)")
    new.write_text("a,b\n1,2\n3,\n")
    check_refusal(capsys, arguments, str(new), "row 2", "'b'")
    new.write_text("a,b\n1,red\n")
    check_refusal(capsys, arguments, str(new), "'b'", "red")
    new.write_text("a,b\n1,2\n")
    check_refusal(capsys, [*arguments[:-1], new], str(new), "elsewhere")
    check_refusal(capsys, [*arguments[:-1], "scores.doc"], "scores.doc", ".csv")
    assert new.read_text() == "a,b\n1,2\n"
    assert not out.exists()


def test_text_of_few_levels_is_told_and_fitted(tmp_path, capsys, table):
    out = tmp_path / "run"
    assert main(["fit", str(table), "--out", str(out)]) == 0
    assert f"{table}: column 'kind' is categorical: p, q" in capsys.readouterr().err
    assert json.loads((out / "config.json").read_text())["names"] == ["a", "b", "kind"]
    arguments = ["fit", table, "--out", tmp_path / "other", "--categorical-features", "c"]
    check_refusal(capsys, arguments, "no column 'c'", "a, b, kind")
    assert not (tmp_path / "other").exists()


def test_a_fit_that_failed_is_written_and_exits_with_1(tmp_path, capsys, table):
    out = tmp_path / "run"
    arguments = ["fit", table, "--out", out, "--label-column", "kind", "--quiet"]
    assert main([str(argument) for argument in [*arguments, "--base", "blown up"]]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Only 0.1% count." in captured.err
    assert "failed" in captured.out and (out / "report.html").exists()


def test_weights_are_printed_with_their_intervals_and_the_verdict(capsys, run_folder):
    assert main(["weights", str(run_folder)]) == 0
    text = capsys.readouterr().out
    for part in ("0.7000", "0.6500", "0.7500", "0.5875", "3.25", "doubtful", "R-hat 1.300"):
        assert part in text
    assert main(["weights", str(run_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["columns"] == ["a", "b"] and found["verdict"] == "doubtful"
    assert found["modes"][1] == {
        "weight": 0.3,
        "interval": [0.25, 0.35],
        "population_interval": [0.125, 0.4125],
        "center": [0.5, 3.25],
    }


def test_weights_of_a_model_that_tells_no_rows_have_no_interval_of_a_population(
    capsys, monkeypatch, run_folder
):
    def untold(self):
        return known(self)._replace(population_intervals=None)

    known = FakeEstimator.mode_weights
    monkeypatch.setattr(FakeEstimator, "mode_weights", untold)
    assert main(["weights", str(run_folder)]) == 0
    assert "population" not in capsys.readouterr().out
    assert main(["weights", str(run_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modes"][0]["population_interval"] is None


def test_report_is_written_again(capsys, run_folder):
    (run_folder / "report.html").unlink()
    assert main(["report", str(run_folder)]) == 0
    assert (run_folder / "report.html").exists()
    assert "report.html" in capsys.readouterr().out


def test_watch_gets_its_folder_and_its_port(monkeypatch, capsys, tmp_path):
    import tiltflow.report.watch

    calls = []
    monkeypatch.setattr(tiltflow.report.watch, "watch", lambda run, port: calls.append((run, port)))
    assert main(["watch", str(tmp_path / "later")]) == 0
    assert main(["watch", "run", "--port", "8321", "--quiet"]) == 0
    assert calls == [(tmp_path / "later", 0), (Path("run"), 8321)]
    monkeypatch.undo()
    (tmp_path / "file").touch()
    check_refusal(capsys, ["watch", tmp_path / "file"], "file", "is a file")
    check_refusal(capsys, ["watch", tmp_path, "--port", "70000"], "--port", "70000")


def test_fit_without_tensorboardx_names_the_extra_and_makes_nothing(
    monkeypatch, capsys, tmp_path, table
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    out = tmp_path / "run"
    fit = ["fit", table, "--label-column", "kind", "--out", out, "--tensorboard"]
    check_refusal(capsys, fit, "tiltflow[tensorboard]")
    assert not out.exists()


def test_experiments_get_their_options(monkeypatch, capsys, tmp_path):
    calls = []

    def reproduce(name, seeds, seed, quiet, out, methods, quick):
        calls.append((name, seeds, seed, quiet, out, methods, quick))

    def bench(name, seed, quiet, rows):
        if name == "unknown":
            raise InputError("bench: 'unknown' is not known; use one of step, flow")
        calls.append((name, seed, quiet, rows))

    def run_demo(out, seed, quiet, quick):
        calls.append((out, seed, quiet, quick))

    two_modes = types.ModuleType("tiltflow.experiments.two_modes")
    two_modes.__dict__["run_demo"] = run_demo
    monkeypatch.setitem(sys.modules, "tiltflow.experiments.two_modes", two_modes)
    monkeypatch.setattr(tiltflow.experiments, "reproduce", reproduce, raising=False)
    monkeypatch.setattr(tiltflow.experiments, "bench", bench, raising=False)
    assert main(["demo", "--quick", "--seed", "2"]) == 0
    assert main(["reproduce", "rings", "--seeds", "3", "--quiet"]) == 0
    assert main(["reproduce", "rings", "--methods", "pcd, flow", "--quick"]) == 0
    assert main(["bench"]) == 0
    assert main(["bench", "stream", "--rows", "5000"]) == 0
    assert calls == [
        (Path("demo"), 2, False, True),
        ("rings", 3, 0, True, Path("reproduce/rings"), None, False),
        ("rings", 1, 0, False, Path("reproduce/rings"), ("pcd", "flow"), True),
        (None, 0, False, None),
        ("stream", 0, False, 5000),
    ]
    check_refusal(capsys, ["bench", "unknown"], "step, flow")
    check_refusal(capsys, ["reproduce", "rings", "--seeds", "0"], "--seeds")
    check_refusal(capsys, ["reproduce", "rings", "--methods", ","], "--methods")


def test_experiments_refuse_options_that_they_have_not(capsys, tmp_path):
    out = tmp_path / "out"
    command = ["reproduce", "coverage", "--out", out]
    check_refusal(capsys, [*command, "--methods", "pcd"], "--methods", "coverage")
    check_refusal(capsys, [*command, "--quick"], "--quick", "coverage")
    rings = ["reproduce", "rings", "--out", out, "--methods", "pcd,flying"]
    check_refusal(capsys, rings, "'flying'", "balanced, cd, pcd")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_quiet_and_seed(capsys, command):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--quiet" in text
    assert "--seed" in text


@pytest.mark.parametrize("arguments", [[], ["fly"], ["fit"], ["fit", "a.csv", "--outt", "b"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err != ""


def test_help_imports_nothing_heavy():
    code = (
        "import sys, tiltflow.cli as cli\n"
        "assert cli.main(['--help']) == 0\n"
        "heavy = {'jax', 'numpy', 'polars', 'matplotlib', 'h5py', 'tqdm', 'sklearn'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert command in done.stdout


def test_the_installed_command_refuses_in_one_line(tmp_path):
    write_table(tmp_path / "t.csv", {"a": np.array([1.0, np.nan]), "b": np.array([1.0, 2.0])})
    program = Path(sys.executable).with_name("tiltflow")
    arguments = [program, "fit", "t.csv", "--out", "run"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("tiltflow: t.csv: row 2, column 'a' is nan")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_package_names_what_it_exposes():
    assert tiltflow.load is fake_load
    assert tiltflow.BalancedEBM is FakeEstimator
    assert tiltflow.__version__.count(".") == 2
    assert {"BalancedEBM", "load", "__version__"} <= set(dir(tiltflow))
    with pytest.raises(AttributeError, match="nonsense"):
        tiltflow.nonsense  # noqa: B018
