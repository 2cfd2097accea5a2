"""Sizes follow the rows, and those that are given stay."""

import pytest

from tiltflow import BalancedEBM
from tiltflow.training.sizes import Sizes, choose_sizes


@pytest.mark.parametrize(
    "rows, sizes",
    [
        (2, Sizes(256, 64, 3)),
        (200, Sizes(256, 64, 3)),
        (700, Sizes(512, 64, 3)),
        (1000, Sizes(1024, 128, 3)),
        (10_000_000, Sizes(1024, 128, 3)),
    ],
)
def test_sizes_follow_the_rows(rows, sizes):
    assert choose_sizes(rows) == sizes


def test_what_is_given_stays():
    given = {"chains": 7, "energy_width": 5, "energy_depth": 1}
    assert choose_sizes(10_000, **given) == Sizes(**given)
    assert choose_sizes(200, energy_width=5) == Sizes(256, 5, 3)


def test_an_estimator_says_its_sizes_and_keeps_its_arguments():
    x = [[float(i % 7), float(i % 5)] for i in range(60)]
    model = BalancedEBM(
        base="gaussian", energy_width=8, energy_depth=1, max_steps=1, local_steps=1, random_state=0
    ).fit(x)
    assert (model.chains_, model.energy_width_, model.energy_depth_) == (256, 8, 1)
    assert model.get_params()["chains"] is None
