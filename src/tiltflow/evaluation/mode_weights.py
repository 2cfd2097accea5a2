"""The share of mass of every label, from chains and from importance weights, with intervals.

An estimate p of a share is kept with its effective number of draws: the number n of independent
draws that would have the same error,

    stderr(p)^2 = p (1 - p) / n.

Chains: n is the effective sample size of the label's indicator, or comes from the spread between
many chains. Importance weights w that add up
to one: stderr^2 = sum_i w_i^2 (1[l_i = k] - p_k)^2 by the delta method (Owen 2013, Monte Carlo
theory, methods and examples, equation 9.9). Two independent estimates of one share have variances
in the ratio of 1 / n, so inverse variance weighs them by n. (Weighing by each estimate's own
p (1 - p) / n would favour whichever came out smaller.)

The interval is Jeffreys' (Brown, Cai and DasGupta 2001, section 3.1.1) with n p hits in n draws,

    Beta(n p + 1/2, n (1 - p) + 1/2)  between its quantiles,

which stays inside [0, 1] and, unlike p +- 2 stderr, keeps its coverage at small shares.

That is how well the density's own share is known. A density that was fitted to r independent rows
gives a label about the share that it has among them, so that as an estimate of the population's
share it has the variance p (1 - p) / r besides: together, that of 1 / (1 / n + 1 / r) draws.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.special import betaincinv

from tiltflow.data.errors import InputError
from tiltflow.evaluation.diagnostics import effective_sample_size

LEVEL = 0.95
MANY_CHAINS = 64
MOST = 5
"""Effective draws of a label, in draws; where weights are small there can be more than draws."""


class ModeWeights(NamedTuple):
    """The weight of every mode or label, sorted by label; `intervals` hold 95 % each.

    `centers` are the modes' places, None where the labels come from a function. The weights add
    up to one. `intervals` are of the density's own shares. `population_intervals` are of the shares
    where the rows of the fit come from, and hold the error of these rows as well; None where no
    rows were fitted, or a model does not say how many.
    """

    labels: Shaped[np.ndarray, " m"]
    centers: Shaped[np.ndarray, "m d"] | None
    weights: Float[np.ndarray, " m"]
    intervals: Float[np.ndarray, "m 2"]
    population_intervals: Float[np.ndarray, "m 2"] | None = None


class WeightEstimate(NamedTuple):
    """Estimated shares of the labels that were seen, sorted by label; they add up to one.

    `effective_draws` says how many independent draws each share is worth; `unseen_draws` how many
    stand behind the share zero of a label that was not seen.
    """

    labels: Shaped[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    effective_draws: Float[np.ndarray, " m"]
    unseen_draws: float

    @property
    def standard_errors(self) -> Float[np.ndarray, " m"]:
        """Standard error of every share; zero where one label has all."""
        return np.sqrt(self.weights * (1 - self.weights) / self.effective_draws)


def label_rows(
    label_fn: Callable[[Shaped[np.ndarray, "n d"]], Any], rows: Shaped[np.ndarray, "n d"]
) -> Shaped[np.ndarray, " n"]:
    """The labels that a user's function gives; an `InputError` if they are not one for each row."""
    labels = np.asarray(label_fn(rows))
    if labels.shape != (len(rows),):
        raise InputError(
            f"label_fn: returned shape {labels.shape} for {len(rows)} rows; return one label a row"
        )
    return labels


def weights_from_chains(labels: Shaped[np.ndarray, "draws chains"]) -> WeightEstimate:
    """Shares of the labels along chains that are independent of each other.

    Where all draws have one label, it is as sure as one draw of each chain makes it. A label that
    was not seen counts as the least known of those that were.

    Raises:
        InputError: there is no label, or some are not finite, or cannot be ordered.
    """
    seen, index = _seen(labels, dimensions=2)
    weights = np.bincount(index.ravel()) / index.size
    if len(seen) == 1:
        effective = np.full(1, float(index.shape[1]))
    else:
        effective = np.array([_effective_draws(index == k) for k in range(len(seen))])
    return WeightEstimate(seen, weights, effective, float(effective.min()))


def _effective_draws(indicator: Bool[np.ndarray, "draws chains"]) -> float:
    """How many independent draws the share of `indicator`, not constant, is worth; at least 1.

    Many chains show the error by the spread of their means, whatever their length; few chains by
    their autocorrelation.
    """
    draws, chains = indicator.shape
    share = indicator.mean()
    if chains >= MANY_CHAINS:
        spread = indicator.mean(axis=0).var(ddof=1) / chains
        effective = share * (1 - share) / max(spread, np.finfo(float).tiny)
    elif draws >= 4:
        effective = effective_sample_size(indicator)
    else:
        effective = float(chains)
    changes = indicator[1:] != indicator[:-1]
    visits = changes.sum() + chains  # inside and outside
    inside = indicator[0].sum() + (changes & indicator[1:]).sum()
    visits = min(inside, visits - inside)
    return float(_discounted(np.nan_to_num(effective), visits))


def _discounted(effective_draws: Any, hits: Any) -> Any:
    """The effective draws, of which `hits` separate ones fell into the label; at least 1.

    They are known only as well as there were hits. Without a discount, a few short visits or a few
    small weights look both poor in the label and sure of it (the factor was chosen by coverage).
    """
    return np.maximum(effective_draws * hits / (hits + 2), 1.0)


def _ratio(numerator: Float[np.ndarray, " m"], denominator: Float[np.ndarray, " m"]) -> np.ndarray:
    """Infinite where the rest has no weight to the last bit."""
    some = denominator > 0
    return np.where(some, numerator / np.where(some, denominator, 1.0), np.inf)


def weights_from_importance(
    labels: Shaped[np.ndarray, " n"], log_weights: Float[np.ndarray, " n"]
) -> WeightEstimate:
    """Shares of the labels under self-normalised importance weights of independent draws.

    A weight that is not finite counts as zero, and a label with no weight as not seen.

    Raises:
        InputError: no weight is finite; labels as for `weights_from_chains`.
    """
    labels, log_weights = np.asarray(labels), np.asarray(log_weights, float)
    finite = np.isfinite(log_weights)
    if not finite.any():
        raise InputError(
            f"log_weights: none of {log_weights.size} is finite, so no label has a weight; "
            "check the log-density and the proposal that the draws come from"
        )
    weights = np.exp(log_weights[finite] - log_weights[finite].max())
    labels, weights = labels[finite][weights > 0], weights[weights > 0]
    weights /= weights.sum()
    seen, index = _seen(labels, dimensions=1)
    share = np.bincount(index, weights=weights)
    squares = np.bincount(index, weights=weights**2)
    variance = squares * (1 - share) ** 2 + (squares.sum() - squares) * share**2
    overall = 1 / squares.sum()
    if len(seen) == 1:
        effective = np.full(1, overall)
    else:
        hits = _ratio(share**2, squares)
        other_hits = _ratio((1 - share) ** 2, squares.sum() - squares)
        # A label that one draw of next to no weight fell into has next to no variance, but is not
        # known much better than by all draws.
        effective = np.minimum(_ratio(share * (1 - share), variance), MOST * finite.size)
        effective = _discounted(effective, np.minimum(hits, other_hits))
    return WeightEstimate(seen, share, effective, float(overall))


def combine(a: WeightEstimate, b: WeightEstimate) -> WeightEstimate:
    """Two independent estimates by inverse variance; a label that one of them saw is included."""
    labels, (p_a, n_a), (p_b, n_b) = _aligned(a, b)
    n = n_a + n_b
    weights = (n_a * p_a + n_b * p_b) / n
    return WeightEstimate(labels, weights / weights.sum(), n, a.unseen_draws + b.unseen_draws)


def agreement(a: WeightEstimate, b: WeightEstimate) -> float:
    """The largest standardised difference |a - b| / sqrt(var a + var b) over the labels.

    Both variances are taken at the pooled share, so that a label that one of two estimates never
    saw counts by what the other gives it.
    """
    _, (p_a, n_a), (p_b, n_b) = _aligned(a, b)
    pooled = (n_a * p_a + n_b * p_b) / (n_a + n_b)
    variance = pooled * (1 - pooled) * (1 / n_a + 1 / n_b)
    difference = np.abs(p_a - p_b)
    floor = np.finfo(float).tiny
    return float(np.max(difference / np.sqrt(np.maximum(variance, floor)), initial=0.0))


def with_intervals(
    estimate: WeightEstimate,
    centers: Shaped[np.ndarray, "m d"] | None = None,
    rows: float | None = None,
) -> ModeWeights:
    """The estimate as users see it; `centers`, if any, in the order of its labels.

    `rows` are the independent rows that the density was fitted to, if it was.
    """
    # A sum of shares may round to more than one.
    p, n = np.minimum(estimate.weights, 1.0), estimate.effective_draws
    of_population = None if rows is None else _jeffreys(p, 1 / (1 / n + 1 / rows))
    return ModeWeights(estimate.labels, centers, p, _jeffreys(p, n), of_population)


def _jeffreys(p: Float[np.ndarray, " m"], n: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m 2"]:
    """Jeffreys' interval of a share that was p in n independent draws."""
    low, high = betaincinv(n * p + 0.5, n * (1 - p) + 0.5, [[(1 - LEVEL) / 2], [(1 + LEVEL) / 2]])
    # At the edges, and for far less than one hit, the quantiles would leave the estimate out.
    intervals = np.stack([np.minimum(low, p), np.maximum(high, p)], axis=1)
    intervals[p >= 1, 1] = 1.0
    return intervals


def _seen(labels: Any, *, dimensions: int) -> tuple[Any, Any]:
    """The distinct labels, sorted, and the place of every label among them."""
    labels = np.asarray(labels)
    if labels.ndim != dimensions or labels.size == 0:
        shape = "(draws, chains)" if dimensions == 2 else "(n,)"
        raise InputError(
            f"labels: shape {labels.shape} instead of {shape} with at least one label; "
            "return one label for each draw"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        bad = int((~np.isfinite(labels)).sum())
        raise InputError(f"labels: {bad} of {labels.size} are not finite; label every draw")
    try:
        return np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise InputError(f"labels: they cannot be sorted ({error}); use one type") from None


def _aligned(a: WeightEstimate, b: WeightEstimate) -> tuple[Any, tuple[Any, Any], tuple[Any, Any]]:
    """All labels of both, and for each estimate shares and effective draws in their order."""
    labels = np.union1d(a.labels, b.labels)

    def spread(estimate: WeightEstimate) -> tuple[Any, Any]:
        place = np.searchsorted(labels, estimate.labels)
        weights = np.zeros(len(labels))
        draws = np.full(len(labels), estimate.unseen_draws)
        weights[place], draws[place] = estimate.weights, estimate.effective_draws
        return weights, draws

    return labels, spread(a), spread(b)
