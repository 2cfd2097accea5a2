"""The tables of continuous flows: what is found, how many rows are taken, and a run of all five."""

import h5py
import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from tiltflow.data.errors import InputError
from tiltflow.data.flow_tables import Splits
from tiltflow.experiments import ffjord_tables, table_rivals
from tiltflow.experiments.cells import read_cells
from tiltflow.experiments.ffjord_tables import (
    Budget,
    capped,
    find_tables,
    published,
    reproduce_ffjord_tables,
)
from tiltflow.experiments.published_tables import TABLES, Network
from tiltflow.experiments.table_contest import figures_of
from tiltflow.experiments.table_rivals import fit_rival


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


@pytest.fixture
def standard_files(tmp_path, monkeypatch):
    """All five, of 200 rows, in the place of the real ones."""
    random = np.random.default_rng(0)
    for folder in ("power", "gas", "hepmass", "miniboone", "BSDS300"):
        (tmp_path / folder).mkdir()
    for name, columns in (("power/data", 8), ("gas/ethylene_CO", 19), ("miniboone/data", 43)):
        np.save(tmp_path / f"{name}.npy", random.normal(size=(200, columns)))
    for part, columns in (("train", 28), ("test", 29)):
        rows = random.normal(size=(200, columns))
        rows[:, 0] = np.arange(200) % 2
        pl.DataFrame(rows).write_csv(tmp_path / "hepmass" / f"1000_{part}.csv")
    with h5py.File(tmp_path / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for part in ("train", "validation", "test"):
            file[part] = random.normal(size=(60, 63))
    monkeypatch.setattr(ffjord_tables, "FOLDER", tmp_path)
    return tmp_path


def test_a_run_of_the_standard_files_is_judged_beside_what_is_published(
    standard_files, tmp_path, monkeypatch, capsys
):
    """Published networks made small; an exact normal, at once, stands for the balanced EBM.

    POWER is trained on; of the others the flow stays a standard normal, as training compiles long.
    """

    def fit_normal(rest, test, **_):
        figures = {"seconds": 0.01, "log_z_stderr": 0.0, "preprocessing": "standardise"}
        about = {"rows": len(rest), "columns": rest.shape[1], "base": "normal", "verdict": "none"}
        return figures_of(norm.logpdf(test).sum(axis=1)) | figures | about

    def fit_power_alone(key, rival, x, held_out, *, seconds):
        if x.shape[1] == 6:
            return fit_rival(key, rival, x, held_out, seconds=seconds)
        return rival.make(key, x, held_out), {"steps": 1, "best_step": 1, "seconds": seconds}

    networks = {name: Network("softplus", 1, 1, 1, 32) for name in TABLES}
    monkeypatch.setattr(ffjord_tables, "NETWORKS", networks)
    monkeypatch.setattr(ffjord_tables, "STANDARD", Budget(100, 30, None, judged=15))
    monkeypatch.setattr(ffjord_tables, "fit_balanced", fit_normal)
    monkeypatch.setattr(ffjord_tables, "fit_rival", fit_power_alone)
    monkeypatch.setattr(table_rivals, "ROWS_AT_ONCE", 20)
    out = tmp_path / "out"
    out.mkdir()
    reproduce_ffjord_tables(seeds=1, seed=0, quiet=True, out=out, methods=("ffjord", "gaussian"))
    printed = capsys.readouterr().out
    lines = {(line["case"], line["method"]): line["figures"] for line in read_cells(out)}
    assert len(lines) == 15
    for name in TABLES:
        normal, ffjord = lines[name, "balanced"], lines[name, "ffjord"]
        assert len(normal["scores"]) > 15 >= len(ffjord["scores"]) > 7
        # Standardised by the training rows alone, so by a hundred and no more.
        gaps = np.array(normal["scores"])[:: ffjord["every"]] - ffjord["scores"]
        assert ffjord["failed_rows"] == 0 and abs(gaps.mean()) < 3
        assert 1 <= ffjord["steps"] <= 25
    assert "judged on at most 15, spread evenly" in printed
    assert "157.40 ± 0.19" in printed and "of 5 tables, bar 4" in printed
