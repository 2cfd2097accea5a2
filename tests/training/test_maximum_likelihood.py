"""The first fit of a flow: it improves, keeps its best, stops early, and repeats itself."""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.distributions import AbstractDistribution, Normal

from tiltflow.data.errors import InputError
from tiltflow.training.flow_objective import Minimise
from tiltflow.training.maximum_likelihood import check_fit, fit_flow

# One shape for all, so that one compilation serves them.
N = 64


def normal_rows(seed, mean, n=N):
    return np.random.default_rng(seed).normal(mean, 1, (n, 2))


@pytest.fixture(scope="module")
def start():
    """A standard normal whose location and scale are trained: the quickest flow to compile."""
    return Normal(jnp.zeros(2), jnp.ones(2))


def fit(start, x, held_out, *, seed=0, max_steps=400, patience=3, **options):
    reports = []
    result = fit_flow(
        jax.random.key(seed),
        start,
        jnp.asarray(x),
        jnp.asarray(held_out),
        learning_rate=0.03,
        batch_size=16,
        chunk=20,
        max_steps=max_steps,
        patience=patience,
        on_report=reports.append,
        **options,
    )
    return result, reports


def score(flow, x):
    return float(flow.log_prob(jnp.asarray(x)).mean())


def test_it_comes_near_the_true_likelihood(start):
    x, held_out = normal_rows(1, 2.0), normal_rows(2, 2.0)
    before = score(start, held_out)
    result, _ = fit(start, x, held_out)
    truth = -0.5 * ((held_out - 2) ** 2).sum(1).mean() - np.log(2 * np.pi)
    assert before < truth - 1
    assert score(result.flow, held_out) > truth - 0.15
    assert score(start, held_out) == before


def test_it_keeps_the_best_and_stops_after_it(start):
    """The rows pull towards 4, the held-out rows are at 2: the best is on the way."""
    x, held_out = normal_rows(1, 4.0), normal_rows(2, 2.0)
    result, reports = fit(start, x, held_out)
    scores = {report["step"]: report["held_out_log_likelihood"] for report in reports}
    best = max(scores, key=lambda step: scores[step])
    assert result.steps == best
    assert result.held_out_log_likelihood == scores[best]
    assert score(result.flow, held_out) == pytest.approx(scores[best], abs=1e-5)
    assert list(scores)[-1] == best + 3 * 20 < 400
    assert scores[best] > list(scores.values())[-1] + 0.1


def test_a_start_that_is_never_beaten_is_returned(start):
    result, reports = fit(start, normal_rows(1, 4.0), normal_rows(0, 0.0))
    assert result.steps == 0
    assert result.flow is start
    assert len(reports) == 3


def test_the_same_key_gives_the_same_bits_and_another_does_not(start):
    x, held_out = normal_rows(1, 2.0), normal_rows(2, 2.0)
    one, again, other = (
        jax.tree.leaves(fit(start, x, held_out, seed=seed, max_steps=40)[0].flow)
        for seed in (0, 0, 1)
    )
    arrays = [i for i, leaf in enumerate(one) if hasattr(leaf, "dtype")]
    assert all(np.array_equal(one[i], again[i]) for i in arrays)
    assert not all(np.array_equal(one[i], other[i]) for i in arrays)


def test_what_is_not_finite_is_never_kept(start):
    """One row of four batches is missing a number: every fourth step is skipped, and counted."""
    x = normal_rows(1, 2.0)
    x[0, 0] = np.nan
    held_out = normal_rows(2, 2.0)
    result, reports = fit(start, x, held_out, max_steps=100)
    assert np.isfinite(score(result.flow, held_out))
    assert result.skipped == 25
    assert [report["skipped_steps"] for report in reports] == [5] * 5
    assert result.held_out_log_likelihood > score(start, held_out) + 1


def test_rows_without_any_good_batch_are_named(start):
    x = np.full((N, 2), np.nan)
    with pytest.raises(
        InputError, match=r"^rows: the log-density is -inf at row 1 \(64 of 64 rows"
    ):
        fit(start, x, normal_rows(2, 2.0))


def test_held_out_rows_that_are_not_finite_end_it_with_the_reason(start):
    held_out = normal_rows(2, 2.0)
    held_out[4, 1] = np.inf
    result, reports = fit(start, normal_rows(1, 2.0), held_out)
    assert len(reports) == 1 and result.flow is start
    assert result.stopped == reports[0]["stopped"]
    assert "held-out rows: the log-density is -inf at row 5 (1 of 64 rows)" in result.stopped
    with pytest.raises(InputError, match="at row 5"):
        check_fit(result)


@dataclass(frozen=True)
class FailsLater:
    """The likelihood, but not a number once the location is near the rows."""

    def __call__(self, key, flow, batch):
        far = paramax.unwrap(flow).loc[0] < 1
        return jnp.where(far, -flow.log_prob(batch).mean(), jnp.nan)


def test_what_fails_later_ends_with_the_best_so_far(start):
    """Its rows are as they were, so that the flow alone says nothing: steps are skipped."""
    x, held_out = normal_rows(1, 2.0), normal_rows(2, 2.0)
    result, _ = fit(start, x, held_out, objective=Minimise(FailsLater()))
    assert result.skipped > 0 and result.stopped is None
    assert result.steps > 0 and result.held_out_log_likelihood > score(start, held_out) + 0.5


class Blind(Minimise):
    """As `Minimise`, but told that the rows have no likelihood."""

    def diagnose(self, flow, x):
        raise InputError("the field is not finite at row 1")


def test_a_known_reason_ends_it_at_the_last_good_state(start):
    x, held_out = normal_rows(1, 2.0), normal_rows(2, 2.0)
    result, reports = fit(start, x, held_out, objective=Blind(FailsLater()))
    assert result.steps > 0
    assert result.stopped == "rows: the field is not finite at row 1" == reports[-1]["stopped"]
    assert sum("stopped" in report for report in reports) == 1
    assert reports[-1]["skipped_steps"] == 20


def test_a_good_start_is_not_lost_in_the_first_steps(start):
    """From the truth, with a rate far too large for it: the warm-up holds it there."""
    x, held_out = normal_rows(1, 0.0), normal_rows(2, 0.0)
    _, reports = fit(start, x, held_out, max_steps=1600, patience=1)
    assert reports[0]["held_out_log_likelihood"] > score(start, held_out) - 0.01


def test_scores_are_those_of_the_moving_average(start):
    """Second differences of the scores: the last step's parameters jump from chunk to chunk."""
    x, held_out = normal_rows(1, 0.0), normal_rows(2, 0.0)
    _, reports = fit(start, x, held_out, max_steps=1600, patience=40)
    scores = np.array([report["held_out_log_likelihood"] for report in reports])
    assert np.abs(np.diff(scores[10:40], 2)).mean() < 0.004


class Idle(AbstractDistribution):
    """A normal with two parameters that its density does not depend on: a network's, and not."""

    shape: tuple[int, ...]
    cond_shape: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    normal: Normal
    network: eqx.nn.MLP
    other: jax.Array

    def _log_prob(self, x, condition=None):
        return self.normal._log_prob(x)

    def _sample(self, key, condition=None):
        return self.normal._sample(key)


def test_weight_decay_is_of_networks_alone(start):
    """Without a gradient only the decay moves: each step takes rate times decay of a weight."""
    network = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0))
    flow = Idle((2,), start, network, jnp.ones(3))
    x, held_out = normal_rows(1, 2.0), normal_rows(2, 2.0)

    def shrunk(weight_decay):
        fitted = fit(flow, x, held_out, max_steps=20, weight_decay=weight_decay)[0].flow
        np.testing.assert_array_equal(fitted.other, 1.0)
        return np.asarray(fitted.network.layers[0].weight / network.layers[0].weight)

    np.testing.assert_allclose(shrunk(0.0), 1.0, atol=1e-6)
    decayed = shrunk(1.0)
    np.testing.assert_allclose(decayed, decayed[0, 0], rtol=1e-5)
    assert 0.5 < decayed[0, 0] < 0.95


@dataclass(frozen=True)
class Blown:
    """A loss whose gradient in the location is the noise of its key, and none of the rows'."""

    fresh: bool = True

    def __call__(self, key, flow, batch):
        key = key if self.fresh else jax.random.key(0)
        return paramax.unwrap(flow).loc @ jax.random.normal(key, (2,))


def test_every_step_has_noise_of_its_own(start):
    """The same noise in each step goes straight on; fresh noise goes to and fro."""
    x = normal_rows(1, 0.0)

    def way(loss):
        reports = []
        fit_flow(
            jax.random.key(0),
            start,
            jnp.asarray(x),
            jnp.asarray(x),
            objective=Minimise(loss),
            averaging=0.0,
            learning_rate=0.03,
            batch_size=16,
            chunk=20,
            max_steps=400,
            patience=99,
            on_report=reports.append,
        )
        return reports[-1]["held_out_log_likelihood"]

    assert way(Blown(fresh=False)) < -20
    assert way(Blown()) > -8


def test_it_stops_when_it_is_told_and_keeps_the_best_so_far(start):
    x, held_out = normal_rows(1, 2.0), normal_rows(2, 2.0)
    asked = iter([False, False, False, True])
    result, reports = fit(start, x, held_out, stop=lambda: next(asked))
    assert [report["step"] for report in reports] == [20, 40, 60]
    short, _ = fit(start, x, held_out, stop=iter([True]).__next__)
    assert score(short.flow, held_out) == score(start, held_out) < score(result.flow, held_out)
