"""Properties of the estimates of log Z, whatever the log ratios: shifts, order, bounds."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tiltflow.evaluation.annealed import LogNormalizerBounds, _lower_bound
from tiltflow.evaluation.bracket import bracket_figures
from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.log_normalizer import importance_sampling, normalised_weights

N, DRAWS, CHAINS = 12, 8, 4
RATIOS = st.floats(-30, 30)
SHIFTS = st.floats(-1000, 1000)
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def close(found, expected):
    """The error of an estimate that is sure of itself is the root of a rounding."""
    np.testing.assert_allclose(found.log_z, expected.log_z, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.stderr, expected.stderr, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found.ess, expected.ess, rtol=1e-6, atol=1e-9)


@PROPERTY
@given(arrays(float, N, elements=RATIOS), SHIFTS, st.permutations(range(N)))
def test_importance_sampling(log_weights, shift, order):
    found = importance_sampling(jnp.asarray(log_weights))
    moved = importance_sampling(jnp.asarray(log_weights[order] + shift))
    close(moved._replace(log_z=moved.log_z - shift), found)
    low, high = log_weights.max() - math.log(N), log_weights.max()
    assert low - 1e-9 <= found.log_z <= high + 1e-9
    assert 1 / N - 1e-9 <= found.ess <= 1 + 1e-9


@PROPERTY
@given(arrays(float, N, elements=RATIOS), st.integers(0, N - 1))
def test_a_weight_that_is_not_finite_counts_as_zero(log_weights, place):
    for odd in (math.nan, math.inf, -math.inf):
        log_weights[place] = odd
        weights = normalised_weights(jnp.asarray(log_weights))
        assert weights[place] == 0 and weights.sum() == pytest.approx(1)
        found = importance_sampling(jnp.asarray(log_weights))
        rest = np.delete(log_weights, place)
        expected = np.logaddexp.reduce(rest) - math.log(N)
        assert found.log_z == pytest.approx(expected, abs=1e-9)


@PROPERTY
@given(
    arrays(float, N, elements=RATIOS),
    arrays(float, (DRAWS, CHAINS), elements=RATIOS),
    SHIFTS,
    st.permutations(range(N)),
    st.permutations(range(CHAINS)),
)
def test_bridge_sampling(proposal, chain, shift, order, chain_order):
    """A constant on the log-density is one on log Z; neither draws nor chains have an order."""
    found = bridge_sampling(proposal, chain)
    moved = bridge_sampling(proposal[order] + shift, chain[:, chain_order] + shift)
    close(moved._replace(log_z=moved.log_z - shift), found)
    both = np.concatenate([proposal, chain.ravel()])
    assert both.min() - 1e-9 <= found.log_z <= both.max() + 1e-9
    assert found.stderr >= 0 and 0 <= found.ess <= 1


@PROPERTY
@given(
    arrays(float, N, elements=RATIOS),
    arrays(float, (DRAWS, CHAINS), elements=RATIOS),
    st.floats(0, 5),
)
def test_larger_ratios_never_make_log_z_smaller(proposal, chain, more):
    """The worth of the chains is estimated, so they stand still here: it is one draw then."""
    chain[:] = chain[0, 0]
    found = bridge_sampling(proposal, chain)
    larger = bridge_sampling(proposal + more * (proposal > 0), chain)
    assert larger.log_z >= found.log_z - 1e-9


@PROPERTY
@given(arrays(float, N, elements=RATIOS), SHIFTS, st.integers(0, N - 2))
def test_bounds_of_annealed_paths_lie_on_their_sides(log_weights, shift, bad):
    """Below what the same weights estimate, with weights that count as zero among them."""
    log_weights[:bad] = math.nan
    low, stderr = _lower_bound(jnp.asarray(log_weights))
    moved, moved_stderr = _lower_bound(jnp.asarray(log_weights + shift))
    assert low <= importance_sampling(jnp.asarray(log_weights)).log_z + 1e-9
    assert float(moved) - shift == pytest.approx(float(low), abs=1e-9)
    assert stderr >= 0 and float(moved_stderr) == pytest.approx(float(stderr), rel=1e-6, abs=1e-9)


@PROPERTY
@given(SHIFTS, st.floats(0, 5), st.floats(0, 1), st.floats(0, 1), st.floats(-10, 10), SHIFTS)
def test_brackets_move_with_log_z_and_exclude_nothing_within(
    lower, width, below, above, place, shift
):
    def figures(shift):
        estimate = importance_sampling(jnp.zeros(2))
        ends = (lower + shift, below, lower + width + shift, above)
        bounds = LogNormalizerBounds(*map(jnp.asarray, ends), estimate, jnp.ones(()))
        return bracket_figures(bounds, lower + place + shift)

    found, moved = figures(0.0), figures(shift)
    assert found["log_z_lower"] <= found["log_z_upper"]
    assert found["bracket_width"] == pytest.approx(width, abs=1e-9)
    for name in ("bracket_width", "bracket_excess"):
        assert moved[name] == pytest.approx(found[name], abs=1e-9)
    assert found["bracket_excess"] <= max(0.0, -place, place - width) + 1e-9
    if 0 <= place <= width:
        assert found["bracket_excess"] <= 1e-9
    elif not -3 * below <= place <= width + 3 * above:
        assert found["bracket_excess"] > 0
