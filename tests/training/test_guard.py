"""The guard names the first quantity that ran away, and where."""

import numpy as np
import pytest

from tiltflow.training.guard import (
    LOWEST_LOCAL_ACCEPTANCE_RATE,
    Runaway,
    find_runaway,
    largest_energy_gap,
)


def trace(**changes):
    """Ten healthy steps, with the values of `changes` {name: {index: value}} put in."""
    healthy = {
        "energy_gap": np.zeros(10),
        "gradient_norm": np.ones(10),
        "local_acceptance_rate": np.full(10, 0.5),
    }
    for name, values in changes.items():
        for index, value in values.items():
            healthy[name][index] = value
    return healthy


def test_healthy_steps_pass():
    limit = largest_energy_gap(2)
    edge = trace(energy_gap={3: limit, 4: -limit}, local_acceptance_rate={5: 0.0})
    assert find_runaway(trace(), 0, 2) is None
    assert find_runaway(edge, 0, 2) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("quantity", ["energy_gap", "gradient_norm", "local_acceptance_rate"])
def test_what_is_not_finite_is_found(quantity, bad):
    found = find_runaway(trace(**{quantity: {7: bad, 9: bad}}), 300, 2)
    assert found is not None
    assert (found.quantity, found.step) == (quantity, 307)
    np.testing.assert_equal(found.value, bad)


def test_the_first_step_wins_over_the_first_name():
    found = find_runaway(trace(energy_gap={6: np.nan}, gradient_norm={4: np.nan}), 0, 2)
    assert found is not None
    assert (found.quantity, found.step) == ("gradient_norm", 4)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_large_energy_gap_is_found_by_dimension(sign):
    gap = sign * (largest_energy_gap(2) + 1)
    assert find_runaway(trace(energy_gap={2: gap}), 0, 2) == Runaway("energy_gap", 2, gap)
    assert find_runaway(trace(energy_gap={2: gap}), 0, 64) is None


def test_stuck_chains_are_found_by_their_mean():
    low = LOWEST_LOCAL_ACCEPTANCE_RATE / 2
    stuck = trace(local_acceptance_rate=dict.fromkeys(range(1, 10), low))
    stuck["local_acceptance_rate"][0] = 2 * low
    found = find_runaway(stuck, 50, 2)
    assert found == Runaway("local_acceptance_rate", 51, low)


def test_it_reads_as_a_reason():
    assert str(Runaway("energy_gap", 412, 1234567.0)) == "energy_gap was 1.235e+06 at step 412"
