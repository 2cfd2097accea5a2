"""Frames in, frames out: the estimator on tables of polars, pandas, Arrow and of files."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone

import tiltflow
from tiltflow import BalancedEBM
from tiltflow.cli import main
from tiltflow.data.column_types import types_of
from tiltflow.data.errors import InputError
from tiltflow.data.streams import open_stream
from tiltflow.data.tables import read_columns
from tiltflow.loading import load_table

SMALL = {"max_steps": 100, "chains": 64, "energy_width": 8, "energy_depth": 1, "local_steps": 2}


class OfArrow:
    """Nothing but Arrow's protocol."""

    def __init__(self, frame):
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self.frame.__arrow_c_stream__(requested_schema)


def table(rows=300):
    generator = np.random.default_rng(0)
    kind = generator.choice(["pine", "oak"], size=rows, p=[0.7, 0.3])
    return pl.DataFrame(
        {
            "height": generator.normal(np.where(kind == "pine", 10.0, 20.0)).astype(np.float32),
            "rings": generator.poisson(20, size=rows).astype(np.int16),
            "alive": generator.random(rows) < 0.4,
            "kind": pl.Series(kind, dtype=pl.Enum(["oak", "elm", "pine"])),
        }
    )


def fit(X):
    estimator = BalancedEBM(base="gaussian", preprocessing="standardise", random_state=0, **SMALL)
    return estimator.fit(X)


@pytest.fixture(scope="module")
def fitted():
    return fit(table())


def test_rows_are_arrays_until_frames_are_asked_for(fitted):
    draws = fitted.sample(5, key=0)
    assert isinstance(draws, np.ndarray) and draws.dtype == object
    with sklearn.config_context(transform_output="polars"):
        assert fitted.sample(5, key=0).schema == table().schema
    assert fitted.set_output() is fitted
    assert isinstance(fitted.sample(5, key=0), np.ndarray)


def test_draws_have_the_types_of_the_fit_and_are_those_of_the_array(fitted):
    draws = fitted.sample(40, key=0)
    again = pickle.loads(pickle.dumps(fitted)).set_output(transform="polars")
    frame = again.sample(40, key=0)
    assert frame.schema == table().schema
    np.testing.assert_allclose(frame["height"], draws[:, 0].astype(float), rtol=1e-6)
    assert frame["kind"].to_list() == draws[:, 3].tolist()
    assert frame["alive"].to_list() == (draws[:, 2].astype(float) > 0.5).tolist()
    for copy in (pickle.loads(pickle.dumps(again)), clone(again)):
        assert copy._container() == "polars"
    with pytest.raises(InputError, match="transform: 'numpy' is not known"):
        again.set_output(transform="numpy")


def test_imputed_rows_keep_their_cells_their_index_and_their_types(fitted):
    kind = pd.CategoricalDtype(["oak", "elm", "pine"])
    holes = pd.DataFrame(table(6).to_dict(as_series=False), index=list("abcdef")).astype(
        {"height": "float32", "rings": "Int16", "alive": "boolean", "kind": kind}
    )
    holes.loc["b", "rings"] = holes.loc["d", "alive"] = pd.NA
    holes.loc["c", "kind"] = None
    estimator = pickle.loads(pickle.dumps(fitted)).set_output(transform="pandas")
    filled = estimator.impute(holes[["kind", "alive", "rings", "height"]], key=0)
    assert filled.index.tolist() == list("abcdef")
    assert [str(dtype) for dtype in filled.dtypes] == ["float32", "int16", "bool", "category"]
    assert filled["kind"].cat.categories.tolist() == ["oak", "elm", "pine"]
    for name in holes:
        given = holes[name].notna()
        assert filled[name][given].to_list() == holes[name][given].to_list()
    assert isinstance(estimator.sample_given(holes, 2, key=0), np.ndarray)


def test_types_are_saved(fitted, tmp_path):
    fitted.save(tmp_path)
    again = tiltflow.load(tmp_path)
    assert dict(again.schema_.types) == dict(fitted.schema_.types)
    assert again.set_output(transform="polars").sample(3, key=0).schema == table().schema


def test_a_fit_to_arrow_has_the_rows_of_the_frame(monkeypatch):
    seen = []
    monkeypatch.setattr(BalancedEBM, "_fit", lambda self, rows, *_: seen.append(rows))
    fit(table())
    fit(OfArrow(table()))
    (first, second) = seen
    np.testing.assert_array_equal(first.training, second.training)
    assert first.schema.types == second.schema.types and len(first.schema.types) == 4


def test_tables_of_arrow_are_read_as_frames_are(fitted):
    frame = table()
    scores = fitted.score_samples(frame)
    np.testing.assert_array_equal(fitted.score_samples(OfArrow(frame)), scores)
    holes = frame[:4].with_columns(alive=pl.lit(None, pl.Boolean))
    given = fitted.impute(OfArrow(holes), key=0)
    np.testing.assert_array_equal(given, fitted.impute(holes, key=0))
    with pytest.raises(InputError, match="X: cannot be read as a table of Arrow"):
        fitted.score_samples(OfArrow(frame["height"]))


def test_tables_of_pyarrow(fitted):
    pyarrow = pytest.importorskip("pyarrow")
    frame = table()
    # Dictionaries of Arrow have no order that both know.
    whole = pyarrow.table(
        {name: pyarrow.array(frame[name].cast(pl.String) if name == "kind" else frame[name])
         for name in frame.columns}
    )  # fmt: skip
    scores = fitted.score_samples(frame)
    for given in (whole, whole.to_reader(max_chunksize=50), whole.combine_chunks().to_batches()[0]):
        np.testing.assert_array_equal(fitted.score_samples(given), scores)


@pytest.mark.parametrize("name", ["table.parquet", "table.arrow", "table.ndjson"])
def test_tables_of_files_have_the_types_of_their_files(name, tmp_path):
    frame = table().with_columns(pl.col("kind").cast(pl.String))
    write = {".parquet": "write_parquet", ".arrow": "write_ipc", ".ndjson": "write_ndjson"}
    getattr(frame, write[Path(name).suffix])(tmp_path / name)
    if name == "table.ndjson":  # JSON has numbers of one type
        frame = frame.cast({"height": pl.Float64, "rings": pl.Int64})
    assert load_table(tmp_path / name, {}, whole=True).schema == frame.schema
    assert open_stream(tmp_path / name).types == types_of(frame)


def test_whole_numbers_beyond_float64_stay_floats_and_holes_stay_holes(tmp_path):
    frame = pl.DataFrame({"far": [2**60, 1], "hole": [None, 3], "fine": [2**52, 1]})
    frame.write_parquet(tmp_path / "t.parquet")
    found = load_table(tmp_path / "t.parquet", {}, whole=True)
    assert found.schema == {"far": pl.Float64, "hole": pl.Int64, "fine": pl.Int64}
    assert found["hole"].to_list() == [None, 3]


def test_draws_in_files_have_the_types_of_the_fit(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    for out in ("draws.parquet", "draws.csv"):
        main(["sample", str(tmp_path / "run"), "--num-samples=50", "--out", str(tmp_path / out)])
    draws = pl.read_parquet(tmp_path / "draws.parquet")
    assert draws.schema == {**table().schema, "kind": pl.String}
    # Zeros and ones, which the booleans of the fit are as numbers.
    assert set(read_columns(tmp_path / "draws.csv")["alive"]) == {0.0, 1.0}
    fitted.score_samples(str(tmp_path / "draws.csv"))
