"""Options that several commands have, and how a list of names is given."""

from pathlib import Path
from typing import Annotated

import tyro

Quiet = Annotated[
    bool,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.arg(help="Show no progress bar and no notes; results and errors are still printed."),
]
Seed = Annotated[
    int, tyro.conf.arg(help="Seed of all randomness; on one machine, same seed, same bits.")
]
Run = Annotated[
    tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="Folder that `fit` wrote.")
]
TABLE_KINDS = ".csv .csv.gz .parquet .arrow .feather .npy .npz .ndjson .h5"
Data = Annotated[
    tyro.conf.Positional[Path],
    tyro.conf.arg(metavar="DATA", help=f"Table of numbers, by extension: {TABLE_KINDS}."),
]
OutFile = Annotated[
    Path,
    tyro.conf.arg(metavar="FILE", help=f"Table to write, a new file, by extension: {TABLE_KINDS}."),
]


def names_in(listed: str | None) -> tuple[str, ...] | None:
    """The names in a list with commas between."""
    if listed is None:
        return None
    return tuple(name.strip() for name in listed.split(",") if name.strip())
