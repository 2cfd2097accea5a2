"""Sweeps of a ladder of models: exact at the last level, and they cross where a flow cannot.

As for all kernels: 8192 chains start from exact draws at every level, and moments over the chains'
way stay within 4 standard errors; a mutant must exceed 8.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling import ladder as module
from tiltflow.sampling.chains import LogDensity
from tiltflow.sampling.ladder import ladder_sweeps, record_ladder
from tiltflow.sampling.recording import frozen_sweeps
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.sampling.tempering import refresh_ladder, stack_levels, swap_neighbours

CHAINS = 8192
KERNEL = FrozenKernel("mala", 1, jnp.asarray(0.15))


def two(scale, weight=0.7, apart=1.5):
    """Modes at -1.5 and 1.5, of one width."""
    return GaussianMixture(
        np.array([weight, 1 - weight]),
        np.array([[-apart], [apart]]),
        np.full((2, 1, 1), scale**2),
    )


MODELS = [two(1.5, 0.5), two(0.9, 0.6), two(0.5)]
LEVELS = stack_levels([model.log_prob for model in MODELS])
FLOW = two(0.8, 0.4)
MOMENTS = np.array([1.5 * (1 - 2 * 0.7), 1.5**2 + 0.5**2])


def moments_of_the_last_level(key, sweeps):
    start_key, run_key = jax.random.split(key)
    keys = jax.random.split(start_key, 3)
    start = jnp.stack([m.sample(k, (CHAINS,)) for k, m in zip(keys, MODELS)])
    ends, recording = record_ladder(run_key, LEVELS, FLOW, start, KERNEL, sweeps)
    x = np.asarray(recording.position, float)[1:, :, 0]
    return np.stack([x, x**2], -1).mean(0), ends, recording


def z_of(moments):
    return np.abs((moments.mean(0) - MOMENTS) / (moments.std(0) / CHAINS**0.5)).max()


def test_the_last_level_stays_at_its_target(key):
    moments, ends, recording = moments_of_the_last_level(key, 8)
    assert z_of(moments) < 4
    assert ends.shape == (3, CHAINS, 1)
    # What is recorded is the last level's: its log-density and its log ratio to the flow.
    x = recording.position[3]
    expected = jax.vmap(MODELS[-1].log_prob)(x)
    np.testing.assert_allclose(recording.log_density[3], expected, rtol=1e-4, atol=1e-4)
    log_ratio = expected - FLOW.log_prob(x)
    np.testing.assert_allclose(recording.log_ratio[3], log_ratio, rtol=1e-3, atol=1e-3)


class Negated(eqx.Module):
    """Minus a log-density: the ratio of a swap is then the inverse."""

    log_density: LogDensity

    def __call__(self, x):
        return -self.log_density(x)


def reversed_ratio(key, ladder, levels):
    turned = ladder._replace(log_density=-ladder.log_density)
    turned, rates = swap_neighbours(key, turned, Negated(levels))
    return refresh_ladder(turned.position, levels), rates


def always_swapped(key, ladder, levels):
    return refresh_ladder(ladder.position[jnp.asarray([0, 2, 1])], levels), jnp.zeros(2)


@pytest.mark.parametrize("mutant", [reversed_ratio, always_swapped])
def test_mutants_of_the_swaps_are_caught(key, monkeypatch, mutant):
    monkeypatch.setattr(module, "swap_neighbours", mutant)
    # Another number of sweeps, so that it is traced again.
    moments, _, _ = moments_of_the_last_level(key, 9)
    assert z_of(moments) > 8


def test_it_crosses_where_a_flow_that_misses_a_mode_cannot(key):
    """All 512 chains start in the mode of .3, the only one that the flow knows.

    The share of the other one is .7 within 4.5 standard errors of independent chains.
    """
    models = [two(scale, 0.7, 3.0) for scale in (3.0, 1.6, 0.9, 0.5)]
    levels, target = stack_levels([model.log_prob for model in models]), models[-1]
    flow = GaussianMixture(np.ones(1), np.full((1, 1), 3.0), np.full((1, 1, 1), 0.25))
    kernel = KERNEL._replace(local_steps=5)
    start = jnp.full((512, 1), 3.0)
    shares = []
    for sweeps in (
        frozen_sweeps(target.log_prob, flow, start, kernel),
        ladder_sweeps(levels, flow, jnp.broadcast_to(start, (4, 512, 1)), kernel),
    ):
        state = sweeps.state
        for block in range(10):
            state, recording = sweeps.run(jax.random.fold_in(key, block), state)
        shares.append(float((recording.position < 0).mean()))
    assert shares[0] == 0
    assert abs(shares[1] - 0.7) < 4.5 * (0.21 / 512) ** 0.5
