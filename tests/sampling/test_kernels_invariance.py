"""Every local kernel stays at its target and is reversible, in whatever coordinates.

Invariance: chains start from exact draws of a mixture of two Gaussians; its moments, over the
chains' way, must be those of the target within 4 standard errors (about 6e-5 a moment, two-sided).

Reversibility: one move from exact draws x to y. Under detailed balance (x, y) and (y, x) have the
same law, so of the c moves between two cells half go each way: |c_ij - c_ji| < 4.5 sqrt(c_ij +
c_ji) for all pairs of 9 cells.

The mutants are kernels given a wrong cache or a wrong gradient, and MALA without its proposal
term; the same tests refuse them. BlackJAX's own formulas are not rewritten here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.kernels import Preconditioner, local_moves

CHAINS, SWEEPS = 4096, 6
MUTANT_CHAINS, MUTANT_SWEEPS = 16_384, 12
LEVEL = 4.0
STEP = {"mala": 0.2, "barker": 0.7, "hmc": 0.3, "nuts": 0.4, "mclmc": 0.5}
KINDS = list(STEP)
MUTANT_STEP = {"no proposal term": 0.2, "stale cache": 0.2, "untransformed gradient": 0.03}
DENSE = Preconditioner(jnp.asarray([[0.9, 0.0], [0.3, 0.5]]))
STRETCHED = Preconditioner(3.0 * DENSE.scale)
DIAGONAL = Preconditioner(jnp.asarray([1.2, 0.6]))

WEIGHTS = np.array([0.7, 0.3])
MEANS = np.array([[-1.0, 0.0], [1.0, 0.5]])
COVARIANCES = np.array([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.4]]])
TARGET = GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
SECOND = np.einsum("k,kij->ij", WEIGHTS, COVARIANCES + MEANS[:, :, None] * MEANS[:, None])
MOMENTS = np.array([*(WEIGHTS @ MEANS), SECOND[0, 0], SECOND[0, 1], SECOND[1, 1]])


def products(x):
    """The five monomials of degree one and two of points (n, 2)."""
    return jnp.column_stack([x, x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2])


def uncorrected(key, chains, log_density, step_size):
    """Mutant: Langevin steps accepted by the ratio of densities, without the proposal term."""
    noise_key, accept_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, chains.position.shape)
    new = refresh(
        chains.position + step_size * chains.gradient + jnp.sqrt(2 * step_size) * noise, log_density
    )
    ratio = new.log_density - chains.log_density
    accepted = jnp.log(jax.random.uniform(accept_key, ratio.shape)) < ratio
    return jax.tree.map(
        lambda a, b: jnp.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, chains
    )


@eqx.filter_jit
def run(key, kind, preconditioner, mutant=None, n=CHAINS, sweeps=SWEEPS):
    """Moments (n, 5) on the chains' way; the first positions and those after one move."""
    log_density = TARGET.log_prob
    start_key, run_key = jax.random.split(key)
    start = refresh(TARGET.sample(start_key, (n,)), log_density)
    step_size = jnp.asarray(STEP[kind] if mutant is None else MUTANT_STEP[mutant])

    def sweep(chains, key):
        if mutant == "no proposal term":
            chains = uncorrected(key, chains, log_density, step_size)
        else:
            if mutant == "stale cache":
                # The log-density as it was at the start, whatever moved since.
                chains = chains._replace(log_density=start.log_density)
            if mutant == "untransformed gradient":
                scale = preconditioner.scale
                gradient = jax.scipy.linalg.solve_triangular(
                    scale, chains.gradient.T, trans=1, lower=True
                ).T
                chains = chains._replace(gradient=gradient)
            chains, *_ = local_moves(
                kind,
                key,
                chains,
                log_density,
                step_size,
                1,
                preconditioner=preconditioner,
                integration_steps=3,
            )
        return chains, (products(chains.position), chains.position)

    _, (moments, positions) = jax.lax.scan(sweep, start, jax.random.split(run_key, sweeps))
    return moments.mean(0), start.position, positions[0]


def z_of_moments(moments):
    moments = np.asarray(moments, float)
    return np.abs((moments.mean(0) - MOMENTS) / (moments.std(0) / len(moments) ** 0.5)).max()


def z_of_flux(before, after):
    """The largest imbalance between cells (three by three), in standard deviations."""

    def cell(x):
        x = np.asarray(x)
        return np.digitize(x[:, 0], [-1.0, 0.2]) + 3 * np.digitize(x[:, 1], [-0.2, 0.4])

    counts = np.zeros((9, 9))
    np.add.at(counts, (cell(before), cell(after)), 1)
    total = counts + counts.T
    return (np.abs(counts - counts.T) / np.sqrt(np.maximum(total, 1)))[total >= 20].max()


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_stay_at_their_target_and_are_reversible(key, kind):
    moments, before, after = run(key, kind, DENSE)
    assert z_of_moments(moments) < LEVEL
    assert z_of_flux(before, after) < 4.5
    assert (np.asarray(before) != np.asarray(after)).mean() > 0.3


@pytest.mark.parametrize("preconditioner", [None, DIAGONAL])
def test_other_coordinates_leave_the_target_alone(key, preconditioner):
    moments, before, after = run(key, "mala", preconditioner)
    assert z_of_moments(moments) < LEVEL
    assert z_of_flux(before, after) < 4.5


@pytest.mark.parametrize("mutant", MUTANT_STEP)
def test_mutants_are_caught(key, mutant):
    moments, before, after = run(key, "mala", STRETCHED, mutant, MUTANT_CHAINS, MUTANT_SWEEPS)
    assert z_of_moments(moments) > 2 * LEVEL
    # The other two need more than one move to show.
    assert mutant != "no proposal term" or z_of_flux(before, after) > 4.5


def test_the_mutants_frame_is_right_without_a_mutation(key):
    moments, before, after = run(key, "mala", STRETCHED, None, MUTANT_CHAINS, MUTANT_SWEEPS)
    assert z_of_moments(moments) < LEVEL
    assert z_of_flux(before, after) < 4.5
