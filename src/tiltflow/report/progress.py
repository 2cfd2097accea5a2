"""The reports of a fit while it runs: lines of metrics.jsonl, a progress bar, TensorBoard.

Each is a callable that takes a report, so that one alone can be the `on_report` of a fit: in a
notebook `BalancedEBM().fit(X, on_report=ProgressBar())` shows a bar of the notebook's own.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from tiltflow.report.tensorboard import TensorBoard

SHOWN = {
    "held-out": "held_out_log_likelihood",
    "local": "local_acceptance_rate",
    "global": "global_acceptance_rate",
    "ESS": "importance_ess",
}
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
WITHOUT_STEPS = "{desc} [{elapsed}{postfix}]"


class ProgressBar:
    """A bar of the stage under way, with the figures that matter; in a notebook, its own kind."""

    def __init__(self):
        self.bar: tqdm | None = None
        self.stage = ""

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Show one report."""
        if self.bar is None:
            self.bar = tqdm(leave=False, dynamic_ncols=True, bar_format=WITHOUT_STEPS)
        if report.get("stage") == "choice":
            # It stays when the bar is gone.
            self.bar.write(f"chosen: {choice_in_words(report)}", file=sys.stderr)
            return
        step = report.get("step", 0)
        if report.get("stage", self.stage) != self.stage:
            self.stage, total = report["stage"], report.get("total_steps")
            self.bar.bar_format = BAR if total else WITHOUT_STEPS
            self.bar.set_description_str(self.stage, refresh=False)
            self.bar.set_postfix_str("", refresh=False)
            self.bar.reset(total)
            self.bar.total = total
            # What was done before the first report says nothing of the speed.
            self.bar.initial = step
        self.bar.n = step
        known = {short: report.get(key) for short, key in SHOWN.items()}
        figures = {
            short: f"{value:.3f}" for short, value in known.items() if isinstance(value, float)
        }
        self.bar.set_postfix(figures)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()


def choice_in_words(chosen: Mapping[str, Any]) -> str:
    """The report of stage "choice" as text."""
    return (
        f"base {chosen['base']}; preprocessing {chosen['preprocessing']}; energy of "
        f"{chosen['energy_depth']} layers of {chosen['energy_width']}, at most "
        f"{chosen['max_steps']} steps; {chosen['chains']} chains, {chosen['local_steps']} local "
        "steps"
    )


class Progress:
    """Takes the reports of a fit: a line each in metrics.jsonl, and shows them unless `quiet`.

    Folder, file and bar appear with the first report, so that input which the estimator refuses
    leaves nothing behind. A fit that goes on gives its reports from the start, so what an earlier
    part of it wrote is removed then. As a context it writes down why it was left, if by an error:
    whoever watches the folder is told.
    """

    def __init__(self, out: Path, quiet: bool, tensorboard: bool = False):
        self.out = out
        self.file = None
        self.bar = None if quiet else ProgressBar()
        self.tensorboard = TensorBoard(out / "tensorboard") if tensorboard else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self.file is not None:
            told = " ".join(str(error).split())
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else told
            self._write({"stage": "failed", "reason": reason or type(error).__name__})
        self.close()

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Keep one report, and show it."""
        self._write(report)
        if self.bar is not None:
            self.bar(report)
        if self.tensorboard is not None:
            self.tensorboard(report)

    def _write(self, report: Mapping[str, Any]) -> None:
        if self.file is None:
            self.out.mkdir(parents=True, exist_ok=True)
            self.file = (self.out / "metrics.jsonl").open("w", encoding="utf-8")
            if self.tensorboard is not None:
                self.tensorboard.remove_files()
        line = {key: _finite_or_none(value) for key, value in report.items()}
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        """End the bar and the files."""
        for each in (self.bar, self.file, self.tensorboard):
            if each is not None:
                each.close()


def _finite_or_none(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
