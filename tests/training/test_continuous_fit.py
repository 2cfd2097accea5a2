"""Fits of continuous flows: learning, fresh noise, regularisers, skipped steps, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.batch_norm import running_statistics
from tiltflow.models.continuous import continuous_flow, continuous_flows
from tiltflow.models.integration import Integration
from tiltflow.training.continuous_fit import ContinuousLikelihood, fit_continuous_flow

MEAN, DEVIATION = np.array([1.0, -1.0]), np.array([0.5, 2.0])
FEW = Integration(steps=3)


def rows(seed, n):
    return jnp.asarray(np.random.default_rng(seed).normal(MEAN, DEVIATION, (n, 2)), jnp.float32)


def new_flow(**options):
    options = {"widths": (8,), "integration": FEW} | options
    return continuous_flow(jax.random.key(0), StandardNormal((2,)), **options)


def moving_flow():
    """A flow whose field is not zero."""
    weight = jax.random.normal(jax.random.key(1), (2, 8))
    return eqx.tree_at(
        lambda flow: continuous_flows(flow)[0].field.layers[-1].linear.weight, new_flow(), weight
    )


def fit(flow, x, **options):
    reports = []
    options = {"max_steps": 120, "chunk": 40, "batch_size": 64, "learning_rate": 0.05} | options
    result = fit_continuous_flow(
        jax.random.key(1), flow, x, rows(9, 128), on_report=reports.append, **options
    )
    return result, reports


@pytest.fixture(scope="module")
def fitted():
    """Two flows with batch norm between; every tenth row is missing a number."""
    x = rows(0, 512).at[::100, 0].set(jnp.nan)
    return fit(new_flow(flows=2, batch_norm=True), x[1:])


def test_it_learns_and_reports(fitted):
    result, reports = fitted
    z = (np.asarray(rows(9, 128)) - MEAN) / DEVIATION
    truth = -(z**2 / 2 + np.log(DEVIATION * np.sqrt(2 * np.pi))).sum(1).mean()
    assert result.held_out_log_likelihood > truth - 0.15
    # Three equal steps of each flow, six calls a step and the first.
    assert all(report["evaluations"] == 2 * 19 for report in reports)
    assert all(each.log_end_time != np.log(0.5) for each in continuous_flows(result.flow))


def test_steps_that_fail_are_skipped_and_counted(fitted):
    result, reports = fitted
    assert 0 < result.skipped < 120
    assert sum(report.get("skipped_steps", 0) for report in reports) == result.skipped
    assert all(
        np.isfinite(each).all() for each in jax.tree.leaves(eqx.filter(result.flow, eqx.is_array))
    )


def test_running_statistics_follow_the_data(fitted):
    result, _ = fitted
    last = running_statistics(result.flow)[-1]
    np.testing.assert_allclose(last.mean.tree, MEAN, atol=0.6)
    np.testing.assert_allclose(jnp.sqrt(last.variance.tree), DEVIATION, rtol=0.3)


def test_noise_is_fresh_for_every_step_and_point():
    """Two keys differ, and so do equal points of a batch; the exact trace takes no key."""
    flow, x = moving_flow(), jnp.ones((4, 2))
    value = eqx.filter_jit(batch_likelihood)
    one, two = (value(flow, x, jax.random.key(i), trace="gaussian").log_prob for i in (0, 1))
    assert len(np.unique(np.concatenate([one, two]))) == 8
    np.testing.assert_array_equal(*(value(flow, x).log_prob for _ in range(2)))


def test_regularisers_are_added_with_their_weights():
    """To the loss of the same noise; both are figures, and both of a field that moves are > 0."""
    flow = moving_flow()
    objective = ContinuousLikelihood(kinetic_energy=2.0, jacobian_norm=3.0)
    value = eqx.filter_jit(lambda objective, *args: objective.loss(*args))
    key, x = jax.random.key(0), rows(0, 4)
    total, (_, figures) = value(objective, key, flow, x)
    plain, (_, plain_figures) = value(ContinuousLikelihood(), key, flow, x)
    assert plain_figures.keys() == {"evaluations"}
    added = 2 * figures["kinetic_energy"] + 3 * figures["jacobian_norm"]
    assert float(total - plain) == pytest.approx(float(added), rel=1e-4)
    assert min(figures.values()) > 0.002


def test_a_start_that_cannot_be_integrated_is_refused():
    flow = new_flow(integration=Integration(max_steps=1))
    with pytest.raises(InputError, match="did not arrive in 1 steps"):
        fit(flow, rows(0, 64))


def test_a_chunk_of_skipped_steps_ends_in_the_reason():
    """Rows on which every batch fails, though the start was checked on the first of them."""
    x = rows(0, 511).at[64:, 0].set(jnp.nan)
    with pytest.raises(InputError, match="not finite at row 65"):
        fit(new_flow(flows=2, batch_norm=True), x)


def test_weights_out_of_range_are_refused():
    for wrong in ({"kinetic_energy": -1.0}, {"jacobian_norm": float("nan")}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ContinuousLikelihood(**wrong)
