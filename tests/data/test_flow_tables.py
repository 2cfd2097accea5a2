"""The five standard tables, from small files of their layout."""

import h5py
import numpy as np
import polars as pl
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.flow_tables import load_flow_table

ROWS = 200


def rows(columns, seed=0):
    return np.random.default_rng(seed).normal(size=(ROWS, columns))


def write_csv(path, values):
    path.parent.mkdir(exist_ok=True)
    pl.DataFrame(values, schema=[f"f{i}" for i in range(values.shape[1])]).write_csv(path)


def write_npy(path, values):
    path.parent.mkdir(exist_ok=True)
    np.save(path, values)


def assert_standardised(splits, columns):
    """A tenth of all rows for the test, a tenth of the rest for validation; units of the rest."""
    assert [part.shape for part in splits] == [(162, columns), (18, columns), (20, columns)]
    seen = np.concatenate([splits.train, splits.validation])
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(seen.std(axis=0), 1)


def test_power_loses_two_columns_and_is_shuffled(tmp_path):
    values = np.tile(np.arange(ROWS)[:, None] * 10.0, (1, 8))
    write_npy(tmp_path / "power" / "data.npy", values)
    splits = load_flow_table("POWER", tmp_path)
    assert_standardised(splits, 6)
    # The minute has no noise, so that it tells the order, which is theirs.
    order = np.arange(ROWS) * 10.0
    np.random.RandomState(42).shuffle(order)
    minute = np.concatenate(splits)[:, 5]
    np.testing.assert_array_equal(np.argsort(minute), np.argsort(order))
    # Noise of a step of the instrument: up to .001 of power, .01 of voltage, 1 of the meters.
    noise = np.concatenate(splits) - minute[:, None]
    spread = noise.std(axis=0) * order.std()
    assert (spread[:2] < [5e-4, 5e-3]).all() and (spread[:2] > [1e-4, 1e-3]).all()
    assert ((spread[2:5] > 0.2) & (spread[2:5] < 0.4)).all()


def test_gas_keeps_one_of_the_columns_that_say_the_same(tmp_path):
    sensors = rows(16)
    sensors[:, 3] = 2 * sensors[:, 7] + 1e-3 * sensors[:, 3]
    values = np.concatenate([rows(3, seed=1), sensors], axis=1)
    (tmp_path / "gas").mkdir()
    pl.DataFrame(values, schema=[f"f{i}" for i in range(19)]).write_parquet(
        tmp_path / "gas" / "ethylene_CO.parquet"
    )
    splits = load_flow_table("GAS", tmp_path)
    found = np.concatenate(splits)
    assert found.shape == (ROWS, 15)
    expected = np.delete(sensors, 3, axis=1)
    expected = (expected - expected.mean(axis=0)) / expected.std(axis=0, ddof=1)
    np.testing.assert_allclose(found, expected)


def test_hepmass_keeps_signal_and_continuous_columns(tmp_path):
    train, test = rows(28), np.concatenate([rows(28, seed=1), rows(1, seed=2)], axis=1)
    for values in (train, test):
        values[:, 0] = np.arange(ROWS) % 2
        values[:, 5] = np.arange(ROWS) // 2 % 10
    for name, values in (("train", train), ("test", test)):
        write_csv(tmp_path / "hepmass" / f"1000_{name}.csv", values)
    splits = load_flow_table("HEPMASS", tmp_path)
    assert [part.shape for part in splits] == [(90, 26), (10, 26), (100, 26)]
    signal = np.delete(train[1::2, 1:], 4, axis=1)
    np.testing.assert_allclose(
        splits.test,
        (np.delete(test[1::2, 1:28], 4, axis=1) - signal.mean(0)) / signal.std(0, ddof=1),
    )


def test_miniboone_and_bsds300_are_taken_as_they_are(tmp_path):
    write_npy(tmp_path / "miniboone" / "data.npy", 3 + 2 * rows(43))
    assert_standardised(load_flow_table("MINIBOONE", tmp_path), 43)
    (tmp_path / "BSDS300").mkdir()
    with h5py.File(tmp_path / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for number, name in enumerate(("train", "validation", "test")):
            file[name] = rows(63, seed=number)
    splits = load_flow_table("BSDS300", tmp_path)
    np.testing.assert_array_equal(splits.test, rows(63, seed=2))


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(InputError, match="IRIS: no such table; the known ones are POWER, GAS"):
        load_flow_table("IRIS", tmp_path)
    with pytest.raises(InputError, match="miniboone"):
        load_flow_table("MINIBOONE", tmp_path)
    write_npy(tmp_path / "miniboone" / "data.npy", rows(50))
    with pytest.raises(InputError, match="found 50 columns; this table has 43"):
        load_flow_table("MINIBOONE", tmp_path)
    (tmp_path / "gas").mkdir()
    (tmp_path / "gas" / "ethylene_CO.pickle").write_bytes(b"never read")
    with pytest.raises(InputError, match=r"convert ethylene_CO.pickle"):
        load_flow_table("GAS", tmp_path)
    (tmp_path / "BSDS300").mkdir()
    (tmp_path / "BSDS300" / "BSDS300.hdf5").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"BSDS300.hdf5: cannot be read as HDF5"):
        load_flow_table("BSDS300", tmp_path)
    for parts in ({"train": (3, 2)}, {"train": (3, 2), "validation": (3, 2), "test": (3, 1)}):
        with h5py.File(tmp_path / "BSDS300" / "BSDS300.hdf5", "w") as file:
            for part, shape in parts.items():
                file[part] = np.zeros(shape)
        with pytest.raises(InputError, match=r"BSDS300.hdf5: expected tables of numbers train"):
            load_flow_table("BSDS300", tmp_path)
