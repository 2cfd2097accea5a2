"""The commands on a folder that `tiltflow fit` wrote, or is writing."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from tiltflow.cli_lines import print_verdict, say
from tiltflow.cli_options import Data, OutFile, Quiet, Run, Seed
from tiltflow.data.errors import InputError


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
        from tiltflow.data.table_writing import check_new, check_text, write_table
        from tiltflow.data.tables import as_found

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
        from tiltflow.data.table_kinds import check_readable
        from tiltflow.data.table_writing import check_new, write_table
        from tiltflow.data.tables import as_frame, read_columns
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
            say(f"{self.data}: {note}")
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
        print_verdict(estimator)


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


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
