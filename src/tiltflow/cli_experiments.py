"""Commands that repeat what is published: demo, reproduce, bench. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from tiltflow.cli_options import Quiet, Seed, names_in
from tiltflow.data.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Learn a density with two unequal modes, and see that their weights come out right."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo")
    """Folder for the figures and the report."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A shorter training, to try the command."""
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Hand over to the experiment."""
        from tiltflow.experiments.two_modes import run_demo

        run_demo(out=self.out, seed=self.seed, quiet=self.quiet, quick=self.quick)


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run an experiment of a paper and print its table."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Experiment; an unknown name lists the known ones."""
    methods: Annotated[str | None, tyro.conf.arg(metavar="A,B,...")] = None
    """Methods to compare, an unknown one lists the known ones; all if not given."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A smaller budget, to try the command."""
    seeds: Annotated[int, tyro.conf.arg(metavar="K")] = 1
    """Repetitions, each with its own seed."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for tables and figures; reproduce/NAME if not given."""
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Hand over to the experiment."""
        if self.seeds < 1:
            raise InputError(f"--seeds: {self.seeds} is too few; ask for 1 or more")
        from tiltflow.experiments import reproduce

        methods = names_in(self.methods)
        if methods == ():
            raise InputError("--methods: names no method; give some, with commas between")
        reproduce(
            self.name,
            seeds=self.seeds,
            seed=self.seed,
            quiet=self.quiet,
            out=self.out or Path("reproduce") / self.name,
            methods=methods,
            quick=self.quick,
        )


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure the speed of one part, or of all."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]")] = None
    """Benchmark; all of them if not given, an unknown name lists the known ones."""
    rows: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Rows of the table that `stream` makes; 10 million if not given."""
    seed: Seed = 0
    quiet: Quiet = False

    def run(self) -> None:
        """Hand over to the benchmark."""
        from tiltflow.experiments import bench

        bench(self.name, seed=self.seed, quiet=self.quiet, rows=self.rows)
