"""What the two witnesses say: figures that see what each of them misses, and the verdict on them.

Chains are made by hand where that is enough: independent exact draws are chains that mix at once.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tiltflow.evaluation.assessment import _acceptance, assess
from tiltflow.evaluation.verdict import judge
from tiltflow.evaluation.witnesses import Witnesses
from tiltflow.experiments.known_fits import kinds
from tiltflow.experiments.verdicts import judge_fit
from tiltflow.sampling.sweep import Recording

SWEEPS, CHAINS, DRAWS = 16, 128, 8192
FAR = 12.0


def draw(generator, far_share, shape):
    """Draws of (1 - share) N(0, 1) + share N(FAR, 1)."""
    far = generator.random(shape) < far_share
    return generator.normal(size=shape) + FAR * far


def log_prob(x, far_share):
    with np.errstate(divide="ignore"):
        return np.logaddexp(
            np.log1p(-far_share) + norm.logpdf(x), np.log(far_share) + norm.logpdf(x, FAR)
        )


def witnesses(*, target=0.3, flow=0.3, chains=None, seed=0):
    """Chains at `chains` (exact draws of the target if None), and draws of the flow."""
    generator = np.random.default_rng(seed)
    x = draw(generator, target, (SWEEPS, CHAINS)) if chains is None else chains
    y = draw(generator, flow, DRAWS)
    # One draw of the flow for each chain and sweep decides what was taken.
    log_weights = log_prob(y, target) - log_prob(y, flow)
    log_ratio = log_prob(x, target) - log_prob(x, flow)
    offered = generator.choice(log_weights, (SWEEPS, CHAINS))
    moved = np.log(generator.random((SWEEPS, CHAINS))) < offered - log_ratio
    rates = jnp.full(SWEEPS, 0.6)
    recording = Recording(
        position=jnp.asarray(x[..., None]),
        log_density=jnp.asarray(log_prob(x, target)),
        log_ratio=jnp.asarray(log_ratio),
        moved=jnp.asarray(moved),
        local_acceptance_rate=rates,
        global_acceptance_rate=jnp.full(SWEEPS, moved.mean()),
        nan_share=jnp.zeros(SWEEPS),
    )
    return Witnesses(recording, jnp.asarray(y[:, None]), jnp.asarray(log_weights))


def with_log_weights(spoiled, change):
    return spoiled._replace(log_weights=change(spoiled.log_weights))


@pytest.mark.parametrize("flow", [0.3, 0.1, 0.6])
def test_exact_chains_are_trusted_whatever_weights_the_flow_has(flow):
    verdict = judge(assess(witnesses(flow=flow)).figures)
    assert verdict.status == "trusted", verdict.reasons
    assert verdict.figures["stuck_share"] == 0
    assert verdict.figures["log_z"] == pytest.approx(0, abs=0.03)


def test_acceptance_is_the_mean_over_the_draws():
    generator = np.random.default_rng(1)
    log_weights = generator.normal(0, 3, 500)
    log_weights[:3] = [-np.inf, np.nan, np.inf]
    log_ratio = generator.normal(0, 4, (7, 5))
    log_ratio[0, :3] = log_weights[5:8]
    weights = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    exact = np.exp(np.minimum(weights - log_ratio[..., None], 0)).mean(axis=-1)
    np.testing.assert_allclose(_acceptance(log_ratio, log_weights), exact, rtol=1e-12)
    edges = _acceptance(np.array([[-np.inf, np.inf, np.nan]]), log_weights)
    np.testing.assert_allclose(edges, [[1, 0, 0]])


def test_one_chain_in_a_mode_that_the_flow_misses_is_enough_for_doubt():
    """The weight is 5 %, the flow gives it none, and one chain of 128 stands there."""
    x = draw(np.random.default_rng(2), 0.0, (SWEEPS, CHAINS))
    x[:, 7] += FAR
    figures = assess(witnesses(target=0.05, flow=1e-30, chains=x)).figures
    assert figures["stuck_share"] == pytest.approx(1 / CHAINS)
    assert judge(figures).status != "trusted"
    # Trapped in the midst of its run, after moves that were taken.
    x[: SWEEPS // 3, 7] -= FAR
    figures = assess(witnesses(target=0.05, flow=1e-30, chains=x)).figures
    assert figures["stuck_share"] == pytest.approx(1 / CHAINS)


def test_a_start_that_still_shows_is_seen_and_its_mixture_is_not():
    """Half of the chains hold a share of 20 %, the others of 40 %; as a whole they are right."""
    generator = np.random.default_rng(3)
    modes = (np.arange(CHAINS) % (CHAINS // 2)) / (CHAINS // 2)
    share = np.where(np.arange(CHAINS) < CHAINS // 2, 0.1, 0.5)
    x = generator.normal(size=(SWEEPS, CHAINS)) + FAR * (modes < share)
    figures = assess(witnesses(chains=x)).figures
    assert figures["start_disagreement"] > 4 and figures["weight_disagreement"] < 4
    shuffled = x[:, generator.permutation(CHAINS)]
    assert assess(witnesses(chains=shuffled)).figures["start_disagreement"] < 4


def test_shares_that_chains_and_draws_tell_differently_fail():
    x = draw(np.random.default_rng(4), 0.5, (SWEEPS, CHAINS))
    figures = assess(witnesses(chains=x)).figures
    assert figures["weight_disagreement"] > 4 and figures["start_disagreement"] < 4


def test_one_infinite_density_is_a_doubt_and_nan_counts_by_its_share():
    good = witnesses()
    one = judge(assess(with_log_weights(good, lambda w: w.at[3].set(jnp.inf))).figures)
    assert one.status == "doubtful" and "+inf" in one.reasons[0]
    assert one.figures["inf_share"] == pytest.approx(1 / DRAWS)
    few = judge(assess(with_log_weights(good, lambda w: w.at[3].set(jnp.nan))).figures)
    assert few.status == "trusted"
    many = judge(assess(with_log_weights(good, lambda w: w.at[: DRAWS // 4].set(jnp.nan))).figures)
    assert many.status == "failed"


def test_witnesses_without_a_finite_weight_fail():
    none = with_log_weights(witnesses(), lambda w: jnp.full_like(w, jnp.nan))
    assert judge(assess(none).figures).status == "failed"


@pytest.mark.parametrize(
    "name",
    [
        "two modes, flow half as wide again",
        "flow misses a mode",
        "2 chains alone in a mode of 10 %",
        "flow starves a mode more",
        "flow too narrow",
        "wrong start, few global moves",
        "nothing moves",
    ],
)
def test_no_weight_that_is_off_is_trusted(name):
    (kind,) = [kind for kind in kinds() if kind.name == name]
    outcome = judge_fit(jax.random.key(1), kind.make(jax.random.key(0)), draws=16_384)
    if kind.good:
        assert outcome.verdict.status == "trusted" and not outcome.off
    else:
        assert outcome.verdict.status != "trusted"
