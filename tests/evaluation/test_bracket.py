"""The closer look at log Z: all its estimates agree on known fits, and it is asked for in doubt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.evaluation import bracket as module
from tiltflow.evaluation.annealed import LogNormalizerBounds
from tiltflow.evaluation.assessment import assess
from tiltflow.evaluation.bracket import bracket, bracket_figures, judge_closely
from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.log_normalizer import importance_sampling
from tiltflow.evaluation.witnesses import call_witnesses
from tiltflow.experiments.known_fits import kinds
from tiltflow.sampling.recording import frozen_sweeps
from tiltflow.sampling.sweep import FrozenKernel


def looked_at(name, step_size, chains=256):
    """The witnesses of a known fit whose chains start at exact draws, and what they were of."""
    (kind,) = [kind for kind in kinds() if kind.name == name]
    fit = kind.make(jax.random.key(0))
    kernel = FrozenKernel("mala", 5, jnp.asarray(step_size))
    start = fit.target.sample(jax.random.key(1), chains)
    sweeps = frozen_sweeps(fit.log_density, fit.flow, start, kernel)
    seen = call_witnesses(
        jax.random.key(2), fit.log_density, fit.flow, sweeps, sweeps=16, draws=8192
    )
    return seen, (fit.log_density, fit.flow, seen.recording.position[-1], kernel)


@pytest.fixture(scope="module")
def narrow():
    return looked_at("flow too narrow", 0.05)


@pytest.mark.parametrize(
    ("name", "step_size"),
    [("two modes, flow half as wide again", 0.05), ("four modes, d = 16", 0.3), ("banana", 0.02)],
)
def test_all_estimates_agree_on_known_targets(name, step_size):
    """Log Z is 0: estimates within 4.5 standard errors, the bounds within 4 on their sides."""
    seen, fit = looked_at(name, step_size)
    bounds = bracket(jax.random.key(3), *fit)
    for estimate in (
        importance_sampling(seen.log_weights),
        bridge_sampling(seen.log_weights, seen.recording.log_ratio),
        bounds.estimate,
    ):
        assert abs(float(estimate.log_z)) < 4.5 * float(estimate.stderr) < 0.2
    lower, lower_stderr, upper, upper_stderr = map(float, bounds[:4])
    assert lower - 4 * lower_stderr < 0 < upper + 4 * upper_stderr
    assert upper - lower < 0.5
    assert 0.3 < float(bounds.acceptance_rate) < 1


def test_a_narrow_flow_is_looked_at_closely_and_its_bracket_told(narrow):
    seen, fit = narrow
    verdict = judge_closely(jax.random.key(3), assess(seen), *fit)
    figures = verdict.figures
    assert verdict.status != "trusted"
    assert figures["bracket_excess"] == 0
    assert figures["log_z_lower"] < 0 < figures["log_z_upper"]
    assert figures["bracket_width"] == figures["log_z_upper"] - figures["log_z_lower"] > 0.1
    assert any("leave log Z open" in reason for reason in verdict.reasons)


def test_a_log_z_outside_of_its_bounds_is_a_reason(narrow):
    seen, fit = narrow
    assessment = assess(seen)
    for wrong in (-5.0, 5.0):
        off = assessment._replace(figures=assessment.figures | {"log_z": wrong})
        verdict = judge_closely(jax.random.key(3), off, *fit)
        assert any("outside of the bounds" in reason for reason in verdict.reasons)


def test_what_is_in_no_doubt_is_not_looked_at(narrow, monkeypatch):
    seen, fit = narrow
    good = assess(seen)
    limits = {"pareto_k": 0.1, "chain_pareto_k": 0.1, "importance_ess": 0.9, "stuck_share": 0.0}
    good.figures.update(limits, global_acceptance_rate=0.5, log_z_stderr=0.01)
    good.figures.update(log_z_disagreement=1.0)
    monkeypatch.setattr(module, "bracket", None)
    assert "bracket_width" not in judge_closely(jax.random.key(3), good, *fit).figures


@pytest.mark.parametrize(
    ("log_z", "excess"), [(1.0, 0.0), (0.72, 0.0), (0.5, 0.2), (3.28, 0.0), (3.6, 0.0), (5.0, 1.4)]
)
def test_the_excess_is_what_lies_beyond_three_standard_errors(log_z, excess):
    estimate = importance_sampling(jnp.zeros(4))
    bounds = LogNormalizerBounds(*map(jnp.asarray, (1.0, 0.1, 3.0, 0.2)), estimate, jnp.ones(()))
    figures = bracket_figures(bounds, log_z)
    assert figures["bracket_excess"] == pytest.approx(excess, abs=1e-6)
    assert figures["bracket_width"] == pytest.approx(2.0)


def test_infinite_bounds_exclude_nothing():
    infinite = map(jnp.asarray, (-np.inf, np.inf, np.inf, np.inf))
    estimate = importance_sampling(jnp.zeros(4))
    figures = bracket_figures(LogNormalizerBounds(*infinite, estimate, jnp.ones(())), 0.0)
    assert figures["bracket_excess"] == 0 and figures["bracket_width"] == np.inf
