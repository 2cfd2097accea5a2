"""The tables of continuous flows: what is found, and how many rows of it are taken."""

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.flow_tables import Splits
from tiltflow.experiments import ffjord_tables
from tiltflow.experiments.ffjord_tables import Budget, capped, find_tables, published


def test_standard_files_come_before_stand_ins(tmp_path, monkeypatch):
    monkeypatch.setattr(ffjord_tables, "FOLDER", tmp_path / "tabular")
    (tmp_path / "tabular").mkdir()
    with pytest.raises(InputError, match="TILTFLOW_DATA"):
        find_tables()
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "bike_centred.csv.gz").touch()
    standard, found = find_tables()
    assert not standard and list(found) == ["bike"]
    (tmp_path / "miniboone").mkdir()
    standard, found = find_tables()
    assert standard and list(found) == ["MINIBOONE"]
    assert "-10.43 ± 0.04" in published(["MINIBOONE"])


def test_rows_are_capped_and_test_rows_do_not_follow_the_seed():
    rows = np.arange(40.0)[:, None]
    splits = Splits(rows, rows, rows)
    one, two = (capped(splits, Budget(10, 5, 7), seed) for seed in (0, 1))
    assert [len(part) for part in one] == [10, 5, 7]
    assert (one.train != two.train).any()
    np.testing.assert_array_equal(one.test, two.test)
