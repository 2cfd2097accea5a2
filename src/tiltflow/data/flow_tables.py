"""The five tables that flows are compared on, prepared as Papamakarios et al. (2017) do.

POWER, GAS, HEPMASS, MINIBOONE and BSDS300, from the files of their archive, in its folders:

    power/data.npy                            8 columns; reactive power and intensity are dropped,
                                              uniform noise of the instruments' steps is added
    gas/ethylene_CO.{csv,parquet,npy}         without time and both gases; of columns that
                                              correlate by more than .98 one is kept
    hepmass/1000_train.csv, 1000_test.csv     signal only, without columns of frequent values
    miniboone/data.npy                        as it is
    BSDS300/BSDS300.hdf5                      as it is, split by them

Random choices are NumPy's `RandomState(42)`, as theirs, so that rows and noise are the same. All
but BSDS300 are standardised; log-likelihoods of these units are what the papers' tables hold.
(Their `ethylene_CO.pickle` is never read: a pickle can run any code. Convert it once.)
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tiltflow.data.arrays import load_h5
from tiltflow.data.errors import InputError, damage_is_named
from tiltflow.data.tables import read_table

MOST_CORRELATED = 0.98
MOST_REPEATED = 5


class Splits(NamedTuple):
    """Rows to train on, to stop by and to be judged on."""

    train: Float[np.ndarray, "n d"]
    validation: Float[np.ndarray, "v d"]
    test: Float[np.ndarray, "t d"]


def load_flow_table(name: str, folder: str | Path) -> Splits:
    """One of the five, from `folder`.

    Raises:
        InputError: the name is not known, a file is missing or has other columns.
    """
    if name not in FLOW_TABLES:
        raise InputError(f"{name}: no such table; the known ones are {', '.join(FLOW_TABLES)}")
    with damage_is_named(Path(folder) / FOLDERS[name], f"the table {name}"):
        return FLOW_TABLES[name](Path(folder))


def power_splits(rows: Float[np.ndarray, "n 8"]) -> Splits:
    """Of active and reactive power, voltage, intensity, three meters and the minute of the day."""
    random = np.random.RandomState(42)
    rows = np.array(rows, dtype=float)
    random.shuffle(rows)
    rows = np.delete(rows, [1, 3], axis=1)
    n = len(rows)
    voltage, active = 0.01 * random.rand(n, 1), 0.001 * random.rand(n, 1)
    meters = random.rand(n, 3)
    return split(rows + np.hstack([active, voltage, meters, np.zeros((n, 1))]))


def gas_splits(rows: Float[np.ndarray, "n d"]) -> Splits:
    """Of the sensors' columns: those that say what an earlier one says are left out first."""
    rows = distinct_columns(rows)
    standardised = (rows - rows.mean(axis=0)) / rows.std(axis=0, ddof=1)
    return split(standardised, standardise=False)


def distinct_columns(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
    """Without those that correlate with another one by more than `MOST_CORRELATED`."""
    while True:
        similar = (np.corrcoef(rows.T) > MOST_CORRELATED).sum(axis=1)
        repeating = np.flatnonzero(similar > 1)
        if not len(repeating):
            return rows
        rows = np.delete(rows, repeating[0], axis=1)


def hepmass_splits(train: Float[np.ndarray, "n d"], test: Float[np.ndarray, "m e"]) -> Splits:
    """Of rows whose first column is 1 for signal; the test file has one column too many."""
    train = train[train[:, 0] == 1][:, 1:]
    test = test[test[:, 0] == 1][:, 1 : train.shape[1] + 1]
    mean, scale = train.mean(axis=0), train.std(axis=0, ddof=1)
    train, test = (train - mean) / scale, (test - mean) / scale
    # The count of the smallest value, as in their code.
    kept = [np.sum(column == column.min()) <= MOST_REPEATED for column in train.T]
    train, test = train[:, kept], test[:, kept]
    rest = len(train) - int(0.1 * len(train))
    return Splits(train[:rest], train[rest:], test)


def split(rows: Float[np.ndarray, "n d"], *, standardise: bool = True) -> Splits:
    """The last tenth for the test, the last tenth of the rest for validation, in this order."""
    rest = len(rows) - int(0.1 * len(rows))
    seen, test = rows[:rest], rows[rest:]
    if standardise:
        mean, scale = seen.mean(axis=0), seen.std(axis=0)
        seen, test = (seen - mean) / scale, (test - mean) / scale
    count = len(seen) - int(0.1 * len(seen))
    return Splits(seen[:count], seen[count:], test)


def _power(folder: Path) -> Splits:
    return power_splits(_with_columns(folder / "power" / "data.npy", 8))


def _gas(folder: Path) -> Splits:
    names = [f"ethylene_CO.{kind}" for kind in ("parquet", "csv", "npy")]
    found = [folder / "gas" / name for name in names if (folder / "gas" / name).exists()]
    if not found:
        raise InputError(
            f"{folder / 'gas'}: found none of {', '.join(names)}; convert ethylene_CO.pickle to "
            "one of them (a pickle is never read here)"
        )
    columns = _with_columns(found[0], 19)
    # Time and the two concentrations stand first.
    return gas_splits(columns[:, 3:])


def _hepmass(folder: Path) -> Splits:
    train, test = (folder / "hepmass" / f"1000_{part}.csv" for part in ("train", "test"))
    return hepmass_splits(_with_columns(train, 28), _with_columns(test, 29))


def _miniboone(folder: Path) -> Splits:
    return split(_with_columns(folder / "miniboone" / "data.npy", 43))


def _bsds300(folder: Path) -> Splits:
    path = folder / "BSDS300" / "BSDS300.hdf5"
    if not path.exists():
        raise InputError(f"{path}: no such file")
    arrays = load_h5(path)
    found = [arrays[part] for part in Splits._fields if part in arrays]
    alike = {(array.dtype.kind, array.ndim, *array.shape[1:]) for array in found}
    if len(found) != 3 or len(alike) != 1 or found[0].ndim != 2 or found[0].dtype.kind != "f":
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(
            f"{path}: expected tables of numbers train, validation and test, of as many columns; "
            f"found {shapes or 'none'}"
        )
    return Splits(*(array.astype(float) for array in found))


def _with_columns(path: Path, expected: int) -> Float[np.ndarray, "n d"]:
    rows = read_table(path).values
    if rows.shape[1] != expected:
        raise InputError(f"{path}: found {rows.shape[1]} columns; this table has {expected}")
    return rows


FOLDERS = {
    "POWER": "power",
    "GAS": "gas",
    "HEPMASS": "hepmass",
    "MINIBOONE": "miniboone",
    "BSDS300": "BSDS300",
}
FLOW_TABLES: dict[str, Callable[[Path], Splits]] = {
    "POWER": _power,
    "GAS": _gas,
    "HEPMASS": _hepmass,
    "MINIBOONE": _miniboone,
    "BSDS300": _bsds300,
}
