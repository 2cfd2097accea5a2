"""A smoothed density is the convolution: known for a normal, and normalised."""

import numpy as np
import pytest
from scipy.stats import norm

from tiltflow.data.errors import InputError
from tiltflow.evaluation.smoothed import BATCH, smoothed_log_density


def draws_of(widths, number=20_000):
    return np.random.default_rng(0).normal(size=(number, len(widths))) * widths


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_normal_becomes_a_wider_one(scale):
    """In units far apart, at the mean and two standard deviations off; 20 000 draws: 3 %."""
    widths = np.array([1e-3, 10.0])
    x = np.array([[0.0, 0.0], [2e-3, 0.0], [2e-3, -20.0]])
    found = smoothed_log_density(draws_of(widths), x, widths, scale)
    exact = norm.logpdf(x, scale=widths * np.sqrt(1 + scale**2)).sum(axis=1)
    np.testing.assert_allclose(found, exact, atol=0.03)
    # The mutant that forgets the density's own width is off by far more.
    narrow = norm.logpdf(x, scale=widths * scale).sum(axis=1)
    assert np.abs(found - narrow).max() > 0.3


def test_its_mass_is_one_and_rows_do_not_depend_on_their_company():
    draws = draws_of([1.0], 500)
    x = np.linspace(-12, 12, BATCH + 501)[:, None]
    one = np.ones(1)
    found = smoothed_log_density(draws, x, one, 0.7)
    assert np.trapezoid(np.exp(found), x[:, 0]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        smoothed_log_density(draws, x[-3:], one, 0.7), found[-3:], rtol=1e-12
    )


def test_far_rows_and_constant_draws_have_a_finite_log_density():
    draws = np.stack([np.full(50, 3.0), np.arange(50.0)], axis=1)
    x = np.array([[3.0, 25.0], [4.0, 1e6]])
    found = smoothed_log_density(draws, x, draws.std(axis=0), 1.0)
    assert np.isfinite(found).all() and found[0] > found[1]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_no_width_is_refused(scale):
    with pytest.raises(InputError, match=r"^scale: .* give a number above 0"):
        smoothed_log_density(draws_of([1.0], 5), np.zeros((1, 1)), np.ones(1), scale)
