"""Properties of the weights of labels: shares, their order, and intervals about them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tiltflow.evaluation.mode_weights import (
    agreement,
    combine,
    weights_from_chains,
    weights_from_importance,
    with_intervals,
)

N, DRAWS, CHAINS, LABELS = 12, 6, 4, 4
CODES = st.integers(0, LABELS - 1)
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)
of_chains = arrays(int, (DRAWS, CHAINS), elements=CODES).map(weights_from_chains)


def holds(estimate):
    """What every estimate is: shares that add up to one, within their intervals."""
    assert estimate.weights.sum() == pytest.approx(1)
    assert (estimate.weights >= 0).all() and (estimate.effective_draws >= 1).all()
    assert (np.diff(estimate.labels) > 0).all()
    shown = with_intervals(estimate)
    low, high = shown.intervals.T
    assert (low >= 0).all() and (high <= 1).all()
    assert (low <= shown.weights).all() and (shown.weights <= high).all()


@PROPERTY
@given(
    arrays(int, (DRAWS, CHAINS), elements=CODES),
    st.permutations(range(LABELS)),
    st.permutations(range(CHAINS)),
)
def test_chains(labels, names, chain_order):
    """Other names permute the shares, and the order of chains says nothing."""
    found = weights_from_chains(labels)
    holds(found)
    other = weights_from_chains(np.array(names)[labels][:, chain_order])
    again = {names.index(label): place for place, label in enumerate(other.labels)}
    places = [again[label] for label in found.labels]
    np.testing.assert_allclose(other.weights[places], found.weights)
    np.testing.assert_allclose(other.effective_draws[places], found.effective_draws, rtol=1e-5)


@PROPERTY
@given(
    arrays(int, N, elements=CODES),
    arrays(float, N, elements=st.floats(-20, 20)),
    st.floats(-500, 500),
    st.permutations(range(N)),
)
def test_importance_weights(labels, log_weights, shift, order):
    found = weights_from_importance(labels, log_weights)
    holds(found)
    moved = weights_from_importance(labels[order], log_weights[order] + shift)
    np.testing.assert_array_equal(moved.labels, found.labels)
    np.testing.assert_allclose(moved.weights, found.weights, atol=1e-12)
    np.testing.assert_allclose(moved.effective_draws, found.effective_draws, rtol=1e-6)


@PROPERTY
@given(of_chains, of_chains)
def test_two_estimates_count_alike(a, b):
    found, turned = combine(a, b), combine(b, a)
    holds(found)
    np.testing.assert_array_equal(turned.labels, found.labels)
    np.testing.assert_allclose(turned.weights, found.weights)
    assert agreement(a, b) == pytest.approx(agreement(b, a))
    assert agreement(a, a) == 0
    assert set(found.labels) == set(a.labels) | set(b.labels)


@PROPERTY
@given(of_chains, of_chains)
def test_more_draws_are_surer(a, b):
    """Of a label that both saw, two estimates together are worth more draws than either."""
    found = dict(zip(*combine(a, b)[:1], combine(a, b).effective_draws))
    for one in (a, b):
        for label, draws in zip(one.labels, one.effective_draws):
            assert found[label] > draws
