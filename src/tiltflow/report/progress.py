"""The reports of a fit while it runs: a line of metrics.jsonl each, and a progress bar."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Progress:
    """Takes the reports of a fit: a line each in metrics.jsonl, and the progress bar.

    Folder, file and bar appear with the first report, so that input which the estimator refuses
    leaves nothing behind.
    """

    def __init__(self, out: Path, quiet: bool):
        self.out, self.quiet = out, quiet
        self.file = None
        self.bar: tqdm | None = None
        self.stage = ""

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Keep one report, and show it."""
        if self.file is None:
            self.out.mkdir(parents=True, exist_ok=True)
            self.file = (self.out / "metrics.jsonl").open("w", encoding="utf-8")
        line = {key: _finite_or_none(value) for key, value in report.items()}
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()
        if not self.quiet:
            self._show(report)

    def _show(self, report: Mapping[str, Any]) -> None:
        if self.bar is None:
            self.bar = tqdm(leave=False, dynamic_ncols=True, file=sys.stderr)
        if report.get("stage", self.stage) != self.stage:
            self.stage = report["stage"]
            self.bar.reset()
        self.bar.total = report.get("total_steps")
        self.bar.n = report.get("step", self.bar.n)
        self.bar.set_description(self.stage, refresh=False)
        shown = {
            "held-out": "held_out_log_likelihood",
            "local": "local_acceptance_rate",
            "global": "global_acceptance_rate",
        }
        postfix = {short: f"{report[key]:.3f}" for short, key in shown.items() if key in report}
        self.bar.set_postfix(postfix)

    def close(self) -> None:
        """End the bar and the file."""
        if self.bar is not None:
            self.bar.close()
        if self.file is not None:
            self.file.close()


def _finite_or_none(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
