"""Models written by earlier versions still load, and mean what they meant."""

import json
from pathlib import Path

import numpy as np
import pytest

import tiltflow

STORED = sorted((Path(__file__).parent / "stored_models").iterdir())


@pytest.mark.parametrize("folder", STORED, ids=lambda folder: folder.name)
def test_stored_models(folder, tmp_path):
    """`format_1` is from before there were categories and bounded proposals."""
    expected = json.loads((folder / "expected.json").read_text())
    estimator = tiltflow.load(folder)
    log_prob = estimator.score_samples(np.array(expected["rows"]))
    np.testing.assert_allclose(log_prob, expected["log_prob"], atol=1e-4)
    # Another processor rounds otherwise, and a chain may then go another way; most do not.
    draws = estimator.sample(3, key=0)
    assert np.isclose(draws, expected["samples"], atol=1e-2).all(axis=1).any()
    estimator.save(tmp_path)
    again = tiltflow.load(tmp_path)
    np.testing.assert_array_equal(again.sample(3, key=0), draws)
    assert (again.predict(np.array(expected["rows"])) == 1).sum() >= 4
