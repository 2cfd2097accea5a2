"""The reports of a fit as TensorBoard scalars, by tensorboardX (an extra: no TensorFlow, no torch).

A scalar is named by its stage and its figure: `energy/held_out_log_likelihood`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltflow.data.errors import InputError


class TensorBoard:
    """Takes the reports of a fit and writes them into `folder`, made with the first report.

    Raises `InputError` if tensorboardX is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(
                "tensorboard: tensorboardX is not installed; pip install 'tiltflow[tensorboard]'"
            ) from None
        self._open, self.folder = SummaryWriter, folder
        self.writer: Any = None

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Write the numbers of one report that has a step."""
        if "step" not in report:
            return
        if self.writer is None:
            self.writer = self._open(str(self.folder))
        step, stage = int(report["step"]), report.get("stage", "fit")
        for name, value in report.items():
            if name in ("step", "total_steps") or isinstance(value, bool):
                continue
            if isinstance(value, (int, float)) and math.isfinite(value):
                self.writer.add_scalar(f"{stage}/{name}", float(value), step)
        # Whoever looks on wants to see this report now.
        self.writer.flush()

    def remove_files(self) -> None:
        """Remove what was written into the folder before, whose scalars would be there twice."""
        for file in self.folder.glob("events.out.tfevents.*"):
            file.unlink()

    def close(self) -> None:
        """End the file."""
        if self.writer is not None:
            self.writer.close()
