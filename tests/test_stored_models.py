"""Models and flows written by earlier versions still load, and mean what they meant.

`format_3_early` is from before there were categories and bounded proposals. All others are from
`write_stored_models.py`, which writes those of a version that are not there yet.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.models.files import FORMAT_VERSION
from tiltflow.models.flow_files import load_flow, save_flow

HERE = Path(__file__).parent
MODELS, FLOWS = (sorted((HERE / f"stored_{kind}").iterdir()) for kind in ("models", "flows"))


def near(found, expected, atol):
    """Whether each cell is text that is the same, or a number about as large."""
    return np.array(
        [
            [
                one == other if isinstance(other, str) else np.isclose(float(one), other, atol=atol)
                for one, other in zip(*rows)
            ]
            for rows in zip(found, expected)
        ]
    )


def test_there_are_samples_of_todays_format():
    names = {path.name for path in (*MODELS, *FLOWS)}
    kinds = ("mixture", "flow", "flows", "coupled", "continuous")
    assert names >= {f"format_{FORMAT_VERSION}_{kind}" for kind in kinds}
    for path in (*MODELS, *FLOWS):
        config = json.loads((path / "config.json").read_text())
        assert path.name.startswith(f"format_{config['format_version']}_")


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_stored_models(folder, tmp_path):
    expected = json.loads((folder / "expected.json").read_text())
    estimator = tiltflow.load(folder)
    rows = np.array(expected["rows"], object if estimator.levels_ else float)
    log_prob = estimator.score_samples(rows)
    np.testing.assert_allclose(log_prob, expected["log_prob"], atol=1e-4)
    # Another processor rounds otherwise, and a chain may then go another way; most do not.
    draws = estimator.sample(3, key=0)
    assert near(draws, expected["samples"], 1e-2).all(axis=1).any()
    estimator.save(tmp_path)
    again = tiltflow.load(tmp_path)
    np.testing.assert_array_equal(again.sample(3, key=0), draws)
    np.testing.assert_array_equal(again.score_samples(rows), log_prob)
    assert again.schema_.types == estimator.schema_.types
    # None of these says whether its columns had names; those of arrays are told by what they are.
    assert again.schema_.named is estimator.schema_.named is (estimator.schema_.columns[0] != "x0")
    # The oldest do not say how many rows they were fitted to.
    told = estimator.mode_weights().population_intervals is not None
    assert told == (estimator.independent_rows_ is not None)
    assert again.independent_rows_ == estimator.independent_rows_
    assert (again.predict(rows) == 1).sum() >= 4


def test_declared_columns_of_an_index_are_saved(tmp_path):
    estimator = tiltflow.load(HERE / "stored_models" / "format_3_early")
    estimator.set_params(categorical_features=pd.Index(["x1"])).save(tmp_path)
    assert tiltflow.load(tmp_path).categorical_features == ["x1"]


def test_types_of_columns_are_stored():
    estimator = tiltflow.load(HERE / "stored_models" / "format_3_mixture")
    frame = estimator.set_output(transform="polars").sample(2, key=0)
    assert list(map(str, frame.dtypes)) == [
        "Float32", "Enum(categories=['oak', 'elm', 'pine'])"
    ]  # fmt: skip


def test_a_file_to_score_is_blamed_by_its_name(tmp_path):
    estimator = tiltflow.load(HERE / "stored_models" / "format_3_flow")
    path = tmp_path / "new.csv"
    path.write_text("x0,x1\n3,red\n")
    for method in (estimator.score_samples, estimator.impute):
        with pytest.raises(InputError, match=r"^\S*new\.csv: row 1, column 'x1' holds 'red'"):
            method(str(path))


@pytest.mark.parametrize("folder", FLOWS, ids=lambda folder: folder.name)
def test_stored_flows(folder, tmp_path):
    expected = json.loads((folder / "expected.json").read_text())
    flow, architecture = load_flow(folder)
    rows = jnp.asarray(expected["rows"])
    np.testing.assert_allclose(flow.log_prob(rows), expected["log_prob"], atol=1e-4)
    save_flow(tmp_path, architecture, flow)
    again, _ = load_flow(tmp_path)
    np.testing.assert_array_equal(again.log_prob(rows), flow.log_prob(rows))
