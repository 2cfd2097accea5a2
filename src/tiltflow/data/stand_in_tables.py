"""Eight small public tables in the place of the five that flows are compared on.

    BSDS300     8 x 8 grey patches of natural images: noise of one level, minus their own mean,
                without the last pixel (Zoran, Weiss 2011), as in the standard file
    MINIBOONE   the first rows of the standard file
    POWER       two weeks of the standard series, by `flow_tables.power_splits`
    HIGGS       signal rows by the rules of HEPMASS, which it resembles
    keggdirected, elevators, parkinsons, bike    without their last column, a regression's target

The last four are made continuous first: columns of few values are left out, and of frequent ones,
as in HEPMASS; grids are spread by noise of one step, as in POWER, and repeated values off any grid
by noise of .02 standard deviations; of columns that correlate by more than .98 one is
kept, as in GAS. All but BSDS300 are standardised, as in `flow_tables.py`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tiltflow.data.arrays import load_npz
from tiltflow.data.dequantisation import make_continuous
from tiltflow.data.errors import InputError, damage_is_named
from tiltflow.data.flow_tables import Splits, distinct_columns, hepmass_splits, power_splits, split
from tiltflow.data.tables import read_table

FEWEST_VALUES = 20
MOST_FREQUENT = 0.2


def load_stand_in(name: str, folder: str | Path) -> Splits:
    """One of the eight, from `folder`.

    Raises:
        InputError: the name is not known, or its file is missing or damaged.
    """
    if name not in STAND_INS:
        raise InputError(f"{name}: no such table; the known ones are {', '.join(STAND_INS)}")
    file, load = STAND_INS[name]
    path = Path(folder) / file
    if not path.exists():
        raise InputError(f"{path}: no such file")
    with damage_is_named(path, f"the table {name}"):
        return load(path)


def continuous_splits(rows: Float[np.ndarray, "n d"]) -> Splits:
    """Of rows of any columns, shuffled, by the rules above."""
    random = np.random.default_rng(42)
    rows = rows[:, [_is_continuous(column) for column in rows.T]]
    rows = make_continuous(random, rows)
    return split(random.permutation(distinct_columns(rows)))


def patch_splits(
    train: Float[np.ndarray, "n 8 8"],
    validation: Float[np.ndarray, "v 8 8"],
    test: Float[np.ndarray, "t 8 8"],
) -> Splits:
    """Of patches of whole grey levels, 0 to 255."""
    random = np.random.default_rng(42)

    def spread(patches: Float[np.ndarray, "n 8 8"]) -> Float[np.ndarray, "n 63"]:
        x = (patches.reshape(len(patches), 64) + random.random((len(patches), 64))) / 256
        return (x - x.mean(axis=1, keepdims=True))[:, :63]

    return Splits(spread(train), spread(validation), spread(test))


def _is_continuous(column: Float[np.ndarray, " n"]) -> bool:
    _, counts = np.unique(column, return_counts=True)
    return bool(len(counts) >= FEWEST_VALUES and counts.max() <= MOST_FREQUENT * len(column))


def _bsds300(path: Path) -> Splits:
    file = load_npz(path)
    return patch_splits(*(file[part].astype(float) for part in ("train", "val", "test")))


def _miniboone(path: Path) -> Splits:
    return split(np.random.default_rng(42).permutation(read_table(path).values))


def _power(path: Path) -> Splits:
    text = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=str)
    minutes = [60 * int(hour) + int(minute) for hour, minute in (_clock(row[0]) for row in text)]
    values = np.array([[float(cell or "nan") for cell in row[1:]] for row in text])
    rows = np.column_stack([values, minutes])
    return power_splits(rows[np.isfinite(rows).all(axis=1)])


def _clock(date: str) -> list[str]:
    return date.split(" ")[1].split(":")[:2]


def _higgs(path: Path) -> Splits:
    file = load_npz(path)
    parts = [
        np.column_stack([file[f"y_{part}"], file[f"X_{part}"]]).astype(float)
        for part in ("test", "val")
    ]
    train, test = parts
    # The file that has more rows trains; HEPMASS's test rows have one column more.
    return hepmass_splits(train, np.column_stack([test, np.zeros(len(test))]))


def _centred(path: Path) -> Splits:
    return continuous_splits(np.loadtxt(path, delimiter=",")[:, :-1])


STAND_INS: dict[str, tuple[str, Callable[[Path], Splits]]] = {
    "HIGGS": ("higgs_small_val_test.npz", _higgs),
    "parkinsons": ("parkinsons_centred.csv.gz", _centred),
    "elevators": ("elevators_centred.csv.gz", _centred),
    "MINIBOONE head": ("miniboone43_head1523.npy", _miniboone),
    "keggdirected": ("keggdirected_centred.csv.gz", _centred),
    "bike": ("bike_centred.csv.gz", _centred),
    "POWER head": ("power_head_dec2006.csv.gz", _power),
    "BSDS300 patches": ("bsds300_patches8_uint8.npz", _bsds300),
}
