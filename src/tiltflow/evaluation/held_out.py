"""Held-out likelihood of a tilted density, and the comparison of two energies on it.

Both energies are normalised with the same draws of the proposal, so that most of the noise of
log Z cancels in the difference: the best of many states chosen by independent noisy estimates of
log Z would flatter itself.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.data.folds import FEW_HELD_OUT
from tiltflow.evaluation.log_normalizer import importance_sampling
from tiltflow.models.energies import Energy


@eqx.filter_jit
def compare_on_held_out(
    key: PRNGKeyArray,
    base: AbstractDistribution,
    candidate: Energy,
    best: Energy,
    flow: AbstractDistribution,
    held_out: Float[Array, "m d"],
    draws: int,
) -> dict[str, Float[Array, ""]]:
    """The candidate's normalised held-out log-likelihood (mean, nats) and its gain over `best`.

    `clear` tells whether the candidate may be kept: always with enough rows; with few, when its
    gain over the base alone exceeds its standard error, of rows and log Z together. (A few dozen
    rows find one of many states better than the base by chance.) `gain_stderr` is that of the gain
    over these rows.
    """
    y, log_prob = flow.sample_and_log_prob(key, (draws,))
    log_ratio = base.log_prob(y) - log_prob
    candidate_z = importance_sampling(log_ratio - jax.vmap(candidate)(y))
    best_z = importance_sampling(log_ratio - jax.vmap(best)(y))
    candidate_energy = jax.vmap(candidate)(held_out)
    best_energy = jax.vmap(best)(held_out)
    base_log_prob = base.log_prob(held_out)
    tilt = -candidate_energy.mean() - candidate_z.log_z
    tilt_stderr = jnp.hypot(candidate_energy.std() / jnp.sqrt(len(held_out)), candidate_z.stderr)
    gains = best_energy - candidate_energy
    gain = gains.mean() - (candidate_z.log_z - best_z.log_z)
    return {
        "held_out_log_likelihood": base_log_prob.mean() + tilt,
        "base_held_out_log_likelihood": base_log_prob.mean(),
        "gain": jnp.where(jnp.isfinite(gain), gain, -jnp.inf),
        "gain_stderr": gains.std() / jnp.sqrt(len(held_out)),
        "clear": jnp.asarray(len(held_out) >= FEW_HELD_OUT) | (tilt > tilt_stderr),
        "log_z": candidate_z.log_z,
        "log_z_stderr": candidate_z.stderr,
        "importance_ess": candidate_z.ess,
    }
