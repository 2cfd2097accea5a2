"""The narrowest variance is that of the narrowest mode, in units of the data's deviations."""

import numpy as np
import pytest

from tiltflow.data.mixtures import gaussian_mixture, two_modes
from tiltflow.data.targets import Rings
from tiltflow.experiments.narrowest import narrowest_variance


def test_of_two_modes_it_is_theirs():
    # Variance of a coordinate: .05 within, 2/3 (2/3)^2 + 1/3 (4/3)^2 = 8/9 between the modes.
    assert narrowest_variance(two_modes()) == pytest.approx(0.05 / (0.05 + 8 / 9), rel=0.03)


def test_a_rare_mode_that_is_narrow_in_one_direction_decides():
    covariances = np.stack([np.eye(2), np.diag([1.0, 0.01])])
    target = gaussian_mixture(
        np.array([[-20.0, 0.0], [20.0, 0.0]]), covariances, np.array([0.95, 0.05])
    )
    assert narrowest_variance(target) == pytest.approx(0.01 / (0.95 + 0.05 * 0.01), rel=0.05)


def test_of_rings_it_is_that_of_the_radius():
    # The mean square of a coordinate is half of that of the radius, (1 + 4 + 9 + 16) / 4 + .15^2.
    assert narrowest_variance(Rings()) == pytest.approx(0.15**2 / 3.761, rel=0.05)
