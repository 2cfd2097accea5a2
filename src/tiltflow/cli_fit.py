"""`tiltflow fit`: a table in, a folder with model, metrics and report out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from tiltflow.cli_lines import print_verdict, say
from tiltflow.cli_options import Data, Quiet, Seed, names_in
from tiltflow.data.errors import InputError


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
        with stop_on_signals(say) as stop:
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
                say(f"{self.data}: {rows} rows are too many to hold: they are read in batches")
        else:
            schema, _ = find_schema(table, categorical, str(self.data))
            rows, columns, found = len(table), schema.columns, schema.levels
        if not self.quiet:
            for name, levels in found.items():
                say(f"{self.data}: column '{name}' is categorical: {', '.join(map(str, levels))}")

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
    print_verdict(estimator)
    print(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
