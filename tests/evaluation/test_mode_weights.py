"""Mode weights: exact shares by hand, and intervals that hold what they promise."""

import numpy as np
import pytest
from scipy.special import logit

from tiltflow.data.errors import InputError
from tiltflow.evaluation.mode_weights import (
    WeightEstimate,
    agreement,
    combine,
    weights_from_chains,
    weights_from_importance,
    with_intervals,
)


def label_chains(rng, share, correlation, draws, chains):
    """0 with probability `share`: every draw keeps its label, or takes a fresh one.

    The indicator's autocorrelation is that of an AR(1) process, correlation^lag.
    """
    fresh = rng.random((draws, chains)) >= correlation
    fresh[0] = True
    last = np.maximum.accumulate(np.where(fresh, np.arange(draws)[:, None], 0), axis=0)
    labels = (rng.random((draws, chains)) >= share).astype(int)
    return np.take_along_axis(labels, last, axis=0)


def interval_of(result, label):
    found = np.flatnonzero(result.labels == label)
    return result.intervals[found[0]] if len(found) else None


def coverage(intervals, truth):
    """Among the replicates in which the label was seen."""
    seen = np.array([interval for interval in intervals if interval is not None])
    return np.mean((seen[:, 0] <= truth) & (truth <= seen[:, 1]))


def test_shares_of_chains_by_hand():
    labels = np.array([["b", "a"], ["a", "a"], ["b", "a"], ["a", "c"]])
    estimate = weights_from_chains(labels)
    assert estimate.labels.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(estimate.weights, [5 / 8, 2 / 8, 1 / 8])
    assert np.all(estimate.effective_draws >= 1) and np.all(estimate.effective_draws <= 8)


def test_shares_of_importance_weights_by_hand():
    """Ten times the weights 1, 3 and 4: the delta method, discounted by hits / (hits + 2)."""
    labels, log_weights = np.repeat([2, 2, 7], 10), np.log(np.repeat([1.0, 3.0, 4.0], 10))
    estimate = weights_from_importance(labels, log_weights)
    np.testing.assert_allclose(estimate.weights, [0.5, 0.5])
    variance = 10 * (1 + 9 + 16) / 80**2 / 4
    hits = min(40**2 / 100, 40**2 / 160)
    np.testing.assert_allclose(estimate.effective_draws, 0.25 / variance * hits / (hits + 2))
    np.testing.assert_allclose(estimate.standard_errors**2, variance * (hits + 2) / hits)
    assert estimate.unseen_draws == pytest.approx(80**2 / 260)


def test_equal_weights_are_worth_their_number():
    estimate = weights_from_importance(np.repeat([0, 1], [3000, 1000]), np.full(4000, -1e4))
    np.testing.assert_allclose(estimate.weights, [0.75, 0.25])
    np.testing.assert_allclose(estimate.effective_draws, 4000 * 1000 / 1002)
    assert estimate.unseen_draws == pytest.approx(4000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_counts_as_zero(bad):
    estimate = weights_from_importance(np.array([0, 1, 1, 2]), np.array([0.0, 0.0, bad, bad]))
    assert estimate.labels.tolist() == [0, 1]
    np.testing.assert_allclose(estimate.weights, [0.5, 0.5])


def test_importance_weights_without_a_finite_one_are_refused():
    with pytest.raises(InputError, match="log_weights: none of 3 is finite"):
        weights_from_importance(np.arange(3), np.full(3, np.nan))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((0, 3)), r"labels: shape \(0, 3\)"),
        (np.array([[0.0, np.nan]]), "labels: 1 of 2 are not finite"),
        (np.array([["a", 1]], dtype=object), "labels: they cannot be sorted"),
    ],
)
def test_bad_labels_are_refused_in_one_line(labels, message):
    with pytest.raises(InputError, match=message) as caught:
        weights_from_chains(labels)
    assert "\n" not in str(caught.value)


def test_one_label_has_weight_one_and_an_interval_below():
    """32 draws, all in one: 1 - w is below 1 - 0.025^(1 / 32.5) or so (a Beta(1/2) quantile)."""
    result = with_intervals(weights_from_chains(np.full((10, 32), "only")))
    assert result.weights.tolist() == [1.0] and result.centers is None
    assert 0.9 < result.intervals[0, 0] < 0.95 and result.intervals[0, 1] == 1.0
    fewer = with_intervals(weights_from_chains(np.full((10, 4), "only")))
    assert fewer.intervals[0, 0] < result.intervals[0, 0]


def test_chains_that_never_leave_their_labels_say_next_to_nothing():
    stuck = with_intervals(weights_from_chains(np.repeat([[0, 0, 1, 1]], 500, axis=0)))
    np.testing.assert_allclose(stuck.weights, 0.5)
    assert np.all(stuck.intervals[:, 0] < 0.1) and np.all(stuck.intervals[:, 1] > 0.9)


def test_ends_of_many_chains_are_independent_draws():
    labels = np.arange(1000)[None] % 4
    estimate = weights_from_chains(labels)
    np.testing.assert_allclose(estimate.effective_draws, 1000, rtol=0.02)


def test_combined_by_hand():
    a = WeightEstimate(np.array([0, 1]), np.array([0.5, 0.5]), np.array([30.0, 30.0]), 30.0)
    b = WeightEstimate(np.array([0, 2]), np.array([0.8, 0.2]), np.array([10.0, 10.0]), 10.0)
    both = combine(a, b)
    assert both.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(both.weights, [23 / 40, 15 / 40, 2 / 40])
    np.testing.assert_allclose(both.effective_draws, 40.0)
    assert both.weights.sum() == pytest.approx(1.0)
    # Label 1: 0.5 against none, at the pooled share 3/8.
    assert agreement(a, b) == pytest.approx(0.5 / np.sqrt(15 / 64 * (1 / 30 + 1 / 10)))
    assert agreement(a, a) == 0.0


def test_a_label_that_one_estimate_missed_counts_by_its_weight():
    full = WeightEstimate(np.array([0, 1]), np.array([0.7, 0.3]), np.full(2, 200.0), 200.0)
    rare = WeightEstimate(np.array([0, 1]), np.array([0.999, 0.001]), np.full(2, 200.0), 200.0)
    one = WeightEstimate(np.array([0]), np.array([1.0]), np.array([200.0]), 200.0)
    assert agreement(full, one) > 6 and agreement(rare, one) < 1
    assert agreement(one, one) == 0.0


def test_intervals_hold_the_estimate_and_stay_between_zero_and_one():
    weights = np.array([1e-9, 1e-4, 0.5 - 1e-4 - 1e-9, 0.5])
    estimate = WeightEstimate(np.arange(4), weights, np.array([5.0, 20.0, 1.0, 1e6]), 1.0)
    result = with_intervals(estimate, np.zeros((4, 2)))
    assert np.all(result.intervals[:, 0] <= weights) and np.all(weights <= result.intervals[:, 1])
    assert np.all((result.intervals >= 0) & (result.intervals <= 1))


CHAIN_CASES = [
    # share, correlation, draws, chains; the effective draws are about
    (0.5, 0.9, 237, 4),  # 50
    (0.1, 0.9, 59, 16),  # 50
    (0.02, 0.9, 237, 4),  # 50, one or two visits
    (0.02, 0.9, 593, 16),  # 500
    (0.1, 0.8, 700, 64),  # 5000
    (0.5, 0.95, 76, 256),  # 500
    (0.02, 0.9, 30, 256),  # 500
]


@pytest.mark.parametrize(("share", "correlation", "draws", "chains"), CHAIN_CASES)
def test_coverage_of_intervals_from_chains(share, correlation, draws, chains):
    """400 replicates, in which 95 % has a standard error of 1 %; the share and its complement."""
    rng = np.random.default_rng(1)
    results = [
        with_intervals(weights_from_chains(label_chains(rng, share, correlation, draws, chains)))
        for _ in range(400)
    ]
    covered = coverage([interval_of(result, 0) for result in results], share)
    assert 0.90 <= covered <= 0.98, covered
    other = coverage([interval_of(result, 1) for result in results], 1 - share)
    assert 0.90 <= other <= 0.98, other


def test_mutant_intervals_from_all_draws_are_caught():
    """Taking correlated draws for independent ones loses the coverage."""
    rng = np.random.default_rng(2)
    intervals = []
    for _ in range(400):
        estimate = weights_from_chains(label_chains(rng, 0.5, 0.9, 237, 4))
        mutant = estimate._replace(effective_draws=np.full(2, 237.0 * 4))
        intervals.append(interval_of(with_intervals(mutant), 0))
    assert coverage(intervals, 0.5) < 0.6


def weighted_draws(rng, share, draws, spread):
    """Labels drawn by halves, weighed to `share` of 0, with log-normal noise on the weights."""
    labels = rng.integers(0, 2, draws)
    log_weights = np.where(labels == 0, logit(share), 0.0) + spread * rng.normal(size=draws)
    return labels, log_weights


IMPORTANCE_CASES = [(0.5, 100, 0.8), (0.1, 100, 0.8), (0.02, 100, 0.8), (0.1, 2000, 1.0)]


@pytest.mark.parametrize(("share", "draws", "spread"), IMPORTANCE_CASES)
def test_coverage_of_intervals_from_importance_weights(share, draws, spread):
    """1000 replicates, in which 95 % has a standard error of 0.7 %."""
    rng = np.random.default_rng(3)
    intervals, naive = [], []
    for _ in range(1000):
        estimate = weights_from_importance(*weighted_draws(rng, share, draws, spread))
        intervals.append(interval_of(with_intervals(estimate), 0))
        # The mutant leaves the spread of the weights out.
        mutant = estimate._replace(effective_draws=estimate.effective_draws * np.exp(spread**2))
        naive.append(interval_of(with_intervals(mutant), 0))
    covered = coverage(intervals, share)
    assert 0.90 <= covered <= 0.98, covered
    assert coverage(naive, share) < covered - 0.05


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_coverage_of_combined_intervals(share):
    """400 replicates; about 50 effective draws from the chains and 200 from the weights."""
    rng = np.random.default_rng(4)
    intervals, errors = [], []
    for _ in range(400):
        chains = weights_from_chains(label_chains(rng, share, 0.9, 237, 4))
        labels = (rng.random(330) >= share).astype(int)
        weighted = weights_from_importance(labels, 0.7 * rng.normal(size=330))
        both = combine(chains, weighted)
        intervals.append(interval_of(with_intervals(both), 0))
        errors.append(agreement(chains, weighted))
    covered = coverage(intervals, share)
    assert 0.90 <= covered <= 0.98, covered
    assert np.mean(np.array(errors) > 3) < 0.05


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_coverage_of_the_share_where_the_rows_come_from(share):
    """1000 tables of 300 rows whose shares a density has, and 200 draws of it each."""
    rng = np.random.default_rng(6)
    intervals, mutants = [], []
    for _ in range(1000):
        of_density = rng.binomial(300, share) / 300
        weight = rng.binomial(200, of_density) / 200
        weights, effective = np.array([weight, 1 - weight]), np.full(2, 200.0)
        estimate = WeightEstimate(np.array([0, 1]), weights, effective, 200.0)
        result = with_intervals(estimate, rows=300.0)
        intervals.append(tuple(result.population_intervals[0]))
        # The mutant takes the density for the population.
        mutants.append(interval_of(result, 0))
    covered = coverage(intervals, share)
    assert 0.92 <= covered <= 0.98, covered
    assert coverage(mutants, share) < covered - 0.05
    assert with_intervals(estimate).population_intervals is None


def test_agreement_is_a_standard_normal_where_both_are_right():
    """The mean square of 500 differences of two labels is 1, within 4 sqrt(2 / 500)."""
    rng = np.random.default_rng(5)
    squares = []
    for _ in range(500):
        a = weights_from_importance((rng.random(400) < 0.3).astype(int), np.zeros(400))
        b = weights_from_importance((rng.random(900) < 0.3).astype(int), np.zeros(900))
        squares.append(agreement(a, b) ** 2)
    assert abs(np.mean(squares) - 1) < 4 * np.sqrt(2 / 500)


@pytest.mark.parametrize("log_weight", [-50.0, -400.0])
def test_a_draw_of_no_weight_in_a_label_is_worth_hardly_more_than_all(log_weight):
    """Two chain draws of 8192 in a rare place, where one draw of the flow fell far out.

    The square of the smaller weight is zero to the last bit.
    """
    labels = np.zeros((32, 256), int)
    labels[3, 7] = labels[20, 9] = 1
    log_weights = np.zeros(8192)
    log_weights[0] = log_weight
    draws = weights_from_importance((np.arange(8192) == 0).astype(int), log_weights)
    assert draws.effective_draws.max() <= 5 * 8192
    assert agreement(weights_from_chains(labels), draws) < 4
