"""The kinds of tables' files, by their extensions."""

from pathlib import Path

from tiltflow.data.errors import InputError

EXTENSIONS = (
    ".csv",
    ".csv.gz",
    ".parquet",
    ".arrow",
    ".feather",
    ".npy",
    ".npz",
    ".ndjson",
    ".h5",
)
ARRAYS = (".npy", ".npz", ".h5")
ALIASES = {".tsv": ".csv", ".jsonl": ".ndjson", ".hdf": ".h5", ".hdf5": ".h5"}
"""Other names of the same formats; cells of `.tsv` are parted by tabs."""


def extension(path: str | Path) -> str:
    """The one of `EXTENSIONS` that decides the format; raises `InputError` if none is known."""
    name = Path(path).name.lower()
    for known in (*EXTENSIONS, *ALIASES):
        if name.endswith(known):
            return ALIASES.get(known, known)
    raise InputError(
        f"{path}: the extension is not that of a known kind of table; use one of "
        f"{', '.join((*EXTENSIONS, *ALIASES))}"
    )


def check_readable(path: Path) -> None:
    """Raise `InputError` unless there is a file of a known kind that is not empty."""
    extension(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if not path.exists():
        raise InputError(f"{path}: there is no such file; check the name and the folder")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; give a table with rows of numbers")
