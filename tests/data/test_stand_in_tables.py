"""Small tables in the place of the standard ones, from small files of their layout."""

import gzip

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.stand_in_tables import continuous_splits, load_stand_in, patch_splits

ROWS = 400


def test_columns_that_are_discrete_spiked_or_said_twice_are_left_out():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, ROWS))
    whole = random.integers(0, 50, ROWS) * 1.0
    spiked = np.where(random.random(ROWS) < 0.3, 0.0, random.normal(size=ROWS))
    few = random.integers(0, 5, ROWS) * 1.0
    splits = continuous_splits(
        np.column_stack([first, few, spiked, whole, second, second + 1e-3 * first])
    )
    assert [len(part) for part in splits] == [324, 36, 40]
    # The first of two that say the same is left out.
    assert splits.train.shape[1] == 3
    seen = np.concatenate([splits.train, splits.validation])
    np.testing.assert_allclose(seen.std(axis=0), 1)
    # The grid of the whole numbers is spread.
    assert len(np.unique(seen[:, 1])) == len(seen)


def test_patches_lose_their_mean_and_their_last_pixel():
    patches = np.random.default_rng(0).integers(0, 256, (6, 8, 8)).astype(float)
    splits = patch_splits(patches[:3], patches[3:5], patches[5:])
    assert [part.shape for part in splits] == [(3, 63), (2, 63), (1, 63)]
    grey = patches[:3].reshape(3, 64) / 256
    expected = (grey - grey.mean(axis=1, keepdims=True))[:, :63]
    np.testing.assert_allclose(splits.train, expected, atol=1 / 256)
    assert np.abs(splits.train - expected).max() > 1e-4


def test_power_has_the_minute_of_the_day_and_loses_empty_rows(tmp_path):
    cells = ",".join(["1.5", "0.1", "240.0", "6.2", "0.0", "1.0", "17.0"])
    lines = ["Datetime,a,b,c,d,e,f,g"]
    lines += [f"16/12/2006 {i % 24:02d}:{i % 60:02d}:00,{cells}" for i in range(100)]
    lines.append("16/12/2006 17:24:00,,,,,,,")
    (tmp_path / "power_head_dec2006.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    splits = load_stand_in("POWER head", tmp_path)
    assert sum(len(part) for part in splits) == 100
    assert splits.train.shape[1] == 6


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        load_stand_in("none", tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_stand_in("bike", tmp_path)
