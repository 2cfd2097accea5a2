"""Coverage of 95 % intervals: exact ones hold, halved ones are caught, runs go on where cut off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom, norm

from tiltflow.data.funnel import Funnel
from tiltflow.data.mixtures import two_modes
from tiltflow.evaluation.log_normalizer import LogNormalizer
from tiltflow.evaluation.mode_weights import weights_from_chains
from tiltflow.experiments import coverage as module
from tiltflow.experiments.coverage import (
    WAYS,
    Case,
    cases,
    coverage,
    coverages,
    initial_positions,
    replicate_figures,
    run_case,
    summary,
)

LEVEL = 1e-6
HALF = norm.ppf(0.975)


def normal_estimates(n, seed, *, claimed):
    """Estimates of 0.3 with error 0.1, of which `claimed` times as much is said."""
    estimates = np.random.default_rng(seed).normal(0.3, 0.1, n)
    errors = np.full(n, claimed * 0.1)
    intervals = np.stack([estimates - HALF * errors, estimates + HALF * errors], axis=1)
    return coverage(0.3, estimates, intervals, errors)


def test_exact_intervals_hold_at_their_level():
    found = normal_estimates(4000, 0, claimed=1.0)
    low, high = binom.interval(1 - LEVEL, 4000, 0.95)
    assert low <= 4000 * found.share <= high
    assert found.z_std == pytest.approx(1.0, abs=0.06)
    assert abs(found.z_mean) < 0.08
    assert found.width == pytest.approx(2 * HALF * 0.1)


@pytest.mark.parametrize("claimed", [0.5, 2.0])
def test_intervals_of_a_wrong_width_are_caught(claimed):
    found = normal_estimates(200, 0, claimed=claimed)
    low, high = binom.interval(0.95, 200, 0.95)
    assert not low <= 200 * found.share <= high
    assert found.z_std == pytest.approx(1 / claimed, rel=0.2)


def exact_line(generator, weight=2 / 3, draws=400):
    """A replicate of two modes whose three ways are all binomial, and log Z exact but for noise."""
    hits = generator.random((4, draws // 4)) >= weight
    by_way = {way: weights_from_chains(hits.T.astype(int)) for way in WAYS}
    one = LogNormalizer(*map(jnp.asarray, (generator.normal(0, 0.1), 0.1, 1.0)))
    return replicate_figures(one, one, by_way, 2)


def test_the_figures_of_replicates_add_up_to_their_coverages():
    generator = np.random.default_rng(0)
    found = coverages(two_modes(), [exact_line(generator) for _ in range(100)])
    assert len(found) == 2 + 3 * 2
    low, high = binom.interval(1 - LEVEL, 100, 0.95)
    for name, each in found.items():
        assert low <= 100 * each.share <= high, name


def test_weights_of_another_target_are_caught():
    generator = np.random.default_rng(0)
    lines = [exact_line(generator, weight=0.8) for _ in range(50)]
    found = coverages(two_modes(), lines)
    assert found["weight 0.67 of mode 0 by chains"].share < 0.1
    assert found["weight 0.67 of mode 0 by chains"].z_mean > 2


def test_a_mode_that_was_never_seen_counts_as_missed():
    by_way = {way: weights_from_chains(np.zeros((8, 100), int)) for way in WAYS}
    one = LogNormalizer(*map(jnp.asarray, (0.0, 0.1, 1.0)))
    line = replicate_figures(one, one, by_way, 2)
    found = coverages(two_modes(), [line])
    assert found["weight 0.33 of mode 1 by both"].share == 0
    assert found["log Z by bridge"].share == 1


def test_an_infinite_error_holds_everything_and_has_no_z():
    found = coverage(
        0.0, np.array([-np.inf, 0.0]), np.array([[-np.inf, np.inf], [-1, 1]]), np.array([np.inf, 0])
    )
    assert found.share == 1 and np.isnan(found.z_std)


def test_starts_are_shared_out_equally_to_the_modes():
    target = two_modes()
    starts = initial_positions(jax.random.key(0), target, 64)
    assert np.asarray(jax.vmap(target.label)(starts)).tolist() == [0, 1] * 32
    assert initial_positions(jax.random.key(0), Funnel(10), 64).shape == (64, 10)


def test_the_cases_share_out_200_replicates():
    assert all(module.REPLICATES % case.warm_ups == 0 for case in cases())


def test_a_run_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    ran = []

    def replicate_warm_up(key, target, replicates):
        ran.append(key)
        generator = np.random.default_rng(len(ran))
        lines = [exact_line(generator) | {"seconds": 0.5} for _ in range(replicates)]
        return [lines[0] | {"verdict": "trusted"}, *lines[1:]]

    monkeypatch.setattr(module, "replicate_warm_up", replicate_warm_up)
    short, full = Case("two", two_modes(), 4), Case("two", two_modes(), 5)
    run_case(short, seeds=1, seed=3, quiet=True, out=tmp_path)
    assert len(ran) == 4
    # A line that was being written when the machine went down.
    with (tmp_path / "replicates.jsonl").open("a") as file:
        file.write('\n{"case": "two", "se')
    lines = run_case(full, seeds=1, seed=3, quiet=True, out=tmp_path)
    assert len(ran) == 5
    assert [line["warm_up"] for line in lines[::50]] == [0, 1, 2, 3, 4][: len(lines[::50])]
    run_case(full, seeds=1, seed=3, quiet=True, out=tmp_path)
    assert len(ran) == 5
    text = summary(full, lines)
    assert "replicates of 5 warm-ups" in text and "5 trusted" in text
    # Another seed is another run.
    run_case(short, seeds=1, seed=4, quiet=True, out=tmp_path)
    assert len(ran) == 9
    assert len({tuple(jax.random.key_data(key).tolist()) for key in ran}) == 9
