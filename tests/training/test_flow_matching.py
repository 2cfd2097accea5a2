"""Flow matching: the loss's minimum known in closed form, learning, flows it cannot train."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal

from tiltflow.data.errors import InputError
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.continuous import ContinuousFlow, continuous_flow
from tiltflow.training.flow_matching import FlowMatching
from tiltflow.training.maximum_likelihood import fit_flow

MEAN, DEVIATION = 1.5, 0.5


def rows(seed, n):
    return jnp.asarray(np.random.default_rng(seed).normal(MEAN, DEVIATION, (n, 2)), jnp.float32)


class Best(eqx.Module):
    """The minimiser from N(0, 1) to N(m, d^2), at speed for an end time of 1.

    E[x - z | z + s (x - z) = y] = m + (s d^2 - (1 - s)) (y - s m) / ((1 - s)^2 + s^2 d^2)
    """

    error: float = 0.0
    dimension: int = 2
    width: int = 2

    def enter(self, t, x):
        return x

    def leave(self, t, hidden):
        variance = (1 - t) ** 2 + t**2 * DEVIATION**2
        slope = (t * DEVIATION**2 - (1 - t)) / variance
        return MEAN + slope * (hidden - t * MEAN) + self.error

    def __call__(self, t, x):
        return self.leave(t, x)


def flow_of(error=0.0, end_time=1.0):
    start = continuous_flow(jax.random.key(0), StandardNormal((2,)), widths=(4,))
    bijection = ContinuousFlow(Best(error), end_time=end_time)
    return eqx.tree_at(lambda flow: flow.bijection, start, bijection)


def loss(flow):
    """Of 20 000 rows; the same noise for every flow."""
    return float(FlowMatching().loss(jax.random.key(1), flow, rows(0, 20_000))[0])


def test_the_best_field_has_the_least_loss_and_the_datas_density():
    """A constant error e adds 2 e^2, and its cross term is within 4.5 standard errors of zero.

    Mutant: the end time left out of the speed.
    """
    least = loss(flow_of())
    spread = least**0.5 / 20_000**0.5 * 2
    for error in (0.1, -0.1, 0.3):
        assert abs(loss(flow_of(error)) - least - 2 * error**2) < 4.5 * 2 * abs(error) * spread
    assert loss(flow_of(end_time=0.5)) > least + 0.1
    x = rows(1, 6)
    expected = -((((x - MEAN) / DEVIATION) ** 2) / 2 + np.log(DEVIATION * np.sqrt(2 * np.pi))).sum(
        1
    )
    np.testing.assert_allclose(batch_likelihood(flow_of(), x).log_prob, expected, atol=1e-3)


def test_it_learns_a_normal():
    x, held_out = rows(2, 512), rows(3, 128)
    reports = []
    start = continuous_flow(jax.random.key(0), StandardNormal((2,)), widths=(16, 16))
    fit = fit_flow(
        jax.random.key(1),
        start,
        x,
        held_out,
        objective=FlowMatching(),
        learning_rate=0.02,
        batch_size=128,
        max_steps=600,
        chunk=200,
        on_report=reports.append,
    )
    z = (held_out - MEAN) / DEVIATION
    truth = float(-(z**2 / 2 + np.log(DEVIATION * np.sqrt(2 * np.pi))).sum(1).mean())
    assert fit.held_out_log_likelihood > truth - 0.1
    assert fit.skipped == 0
    assert reports[-1]["flow_matching_loss"] < reports[0]["flow_matching_loss"]


def test_a_stack_is_refused():
    stack = continuous_flow(jax.random.key(0), StandardNormal((2,)), widths=(4,), batch_norm=True)
    with pytest.raises(InputError, match="ContinuousFlow, BatchNorm"):
        FlowMatching().loss(jax.random.key(0), stack, rows(0, 4))
