"""The way to ArviZ; ArviZ itself need not be installed."""

import sys
import types

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.evaluation.inference_data import to_inference_data

DRAWS = np.arange(24.0).reshape(4, 3, 2)


@pytest.fixture
def stand_in(monkeypatch):
    """A module in ArviZ's place that returns what it is given."""
    module = types.ModuleType("arviz")
    module.from_dict = lambda **groups: groups
    monkeypatch.setitem(sys.modules, "arviz", module)


def test_every_coordinate_is_a_variable_with_chains_first(stand_in):
    data = to_inference_data(DRAWS, ["x", "y"], log_density=DRAWS[:, :, 0])
    np.testing.assert_array_equal(data["posterior"]["y"], DRAWS[:, :, 1].T)
    np.testing.assert_array_equal(data["sample_stats"]["lp"], DRAWS[:, :, 0].T)
    assert to_inference_data(DRAWS, ["x", "y"])["sample_stats"] is None


@pytest.mark.parametrize("names", [["x"], ["x", "x"], ["x", "y", "z"]])
def test_names_that_do_not_fit_are_refused(names):
    with pytest.raises(InputError, match="names: found"):
        to_inference_data(DRAWS, names)


def test_without_arviz_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pip install 'tiltflow\[arviz\]'"):
        to_inference_data(DRAWS, ["x", "y"])


def test_arviz_reads_it():
    pytest.importorskip("arviz")
    data = to_inference_data(DRAWS, ["x", "y"], log_density=DRAWS[:, :, 0])
    assert dict(data.posterior.sizes) == {"chain": 3, "draw": 4}
    np.testing.assert_array_equal(data.posterior["x"], DRAWS[:, :, 0].T)
    np.testing.assert_array_equal(data.sample_stats["lp"], DRAWS[:, :, 0].T)
