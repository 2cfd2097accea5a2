"""Rank plots are level for chains that have mixed, and are not for those that have not."""

import numpy as np
import pytest

from tiltflow.report.chain_figures import BINS, _ranks, draw_chains, rank_shares
from tiltflow.report.style import png_bytes

HALVES = ("started at rows", "started at draws")


def _draws(sweeps, chains, k, seed=0):
    return np.random.default_rng(seed).standard_normal((sweeps, chains, k))


def test_shares_of_ranks_are_level_and_their_errors_calibrated():
    """Over 200 replicates of 40 chains the z-scores of a bin have mean 0 and variance 1.

    4 standard errors: 0.28 for the mean, 0.4 for the variance.
    """
    scores = []
    for seed in range(200):
        ranks = np.random.default_rng(seed).random((30, 40))
        shares, errors = rank_shares(ranks)
        np.testing.assert_allclose(shares.mean(), 1.0)
        scores.append((shares[3] - 1) / errors[3])
    assert abs(np.mean(scores)) < 0.28
    assert abs(np.var(scores) - 1) < 0.45


def test_errors_count_chains_and_not_their_sweeps():
    """Chains that never move: the error is that of 40 draws, not of 1200."""
    place = np.random.default_rng(0).random((1, 40)).repeat(30, axis=0)
    _, errors = rank_shares(place)
    expected = BINS * np.sqrt(0.1 * 0.9 / 40)
    assert 0.5 * expected < errors.mean() < 1.5 * expected


def test_chains_from_another_start_have_other_ranks():
    draws = _draws(16, 40, 1)[..., 0]
    draws[:, 20:] += 1.0
    ranks = _ranks(draws)
    assert sorted(ranks.ravel()) == [i / ranks.size for i in range(ranks.size)]
    assert rank_shares(ranks[:, :20])[0][0] > 1.3 > 0.7 > rank_shares(ranks[:, 20:])[0][0]


def test_a_row_for_every_quantity():
    figure = draw_chains(_draws(12, 20, 3), ["log-density", "a $x$", "b\nc"], HALVES)
    assert len(figure.axes) == 9
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["log-density", "a $x$", "b c"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(HALVES)
    assert len(figure.axes[0].lines) == 9  # the median, and four chains of each half
    assert len(png_bytes(figure)) < 300_000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_draws_that_are_not_finite_are_left_out(bad):
    draws = _draws(6, 4, 2)
    draws[:, :, 0] = bad
    draws[2, 1, 1] = bad
    png_bytes(draw_chains(draws, ["a", "b"], HALVES))


def test_every_quantity_needs_a_name():
    with pytest.raises(ValueError, match="1 names for 2 quantities"):
        draw_chains(_draws(6, 4, 2), ["a"], HALVES)
