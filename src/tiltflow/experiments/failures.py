"""What of an experiment's cells failed without ending them, in words below its table."""

from collections.abc import Sequence

from tiltflow.experiments.cells import Line


def failures(lines: Sequence[Line]) -> str:
    """Training steps that were skipped, rows without a density afterwards, fits that stopped.

    Of the figures `skipped`, `failed_rows` and `stopped`, where a cell has them.
    """
    told = []
    for line in lines:
        name = ", ".join(
            str(each) for each in (line["case"], line["method"], line["setting"]) if each
        )
        figures, name = line["figures"], f"{name}, seed {line['seed']}"
        if skipped := figures.get("skipped"):
            told.append(f"{name}: {skipped} steps were not finite and skipped")
        if failed := figures.get("failed_rows"):
            told.append(f"{name}: {failed} rows have no finite density")
        if stopped := figures.get("stopped"):
            told.append(f"{name}: stopped early, {stopped}")
    return "\n".join(told) or "no step was skipped, every density is finite"
