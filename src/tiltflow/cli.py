"""The shell door: each command is a dataclass whose fields are its options.

Exit codes: 0 done; 1 the work failed; 2 the input or the arguments were wrong; 70 a fault of
tiltflow itself; 130 and 143 stopped by SIGINT and SIGTERM.
A failure is one line on stderr. Nothing heavy is imported before a command runs.
"""

import json
import math
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from tiltflow.cli_experiments import Bench, Demo, Reproduce
from tiltflow.cli_options import Data, OutFile, Quiet, Run, Seed, names_in
from tiltflow.data.errors import InputError
from tiltflow.data.settings import check_seed
from tiltflow.training.stopping import Stopped


@dataclass(frozen=True)
class Model:
    """Model and training."""

    base: str = "auto"
    """Density that the energy tilts; auto takes the best on held-out rows."""
    preprocessing: str = "auto"
    """Bijection applied to the columns first; auto takes the best on held-out rows."""
    max_steps: int | None = None
    """Most training steps of the energy; None lets the base decide."""
    chains: int | None = None
    """Markov chains that run in parallel; None lets the rows decide."""
    local_steps: int | None = None
    """Local moves of each chain between two global proposals; None lets the base decide."""
    energy_width: int | None = None
    """Units in each hidden layer of the energy; None lets the rows decide."""
    energy_depth: int | None = None
    """Hidden layers of the energy; 3 if not given."""
    learning_rate: float | None = None
    """Learning rate of the energy; None lets the base decide."""
    validation_fraction: float = 0.15
    """Share of the rows held out to watch the training."""
    categorical_features: Annotated[str | None, tyro.conf.arg(metavar="A,B,...")] = None
    """Columns of numbers that are categories; text with few levels is so without being named."""
    contamination: float = 0.05
    """Share of the rows that are called outliers, those of the lowest density."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit a density to a table and write model, metrics and report into a folder."""

    data: Data
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Folder to write; new or empty."""
    label_column: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Column of labels: kept apart, not a feature."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    tensorboard: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write TensorBoard scalars into RUN/tensorboard; needs `tiltflow[tensorboard]`."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the fit in RUN that was stopped, given the same data and options."""
    checkpoint_seconds: float = 60.0
    """Time from one checkpoint to the next; a stop by SIGINT or SIGTERM makes one, too."""
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Check everything, then create the folder, train, save, report and summarise."""
        from tiltflow.training.run_folder import check_run_folder, is_finished
        from tiltflow.training.stopping import stop_on_signals

        if not self.checkpoint_seconds >= 0:
            raise InputError(
                f"--checkpoint-seconds: {self.checkpoint_seconds} is negative; give 0 or more"
            )
        check_run_folder(self.out, self.resume)
        if self.resume and is_finished(self.out):
            print(f"{self.out}: this fit is finished; there is nothing left to do")
            return
        with stop_on_signals(_say) as stop:
            self._fit(stop)

    def _fit(self, stop: Any) -> None:
        from tiltflow.data.scanning import scan
        from tiltflow.data.schema import find_schema
        from tiltflow.data.streams import Stream
        from tiltflow.loading import load_table, sizes_of

        arguments = asdict(self.model)
        categorical = arguments["categorical_features"] = names_in(self.model.categorical_features)
        table = load_table(self.data, sizes_of(arguments), self.label_column)
        if isinstance(table, Stream):
            table = scan(table, categorical)
            rows, columns, found = table.rows, table.stream.columns, table.levels
            if not self.quiet:
                _say(f"{self.data}: {rows} rows are too many to hold: they are read in batches")
        else:
            schema, _ = find_schema(table, categorical, str(self.data))
            rows, columns, found = len(table), schema.columns, schema.levels
        if not self.quiet:
            for name, levels in found.items():
                _say(f"{self.data}: column '{name}' is categorical: {', '.join(map(str, levels))}")

        from tiltflow.estimator import BalancedEBM
        from tiltflow.report.progress import Progress
        from tiltflow.training.checkpoints import Checkpoints

        estimator = BalancedEBM(**arguments, random_state=self.seed)
        with Checkpoints(
            self.out, seconds=self.checkpoint_seconds, resume=self.resume, stop=stop
        ) as checkpoints:
            try:
                with Progress(self.out, self.quiet, self.tensorboard) as reports:
                    estimator.fit(table, on_report=reports, checkpoints=checkpoints)
                    reports({"stage": "report"})
                    estimator.save(self.out)
                    estimator.report(self.out / "report.html")
                checkpoints.remove()
            except OSError as error:
                raise RuntimeError(
                    f"{self.out}: cannot be written into ({error}); mend that, then go on by the "
                    "same command with --resume"
                ) from error
        _print_summary(estimator, rows, columns, self.out)
        if estimator.verdict_.status == "failed":
            raise RuntimeError(
                f"{self.out}: the fit is not to be trusted: {' '.join(estimator.verdict_.reasons)}"
            )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw rows from a fitted density."""

    run_folder: Run
    num_samples: Annotated[int, tyro.conf.arg(metavar="N")]
    """Rows to draw."""
    out: OutFile
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Write one column per feature, in the user's units."""
        from tiltflow.data.tables import as_found, check_new, check_text, write_table

        if self.num_samples < 1:
            raise InputError(f"--num-samples: {self.num_samples} is too few; ask for 1 or more")
        check_new(self.out)
        from tiltflow.estimator import load

        estimator = load(self.run_folder).set_output(transform="polars")
        levels = estimator.schema_.levels
        # Before the draws are made, which may take long.
        check_text(
            self.out, (name for name in levels if any(isinstance(it, str) for it in levels[name]))
        )
        draws = estimator.sample(self.num_samples, key=self.seed)
        columns = {name: draws[name].to_numpy() for name in estimator.feature_names_in_}
        found = {
            name: as_found(column) if column.dtype in (float, object) else column
            for name, column in columns.items()
        }
        write_table(self.out, found)
        print(f"{self.num_samples} draws written to {self.out}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Write the normalised log-density of every row of a table."""

    run_folder: Run
    data: Data
    out: OutFile
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Write one column, `log_prob`: natural logarithm, in the user's units."""
        import numpy as np

        from tiltflow.data.matching import has_names, match_columns
        from tiltflow.data.schema import text_columns, to_numbers
        from tiltflow.data.streams import count_cells, open_stream, take_columns
        from tiltflow.data.tables import (
            as_frame,
            check_new,
            check_readable,
            read_columns,
            write_table,
        )
        from tiltflow.memory import MOST_CELLS

        check_new(self.out)
        check_readable(self.data)
        from tiltflow.estimator import load

        estimator = load(self.run_folder)
        keep_text, large = text_columns(estimator.schema_), count_cells(self.data)
        stream = open_stream(self.data, None, keep_text) if math.prod(large) > MOST_CELLS else None
        columns = {} if stream else read_columns(self.data, None, keep_text)
        names = [str(name) for name in estimator.feature_names_in_]
        given = stream.columns if stream else tuple(columns)
        matched, note = match_columns(
            dict(zip(given, given)),
            names,
            self.data,
            named=stream.named if stream else has_names(columns),
            names_are_real=estimator.schema_.named,
        )
        if note and not self.quiet:
            print(f"tiltflow: {self.data}: {note}", file=sys.stderr)
        points = (
            take_columns(stream, matched)
            if stream
            else as_frame({name: columns[theirs] for name, theirs in matched.items()})
        )
        if stream is None:
            # Checked here, so that what is wrong is told of the file.
            to_numbers(estimator.schema_, points, str(self.data))
        log_prob = np.asarray(estimator.score_samples(points), np.float64)
        write_table(self.out, {"log_prob": log_prob})
        mean, rows = log_prob.mean(), len(log_prob)
        known = rows > 1 and math.isfinite(mean)
        error = f" ± {log_prob.std(ddof=1) / math.sqrt(rows):.4f}" if known else ""
        print(f"mean log_prob {mean:.4f}{error} nats over {rows} rows")
        print(f"written to {self.out}")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Print the weight of every mode, with 95 % intervals for the density and the population."""

    run_folder: Run
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object instead of a table."""
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Print modes by decreasing weight: weight, interval, centre; then the verdict."""
        from tiltflow.estimator import load
        from tiltflow.report.table import format_table

        estimator = load(self.run_folder)
        weights = estimator.mode_weights()
        names = [str(name) for name in estimator.feature_names_in_]
        centers = [] if weights.centers is None else weights.centers.tolist()
        wider = weights.population_intervals
        population = [None] * len(centers) if wider is None else wider.tolist()
        modes: list[dict[str, Any]] = [
            {"weight": weight, "interval": near, "population_interval": far, "center": center}
            for weight, near, far, center in zip(
                weights.weights.tolist(), weights.intervals.tolist(), population, centers
            )
        ]
        if self.json:
            found = {
                "columns": names,
                "modes": modes,
                "verdict": estimator.verdict_.status,
                "reasons": list(estimator.verdict_.reasons),
            }
            print(json.dumps(found, allow_nan=False))
            return
        ends = ["from", "to"] + ([] if wider is None else ["population from", "population to"])
        rows = []
        for mode in modes:
            shares = [mode["weight"], *mode["interval"], *(mode["population_interval"] or [])]
            rows.append([*(f"{share:.4f}" for share in shares), *map(_cell, mode["center"])])
        print(format_table(["weight", *ends, *names], rows))
        _print_verdict(estimator)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the HTML report of a run again."""

    run_folder: Run
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Write RUN/report.html."""
        from tiltflow.estimator import load

        path = self.run_folder / "report.html"
        load(self.run_folder).report(path)
        print(f"written to {path}")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Show a run in progress in the browser, on this machine only; Ctrl-C ends it."""

    run_folder: Annotated[
        tyro.conf.Positional[Path],
        tyro.conf.arg(metavar="RUN", help="Folder that `fit` writes, or is about to."),
    ]
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Port to listen on; 0 takes a free one."""
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Print the address and serve until interrupted."""
        from tiltflow.report.watch import watch

        watch(self.run_folder, self.port)


COMMANDS: dict[str, type] = {
    "demo": Demo,
    "fit": Fit,
    "sample": Sample,
    "score": Score,
    "weights": Weights,
    "report": Report,
    "watch": Watch,
    "reproduce": Reproduce,
    "bench": Bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments (the process's own if None), run the command, return the exit code."""
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="tiltflow",
            description="Learn a probability density from a table and say how far to trust it.",
            args=argv,
        )
        check_seed("--seed", command.seed)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(message)
            command.run()
    except SystemExit as stop:  # tyro's: 0 after --help, 2 after wrong arguments
        return int(stop.code or 0)
    except InputError as error:
        return _fail(error, 2)
    except Stopped as stop:
        return _fail(f"{stop}; go on by the same command with --resume", stop.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what was written so far is left in place", 130)
    except (RuntimeError, OSError, MemoryError) as error:
        return _fail(error, 1)
    except Exception as error:
        return _fail(_fault(error), 70)
    return 0


def _fault(error: Exception) -> str:
    """What to say of an exception that nothing foresaw: enough for a report of it."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(Path(__file__).parent)
    ]
    return (
        f"{type(error).__name__} in {Path(own[-1].filename).name}, line {own[-1].lineno}: {error}; "
        "this is a fault of tiltflow: report it to its developers, with this line and the command"
    )


def _fail(error: Exception | str, code: int) -> int:
    _say(error)
    return code


def _say(what: Warning | Exception | str) -> None:
    """One line on stderr."""
    message = " ".join(str(what).split()) or type(what).__name__
    print(f"tiltflow: {message}", file=sys.stderr)


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _print_summary(estimator: Any, rows: int, columns: Sequence[str], out: Path) -> None:
    held_out = estimator.held_out_log_likelihood_
    held_out_stderr = estimator.held_out_log_likelihood_stderr_
    log_z, log_z_stderr = estimator.log_normalizer_, estimator.log_normalizer_stderr_
    print(f"rows                     {rows}")
    print(f"columns                  {len(columns)}: {', '.join(columns)}")
    print(f"base                     {estimator.base_}")
    print(f"preprocessing            {estimator.preprocessing_}")
    print(
        f"sizes                    energy of {estimator.energy_depth_} layers of "
        f"{estimator.energy_width_}, {estimator.chains_} chains, {estimator.local_steps_} local "
        "steps"
    )
    print(
        f"training                 step {estimator.n_iter_} kept, of at most {estimator.max_steps_}"
    )
    print(f"held-out log-likelihood  {held_out:.4f} ± {held_out_stderr:.4f} nats per row")
    print(f"log Z                    {log_z:.4f} ± {log_z_stderr:.4f} nats")
    _print_verdict(estimator)
    print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def _print_verdict(estimator: Any) -> None:
    print(f"verdict                  {estimator.verdict_.status}")
    for reason in estimator.verdict_.reasons:
        print(f"  {reason}")
