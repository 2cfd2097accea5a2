"""A defensive mixture is the density that it draws from, and is never far below its base."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import Normal
from scipy.stats import norm

from tiltflow.models.defensive import DefensiveMixture

MIXTURE = DefensiveMixture(
    Normal(jnp.zeros(1), jnp.full(1, 0.1)), Normal(jnp.ones(1), jnp.full(1, 2.0)), 0.2
)


def test_its_density_is_the_sum():
    x = np.linspace(-6, 6, 200)
    expected = 0.8 * norm.pdf(x, 0, 0.1) + 0.2 * norm.pdf(x, 1, 2)
    got = eqx.filter_jit(MIXTURE.log_prob)(jnp.asarray(x[:, None]))
    np.testing.assert_allclose(got, np.log(expected), rtol=1e-4, atol=1e-4)


def test_draws_and_their_density_agree():
    """The share of draws beyond 1 at 4 standard errors: only the base comes there."""
    draw = eqx.filter_jit(lambda key: MIXTURE.sample_and_log_prob(key, (4000,)))
    points, log_prob = draw(jax.random.key(0))
    truth = 0.2 * norm.sf(1, 1, 2)
    error = np.sqrt(truth * (1 - truth) / 4000)
    assert abs(float((points > 1).mean()) - truth) < 4 * error
    np.testing.assert_allclose(log_prob, MIXTURE.log_prob(points), rtol=1e-4, atol=1e-4)
