"""Bridge sampling: the known log Z, an error that is one, and mutants that are caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import expit
from scipy.stats import norm

from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.log_normalizer import importance_sampling

LOG_Z = 1.7


def log_ratio(x, mean=0.7, sd=1.4):
    """Of exp(LOG_Z) N(0, 1) to the proposal N(mean, sd^2)."""
    return LOG_Z + norm.logpdf(x) - norm.logpdf(x, mean, sd)


def replicates(count, *, n, draws, chains, correlation, seed=0, mean=0.7, sd=1.4):
    """Log ratios at independent proposals and at stationary chains with this autocorrelation."""
    rng = np.random.default_rng(seed)
    proposals = mean + sd * rng.standard_normal((count, n))
    noise = rng.standard_normal((count, draws, chains))
    noise[:, 1:] *= np.sqrt(1 - correlation**2)
    states = lfilter([1.0], [1.0, -correlation], noise, axis=1)
    return log_ratio(proposals, mean, sd), log_ratio(states, mean, sd)


def estimate_all(proposal, chain):
    """One estimate for each replicate, along a leading axis."""
    return jax.tree.map(lambda *each: np.array(each), *map(bridge_sampling, proposal, chain))


def z_scores(estimates):
    return (np.asarray(estimates.log_z) - LOG_Z) / np.asarray(estimates.stderr)


def iterate(proposal, chain):
    """Meng and Wong's fixed point and Frühwirth-Schnatter's error, for independent draws."""
    n, m, log_z = proposal.size, chain.size, 0.0
    for _ in range(1000):
        bridge = np.logaddexp(np.log(m) + np.append(proposal, chain), np.log(n) + log_z)
        log_z = np.log(np.exp(proposal - bridge[:n]).mean() / np.exp(-bridge[n:]).mean())
    p = expit(proposal + np.log(m / n) - log_z)
    q = expit(log_z - chain.ravel() - np.log(m / n))
    return log_z, p.var() / p.mean() ** 2 / n, q.var() / q.mean() ** 2 / m


@pytest.mark.parametrize("x64", [False, True])
def test_it_is_the_fixed_point(x64):
    """With chains that alternate, so that they count as many draws as they have."""
    proposal, chain = replicates(1, n=300, draws=50, chains=4, correlation=-0.7, sd=1.0)
    log_z, proposal_term, chain_term = iterate(proposal[0], chain[0])
    with jax.enable_x64(x64):
        estimate = bridge_sampling(jnp.asarray(proposal[0]), jnp.asarray(chain[0]))
    tolerance = 1e-9 if x64 else 1e-5
    assert float(estimate.log_z) == pytest.approx(log_z, abs=tolerance)
    stderr = np.sqrt(proposal_term + chain_term)
    assert float(estimate.stderr) == pytest.approx(stderr, rel=100 * tolerance)
    assert float(estimate.ess) == pytest.approx(1 / (1 + 300 * stderr**2), rel=100 * tolerance)
    # Without the chains' share the error would be another.
    assert np.sqrt(proposal_term) < 0.9 * stderr


def test_a_perfect_proposal_has_no_error():
    estimate = bridge_sampling(jnp.full(10, 3.5), jnp.full((4, 2), 3.5))
    assert [float(x) for x in estimate] == [3.5, 0.0, 1.0]


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_large_ratios_neither_overflow_nor_lose_the_estimate(scale):
    proposal, chain = replicates(1, n=300, draws=50, chains=4, correlation=0.5)
    plain = bridge_sampling(jnp.asarray(proposal[0]), jnp.asarray(chain[0]))
    far = bridge_sampling(jnp.asarray(proposal[0] + scale), jnp.asarray(chain[0] + scale))
    assert float(far.log_z) - scale == pytest.approx(float(plain.log_z), abs=1e-3)
    assert float(far.stderr) == pytest.approx(float(plain.stderr), rel=1e-2)


def test_one_wild_ratio_moves_nothing():
    """A draw thrown far out by a flow: 80 halvings of this bracket would leave 1e14."""
    proposal, chain = replicates(1, n=3000, draws=50, chains=4, correlation=0.5)
    plain = bridge_sampling(proposal[0], chain[0])
    proposal[0, 7] = -1e38
    wild = bridge_sampling(proposal[0], chain[0])
    assert abs(float(wild.log_z) - float(plain.log_z)) < 0.01


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_ratio_that_is_not_finite_counts_as_zero(bad):
    """Half of the proposals outside of the model's support: half of the mass."""
    ratios = jnp.array([0.0, bad] * 500)
    estimate = bridge_sampling(ratios, jnp.zeros((50, 4)))
    # The fixed point of Z = 1/2 (m + n Z) / (m + n Z) with every chain's ratio one.
    assert float(estimate.log_z) == pytest.approx(np.log(0.5), abs=1e-5)
    spoiled = bridge_sampling(jnp.zeros(1000), jnp.zeros((50, 4)).at[0, 0].set(bad))
    assert abs(float(spoiled.log_z)) < 0.1 and np.isfinite(float(spoiled.stderr))


def test_nothing_finite_is_no_estimate():
    for sides in [
        (jnp.full(9, jnp.nan), jnp.zeros((4, 2))),
        (jnp.zeros(9), jnp.full((4, 2), jnp.nan)),
    ]:
        assert [float(x) for x in bridge_sampling(*sides)] == [-np.inf, np.inf, 0.0]


def test_chains_that_never_move_leave_importance_sampling():
    proposal, chain = replicates(1, n=2000, draws=1, chains=4, correlation=0.5)
    frozen = jnp.broadcast_to(jnp.asarray(chain[0]), (50, 4))
    estimate = bridge_sampling(jnp.asarray(proposal[0]), frozen)
    alone = importance_sampling(jnp.asarray(proposal[0]))
    assert float(estimate.log_z) == pytest.approx(float(alone.log_z), abs=0.01)
    assert float(estimate.stderr) == pytest.approx(float(alone.stderr), rel=0.1)


@pytest.mark.parametrize(
    ("draws", "chains", "correlation"), [(100, 8, 0.9), (20, 40, 0.9), (200, 4, 0.8)]
)
def test_intervals_cover(draws, chains, correlation):
    """300 replicates: of 95 % intervals 90 to 98 % cover, and z-scores have mean 0 and variance 1.

    Both moments within 4 of their standard errors.

    Two mutants: the chains' autocorrelation ignored (their draws shuffled), and their term
    dropped.
    """
    proposal, chain = replicates(300, n=1000, draws=draws, chains=chains, correlation=correlation)
    found = estimate_all(proposal, chain)
    z = z_scores(found)
    assert 0.90 <= np.mean(np.abs(z) < 1.96) <= 0.98
    assert abs(z.mean()) < 4 / 300**0.5
    assert abs(z.var() - 1) < 4 * (2 / 300) ** 0.5

    flat = chain.reshape(300, -1)
    shuffled = np.random.default_rng(1).permutation(flat, axis=1).reshape(chain.shape)
    ignoring = estimate_all(proposal, shuffled)
    assert z_scores(ignoring).var() - 1 > 4 * (2 / 300) ** 0.5

    weights = np.log(chain[0].size / 1000) + proposal - np.asarray(found.log_z)[:, None]
    terms = expit(weights).var(axis=1) / expit(weights).mean(axis=1) ** 2 / 1000
    dropped = (np.asarray(found.log_z) - LOG_Z) ** 2 / terms
    assert dropped.mean() - 1 > 4 * (2 / 300) ** 0.5


def test_it_is_better_than_importance_sampling_from_a_narrow_proposal():
    """The weights of a proposal narrower than the model have no variance; the bridge's have."""
    proposal, chain = replicates(
        200, n=1000, draws=100, chains=16, correlation=0.5, mean=0.0, sd=0.6
    )
    bridge = estimate_all(proposal, chain)
    alone = jax.jit(jax.vmap(importance_sampling))(jnp.asarray(proposal))
    assert np.mean(np.abs(z_scores(bridge)) < 1.96) >= 0.9
    assert np.std(bridge.log_z) < 0.5 * np.std(alone.log_z)


@pytest.mark.parametrize("mutant", ["proposal", "chain"])
def test_a_swapped_ratio_is_caught(mutant):
    proposal, chain = replicates(1, n=2000, draws=100, chains=16, correlation=0.5)
    right = bridge_sampling(jnp.asarray(proposal[0]), jnp.asarray(chain[0]))
    assert abs(z_scores(right)) < 4
    sign = {"proposal": (-1, 1), "chain": (1, -1)}[mutant]
    wrong = bridge_sampling(jnp.asarray(sign[0] * proposal[0]), jnp.asarray(sign[1] * chain[0]))
    assert abs(z_scores(wrong)) > 8
