"""The rows that a fit takes: of a small table all, of a large one a sample and then all in turn."""

import contextlib

import numpy as np
import pandas
import polars
import pytest

import tiltflow.data.streams
import tiltflow.fit_rows
import tiltflow.memory
from tiltflow.data.errors import InputError
from tiltflow.data.machine import Machine
from tiltflow.data.scanning import scan
from tiltflow.data.streams import Stream
from tiltflow.fit_rows import numbered_rows, take_rows
from tiltflow.loading import load_table
from tiltflow.training.checkpoints import Checkpoints

SIZES = {"chains": 64, "energy_width": 16, "energy_depth": 1}
PARAMETERS = {**SIZES, "categorical_features": None, "validation_fraction": 0.25}


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch):
    monkeypatch.setattr(tiltflow.memory, "MOST_CELLS", 500)
    monkeypatch.setattr(tiltflow.fit_rows, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(tiltflow.fit_rows, "HELD_OUT_ROWS", 40)
    monkeypatch.setattr(tiltflow.data.streams, "BATCH_ROWS", 70)


def table(rows):
    """A column that tells its row, and one on a grid."""
    generator = np.random.default_rng(0)
    return np.stack([np.arange(rows) + 0.001 * generator.random(rows), np.arange(rows) % 5], axis=1)


@pytest.fixture
def take():
    """`take_rows`, while its files are open."""
    with contextlib.ExitStack() as stack:

        def taken(X, weights=None, seed=0):
            return take_rows(stack, X, weights, PARAMETERS, seed, None)

        yield taken


def test_columns_declared_by_an_array_begin_checkpoints(tmp_path):
    parameters = {**PARAMETERS, "categorical_features": np.array(["x1"]), "random_state": 0}
    with contextlib.ExitStack() as stack, Checkpoints(tmp_path / "run") as checkpoints:
        found = take_rows(stack, table(200), None, parameters, 0, checkpoints)
    assert found.schema.levels["x1"] == (0, 1, 2, 3, 4)


def numbers_of(rows):
    """Which rows of `table` these are."""
    return np.floor(rows[:, 0]).astype(int).tolist()


def test_a_large_table_is_held_out_sampled_and_gone_through(take):
    rows = take(table(600))
    assert rows.schema.columns == ("x0", "x1")
    assert rows.schema.quanta.tolist() == [0, 1]
    assert rows.held_out.shape == (40, 2) and rows.independent_held_out == 40
    assert rows.training.shape == (100, 2) and rows.independent == 100
    assert rows.kept.shape == (140, 2)
    held_out, sample = numbers_of(rows.held_out), numbers_of(rows.training)
    assert numbers_of(rows.kept) == held_out + sample
    # The stretches begin with the sample, are all rows but those held out, and begin again.
    seen = numbers_of(np.concatenate([rows.stretch(0, 300), rows.stretch(300, 300)]))
    assert seen[:100] == sample and seen[560:] == seen[:40]
    assert sorted(seen[:560] + held_out) == list(range(600))
    assert numbers_of(rows.stretch(500, 1200)) == (seen[:560] * 4)[500:1700]
    # Columns on a grid are spread, with other noise when a row comes again, but by its place.
    grid = rows.stretch(0, 560)[:, 1]
    assert (np.abs(grid - np.round(grid)) > 0).all()
    np.testing.assert_array_equal(np.round(grid), [number % 5 for number in seen[:560]])
    assert not np.isin(rows.stretch(560, 560)[:, 1], grid).any()
    np.testing.assert_array_equal(rows.stretch(0, 560)[:, 1], grid)
    others = take(table(600), seed=1)
    assert numbers_of(others.held_out) != held_out


def test_a_small_or_weighted_table_is_taken_whole(take):
    X = table(200)
    rows = take(X)
    assert rows.stretch is None
    assert sorted(numbers_of(rows.held_out) + numbers_of(rows.training)) == list(range(200))
    assert len(rows.held_out) == 50
    X = table(600)
    rows = take(X, np.ones(600))
    assert rows.stretch is None
    assert len(rows.held_out) + len(rows.training) == 8 * 600
    with pytest.raises(InputError, match="streamed have no weights"):
        take(scan(load_table(X, SIZES), None), np.ones(600))


def test_rows_are_numbered_by_their_places_in_the_table(take, monkeypatch):
    monkeypatch.setattr(tiltflow.fit_rows, "SAMPLE_ROWS", 200)
    X = table(200)
    rows, numbers = numbered_rows(take(X, np.r_[0.0, np.ones(99), np.full(100, 5.0)]))
    assert sorted(numbers) == list(range(1, 200))
    np.testing.assert_array_equal(rows, X[numbers])
    monkeypatch.setattr(tiltflow.fit_rows, "SAMPLE_ROWS", 30)
    rows, numbers = numbered_rows(take(X))
    assert len(set(numbers)) == 30 and numbers.max() > 100
    np.testing.assert_array_equal(rows, X[numbers])
    large = take(table(600))
    assert numbered_rows(large) == (large.kept, None)


def test_a_file_is_blamed_by_its_name(tmp_path, take):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n3,\n5,6\n")
    for file in (path, str(path)):
        with pytest.raises(InputError) as refusal:
            take(file)
        assert str(refusal.value).startswith(f"{path}: row 2, column 'b' is nan")


def test_what_is_read_in_batches(tmp_path, monkeypatch):
    X = table(300)
    frame = polars.DataFrame(X, schema=["a", "b"])
    path = tmp_path / "table.csv"
    frame.write_csv(path)
    for large in (X, frame, pandas.DataFrame(X, columns=["a", "b"]), frame.lazy(), path, str(path)):
        assert isinstance(load_table(large, SIZES), Stream)
        assert not isinstance(load_table(large, SIZES, whole=True), Stream)
    assert load_table(path, SIZES, "a").columns == ("b",)
    for small in (X[:200], frame[:200], X.tolist(), X[:, 0]):
        assert load_table(small, SIZES) is small
    # Nor is what this machine could not hold.
    monkeypatch.setattr(tiltflow.memory, "MOST_CELLS", 10_000)
    assert load_table(X, SIZES) is X
    monkeypatch.setattr(tiltflow.memory, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(tiltflow.memory, "find_machine", lambda: Machine(1, 1))
    assert isinstance(load_table(X, SIZES), Stream)
