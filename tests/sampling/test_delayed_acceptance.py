"""Chains that a continuous flow moves: which uses of a noisy trace leave the target alone.

Chains start from exact draws of N(0, I) in the plane and every first and second moment must stay,
at 4 standard errors; what is not exact must be refused at more than 8.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal, Transformed

from tiltflow.data.errors import InputError
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.continuous import ContinuousFlow, with_fixed_noise
from tiltflow.models.integration import Integration
from tiltflow.sampling.chains import Chains
from tiltflow.sampling.delayed_acceptance import delayed_acceptance
from tiltflow.sampling.independent import (
    Proposals,
    check_proposal_is_deterministic,
    independent_metropolis_hastings,
)

CHAINS, STEPS = 8000, 6


class Shear(eqx.Module):
    """f = (x_2^2, 0): its trace is zero, and Hutchinson's estimate of it 2 x_2 e_1 e_2."""

    dimension: int = 2
    width: int = 2

    def enter(self, t, x):
        return x

    def leave(self, t, hidden):
        return jnp.stack([hidden[1] ** 2, 0 * hidden[1]])

    def __call__(self, t, x):
        return self.leave(t, x)


@pytest.fixture(scope="module")
def flow():
    """A banana-shaped flow on a standard normal."""
    bijection = ContinuousFlow(Shear(), integration=Integration(steps=1), end_time=0.3)
    return Transformed(StandardNormal((2,)), bijection)


def chains_at(x):
    return Chains(x, StandardNormal((2,)).log_prob(x), -x)


@eqx.filter_jit
def run(kind, flow, key):
    """Chains after some steps of one kind, from exact draws."""
    noise = with_fixed_noise(flow, jax.random.key(7), "rademacher").bijection.probes.tree

    def exact(x):
        return batch_likelihood(flow, x).log_prob

    def estimate(key, x):
        if kind == "attached":
            return batch_likelihood(flow, x, key, trace="rademacher").log_prob
        end = flow.bijection.solve(x, noise, "base").end
        return flow.base_dist.log_prob(end.x) + end.log_det

    def step(state, key):
        chains, noisy = state
        draw_key, noise_key, move_key = jax.random.split(key, 3)
        z = jax.random.normal(draw_key, (CHAINS, 2))
        y = flow.bijection.solve(z, None, "data").end.x
        new, proposed = chains_at(y), estimate(noise_key, y)
        if kind == "delayed":
            proposals = Proposals(new, exact(y))
            moved, accepted, rate = delayed_acceptance(
                move_key, chains, noisy, exact(chains.position), proposals, proposed
            )
        elif kind == "exact":
            moved, accepted, rate = independent_metropolis_hastings(
                move_key, chains, exact(chains.position), Proposals(new, exact(y))
            )
        else:
            moved, accepted, rate = independent_metropolis_hastings(
                move_key, chains, noisy, Proposals(new, proposed)
            )
        return (moved, jnp.where(accepted, proposed, noisy)), rate

    start_key, noise_key, run_key = jax.random.split(key, 3)
    x = jax.random.normal(start_key, (CHAINS, 2))
    start = (chains_at(x), estimate(noise_key, x))
    (chains, _), rates = jax.lax.scan(step, start, jax.random.split(run_key, STEPS))
    return chains.position, rates.mean()


def worst_error(x):
    """Standard errors of the worst moment of N(0, I)."""
    x = np.asarray(x, float)
    moments = np.stack([x[:, 0], x[:, 1], x[:, 0] ** 2 - 1, x[:, 1] ** 2 - 1, x[:, 0] * x[:, 1]])
    return (np.abs(moments.mean(1)) / (moments.std(1) / len(x) ** 0.5)).max()


@pytest.mark.parametrize("kind", ["exact", "delayed"])
def test_these_leave_the_target_alone(kind, flow):
    positions, rate = run(kind, flow, jax.random.key(2))
    assert worst_error(positions) < 4
    assert rate > 0.2


@pytest.mark.parametrize("kind", ["fixed", "attached"])
def test_these_do_not(kind, flow):
    """Mutants: log q estimated by noise that is the same for all, or that every point keeps."""
    positions, rate = run(kind, flow, jax.random.key(2))
    assert rate > 0.2
    assert worst_error(positions) > 8


def offer(log_density, estimate, log_prob, new_log_density, new_estimate, new_log_prob, n=4000):
    def chains(value, at):
        return Chains(jnp.full((n, 2), at), jnp.full(n, value), jnp.full((n, 2), at))

    return delayed_acceptance(
        jax.random.key(0),
        chains(log_density, 0.0),
        jnp.full(n, estimate),
        jnp.full(n, log_prob),
        Proposals(chains(new_log_density, 1.0), jnp.full(n, new_log_prob)),
        jnp.full(n, new_estimate),
    )


def test_both_stages_by_hand():
    """Stage one loses 0.5 nats and stage two 0.3: binomial, 4.5 standard errors."""
    moved, accepted, rate = offer(1.0, 0.0, 0.2, 0.3, -0.2, 0.3)
    expected = np.exp(-0.5 - 0.3)
    assert float(rate) == pytest.approx(expected, rel=1e-5)
    spread = (expected * (1 - expected) / 4000) ** 0.5
    assert abs(float(accepted.mean()) - expected) < 4.5 * spread
    np.testing.assert_array_equal(moved.position[:, 0], accepted)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_what_is_not_finite_is_refused_and_does_not_freeze(bad):
    assert not offer(0.0, 0.0, 0.0, 0.0, 0.0, bad)[1].any()
    assert not offer(0.0, 0.0, 0.0, bad, 0.0, 0.0)[1].any()
    assert offer(bad, 0.0, 0.0, 0.0, 0.0, 0.0)[1].all()
    assert offer(0.0, 0.0, bad, 0.0, 0.0, 0.0)[1].all()


def test_a_flow_with_fixed_noise_is_refused_as_a_proposal(flow):
    """It passes for a deterministic one, and draws and densities still disagree."""
    x = jax.random.normal(jax.random.key(0), (8, 2))
    check_proposal_is_deterministic(flow, jax.random.key(1), x)
    noisy = with_fixed_noise(flow, jax.random.key(7), "rademacher")
    with pytest.raises(InputError, match="with_exact_trace"):
        check_proposal_is_deterministic(noisy, jax.random.key(1), x)
