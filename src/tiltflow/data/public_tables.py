"""Small public tables: those of a folder of files, and those that come with scikit-learn.

A table is its columns of numbers: text and constant columns are left out, and rows with missing
cells. Labels are no columns; where some of them are known as the rare or the ill ones, the table
says which rows are outliers, as benchmarks of outlier detection have it (Rayana 2016, ODDS; Han et
al. 2022, ADBench): glass 6; ecoli omL, imL, imS; thyroid not normal; the oil spills; malignant
microcalcifications; pulsars; defaulted credits; diabetes; space shuttle 2, 3, 5, 6, 7 without 4;
cottonwood among lodgepole pine; skin among other pixels.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from sklearn import datasets

from tiltflow.data.errors import InputError
from tiltflow.data.tables import as_matrix, read_features

FOLDER = Path(os.environ.get("TILTFLOW_DATA", "../shared/data/tabular"))
"""Where the files are looked for."""


class PublicTable(NamedTuple):
    """Rows of numbers, in the units of the file, and which of them are outliers, where known."""

    rows: Float[np.ndarray, "n d"]
    is_outlier: Bool[np.ndarray, " n"] | None


class Files(NamedTuple):
    """One table in files of one layout, and what its column of labels means."""

    names: tuple[str, ...]
    label: str | None = None
    outliers: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    """Labels whose rows belong to neither side."""
    numbered: bool = False
    """Whether the first column, without a name, only numbers the rows."""


FILES = {
    "penguins": Files(("penguins.csv",), "species"),
    "geyser": Files(("geyser.csv",), "kind"),
    "glass": Files(("glass.csv",), "x9", ("6",)),
    "ecoli": Files(("ecoli.csv",), "x7", ("omL", "imL", "imS")),
    "new-thyroid": Files(("new-thyroid.csv",), "x5", ("2", "3")),
    "abalone": Files(("abalone.csv",), "x0"),
    "pima": Files(("pima-indians-diabetes.csv",), "x8", ("1",)),
    "oil-spill": Files(("oil-spill.csv",), "x49", ("1",)),
    "mammography": Files(("mammography.csv.gz",), "x6", ("'1'",)),
    "winequality-red": Files(("winequality-red.csv",), "x11"),
    "winequality-white": Files(("winequality-white.csv",), "x11"),
    "HTRU_2": Files(("HTRU_2.csv.gz",), "class", ("1",)),
    "credit-default": Files(("credit_default.csv.gz",), "DEFAULT_PAYMENT", ("1",), numbered=True),
    "shuttle": Files(
        ("shuttle_trn.csv.gz", "shuttle_tst.csv.gz"), "x9", ("2", "3", "5", "6", "7"), ("4",)
    ),
    "cover": Files(("adbench_cover.npz",), "y", ("1",)),
    "skin": Files(("adbench_skin.npz",), "y", ("1",)),
    "earth-volcanoes": Files(("earth_volerup.csv",)),
    "earth-floods": Files(("earth_flood.csv",)),
    "earth-fires": Files(("earth_fire.csv",)),
}
SKLEARN: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast-cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
}


def find_public_tables(folder: Path) -> dict[str, Callable[[], PublicTable]]:
    """A loader for every table of scikit-learn, and for every one whose files are in `folder`."""

    def from_files(files: Files) -> Callable[[], PublicTable]:
        return lambda: load_files(files, folder)

    def from_sklearn(load: Callable[..., Any]) -> Callable[[], PublicTable]:
        return lambda: PublicTable(numbers_of(load(return_X_y=True)[0].astype(float)), None)

    found = {
        name: from_files(files)
        for name, files in FILES.items()
        if all((folder / each).exists() for each in files.names)
    }
    return found | {name: from_sklearn(load) for name, load in SKLEARN.items()}


def load_files(files: Files, folder: Path) -> PublicTable:
    """The rows of all these files of `folder`, one after the other.

    Raises:
        InputError: a file is missing or damaged, or its label column is not there.
    """
    parts = [_load(files, folder / name) for name in files.names]
    rows = np.concatenate([rows for rows, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    kept = np.isfinite(rows).all(axis=1) & ~np.isin(labels, files.left_out)
    is_outlier = None if files.outliers is None else np.isin(labels[kept], files.outliers)
    return PublicTable(numbers_of(rows[kept]), is_outlier)


def numbers_of(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
    """The columns that are not constant."""
    return rows[:, np.ptp(rows, axis=0) > 0]


def _load(files: Files, path: Path) -> tuple[Float[np.ndarray, "n d"], np.ndarray]:
    if files.numbered:
        # A column without a name is refused elsewhere: nobody could say what it is.
        frame = pl.read_csv(path)
        labels = frame[files.label].to_numpy() if files.label else None
        frame = frame[:, 1:].drop(files.label or [])
        columns = {each.name: each.cast(float).to_numpy() for each in frame}
    else:
        columns, labels = read_features(path, files.label)
    columns = {name: column for name, column in columns.items() if column.dtype != object}
    if not columns:
        raise InputError(f"{path}: has no column of numbers")
    rows = as_matrix(columns, path)
    return rows, np.zeros(len(rows), str) if labels is None else labels.astype(str)
