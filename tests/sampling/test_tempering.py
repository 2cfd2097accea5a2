"""Swaps along a ladder of models: exact, and their mutants are not.

As for all kernels: 16 384 chains start from exact draws, and moments over the chains' way stay
within 4 standard errors.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.tempering import (
    refresh_ladder,
    stack_levels,
    swap_neighbours,
)

CHAINS = 16_384
SWEEPS = 8
LEVEL = 4.0


def gaussian(mean, scale):
    return GaussianMixture(np.ones(1), np.full((1, 1), mean), np.full((1, 1, 1), scale**2))


# A ladder of one kind of model; the target is the last.
MEANS, SCALES = np.array([1.0, 0.6, 0.0]), np.array([2.0, 1.4, 1.0])
LEVELS = stack_levels([gaussian(m, s).log_prob for m, s in zip(MEANS, SCALES)])
MOMENTS = np.stack([MEANS, MEANS**2 + SCALES**2], -1)
LADDER_MUTANTS = ["none", "swapped ratio", "always", "own density of the new point left out"]


@eqx.filter_jit
def run_ladder(key, mutant):
    """Moments (chains, levels, 2) on the way, and the rates of the pairs."""
    start_key, run_key = jax.random.split(key)
    noise = jax.random.normal(start_key, (3, CHAINS, 1))
    position = noise * jnp.asarray(SCALES)[:, None, None] + jnp.asarray(MEANS)[:, None, None]
    ladder = refresh_ladder(position, LEVELS)

    def right(key, ladder):
        return swap_neighbours(key, ladder, LEVELS)

    def wrong(key, ladder):
        """Levels 2 and 3 alone, written out, with one mistake."""
        other = jnp.asarray([0, 2, 1])
        crossed = refresh_ladder(ladder.position[other], LEVELS)
        f, g = ladder.log_density, crossed.log_density
        ratio = g[1] + g[2] - f[1] - f[2]
        ratio = jnp.stack([ratio, -ratio, jnp.zeros_like(ratio), g[2] - f[2]])[mutant]
        swapped = jnp.log(jax.random.uniform(key, ratio.shape)) < ratio
        ladder = jax.tree.map(
            lambda new, old: jnp.where(swapped.reshape(1, -1, *[1] * (new.ndim - 2)), new, old),
            crossed,
            ladder,
        )
        return ladder, jnp.zeros(2)

    def sweep(ladder, key):
        ladder, rates = jax.lax.cond(mutant < 0, right, wrong, key, ladder)
        x = ladder.position[..., 0].T
        return ladder, (jnp.stack([x, x**2], -1), rates)

    ladder, (moments, rates) = jax.lax.scan(sweep, ladder, jax.random.split(run_key, SWEEPS))
    return ladder, moments.mean(0), rates.mean(0), position


def z_of(moments, expected):
    moments = np.asarray(moments, float)
    return np.abs((moments.mean(0) - expected) / (moments.std(0) / len(moments) ** 0.5)).max()


def test_swaps_leave_every_level_alone(key):
    ladder, moments, rates, start = run_ladder(key, jnp.asarray(-1))
    assert z_of(moments, MOMENTS) < LEVEL
    assert ((rates > 0.3) & (rates < 1)).all()
    fresh = jax.jit(lambda x: refresh_ladder(x, LEVELS))(ladder.position)
    np.testing.assert_allclose(ladder.log_density, fresh.log_density, rtol=1e-5)
    np.testing.assert_allclose(ladder.gradient, fresh.gradient, rtol=1e-5, atol=1e-6)
    # Nothing is made or lost: each chain's points are those it had, in another order.
    ends, starts = (np.sort(np.asarray(x)[..., 0], 0) for x in (ladder.position, start))
    np.testing.assert_array_equal(ends, starts)
    assert (np.asarray(ladder.position[2]) == np.asarray(start[0])).any()


@pytest.mark.parametrize("mutant", LADDER_MUTANTS)
def test_mutants_of_the_swaps_are_caught(key, mutant):
    moments = run_ladder(key, jnp.asarray(LADDER_MUTANTS.index(mutant)))[1]
    z = z_of(moments, MOMENTS)
    assert z < LEVEL if mutant == "none" else z > 2 * LEVEL


class Walled(eqx.Module):
    """A standard normal that is nan beyond a wall."""

    wall: jax.Array

    def __call__(self, x):
        return jnp.where(x[0] > self.wall, jnp.nan, -0.5 * x[0] ** 2)


def test_no_swap_goes_where_the_density_is_not_finite(key):
    levels = stack_levels([Walled(jnp.asarray(wall)) for wall in (9.0, 0.0)])
    ladder = refresh_ladder(jnp.stack([jnp.full((40, 1), 1.0), jnp.full((40, 1), -1.0)]), levels)
    ladder, rates = swap_neighbours(key, ladder, levels)
    assert rates[0] == 0
    assert (ladder.position[1] == -1).all()
    # A chain that is lost there takes the first good point.
    lost = refresh_ladder(jnp.stack([jnp.full((40, 1), -1.0), jnp.full((40, 1), 1.0)]), levels)
    ladder, rates = swap_neighbours(key, lost, levels)
    assert rates[0] == 1
    assert np.isfinite(ladder.log_density).all()


def test_a_ladder_is_made_of_copies_of_one_model():
    for levels in (
        [gaussian(0.0, 1.0).log_prob],
        [Walled(jnp.zeros(())), gaussian(0.0, 1.0).log_prob],
    ):
        with pytest.raises(InputError, match="log_densities"):
            stack_levels(levels)
