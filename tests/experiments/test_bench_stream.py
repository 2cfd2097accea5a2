"""The benchmark of large tables, with a small one; and its truth."""

import numpy as np
import polars
import pytest

from tiltflow.data.errors import InputError
from tiltflow.experiments import bench
from tiltflow.experiments.bench_stream import bench_stream, draw_rows, log_density, write_rows


def test_the_density_is_that_of_the_draws():
    """The mean of p(y) / p(x) over draws x is 1, y by a small move of volume 1; 4.5 errors."""
    (x, level), (other, _) = draw_rows(200_000, seed=0)
    assert x.shape == other.shape == (100_000, 9)
    at_x = log_density(x, level)
    for y, move in ((x + 0.05, level), (x, 2 - level), (x[:, [1, 0, *range(2, 9)]], level)):
        ratio = np.exp(log_density(y, move) - at_x)
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / len(ratio) ** 0.5
    assert set(level) == {0, 1, 2}


def test_rows_are_written_as_they_are_drawn(tmp_path):
    write_rows(tmp_path / "table.parquet", 150_000, 3)
    frame = polars.read_parquet(tmp_path / "table.parquet")
    assert frame.shape == (150_000, 10)
    x = np.concatenate([x for x, _ in draw_rows(150_000, 3)])
    np.testing.assert_array_equal(frame.drop("level").to_numpy(), x)
    assert set(frame["level"].unique()) == {"low", "middle", "high"}


def test_a_small_table_goes_the_same_way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = (
        "--preprocessing=standardise --base=gaussian --chains=32 --energy-width=4 "
        "--energy-depth=1 --local-steps=1 --max-steps=100 --quiet"
    )
    peak = bench_stream(seed=0, quiet=True, rows=2000, options=options, most_cells=1000)
    said = capsys.readouterr().out
    assert 0.2 < peak < 4
    assert f"fit: peak of resident memory {peak:.2f} GiB" in said
    assert "all rows looked at" in said and "energy" in said
    assert "lost against the truth" in said
    assert list(tmp_path.iterdir()) == []


def test_rows_are_of_those_that_make_a_table():
    with pytest.raises(InputError, match="99 is too few"):
        bench("stream", seed=0, quiet=True, rows=99)
    with pytest.raises(InputError, match="step makes no table"):
        bench("step", seed=0, quiet=True, rows=99)
