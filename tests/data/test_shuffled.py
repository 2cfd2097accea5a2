"""Rows on the disk: all of them, each once, in an order that is uniform."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

import tiltflow.data.shuffled
from tiltflow.data.errors import InputError
from tiltflow.data.shuffled import shuffle


@pytest.fixture(autouse=True)
def _small_heaps(monkeypatch):
    monkeypatch.setattr(tiltflow.data.shuffled, "HEAP_BYTES", 8 * 3 * 7)


def batches(rows, size=4):
    return np.split(np.arange(3.0 * rows).reshape(rows, 3), range(size, rows, size))


def test_every_row_is_there_once_and_a_stretch_of_them_is_read(tmp_path):
    with shuffle(np.random.default_rng(0), batches(50), 50, 3, tmp_path) as rows:
        assert list(tmp_path.iterdir()) == []  # nothing that a killed process would leave
        whole = rows.read(0, 50)
        np.testing.assert_array_equal(rows.read(13, 20), whole[13:33])
    assert (np.sort(whole[:, 0]) == 3 * np.arange(50)).all()
    np.testing.assert_array_equal(whole, whole[:, :1] + np.arange(3))
    # The system's folder will do, and the same seed gives the same order.
    with shuffle(np.random.default_rng(0), batches(50), 50, 3, None) as rows:
        np.testing.assert_array_equal(rows.read(0, 50), whole)


def test_every_order_is_equally_likely():
    """4 rows in 2 heaps: all 24 orders, of 1200; chi-square at 1e-3."""
    generator, seen = np.random.default_rng(0), {}
    for _ in range(1200):
        with shuffle(generator, np.split(np.arange(12.0).reshape(4, 3), 2), 4, 3, None) as rows:
            order = tuple(rows.read(0, 4)[:, 0])
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    assert chisquare(list(seen.values())).pvalue > 1e-3


def test_what_cannot_be_kept_is_refused(tmp_path, monkeypatch):
    with (
        pytest.raises(InputError, match="has changed while it was read"),
        shuffle(np.random.default_rng(0), batches(50), 51, 3, tmp_path),
    ):
        pass
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(tiltflow.data.shuffled.shutil, "disk_usage", lambda _: full)
    with (
        pytest.raises(InputError, match=r"the rows take 0.0 GB .* make room"),
        shuffle(np.random.default_rng(0), batches(50), 50, 3, Path(tmp_path)),
    ):
        pass
