"""The global move that a frozen flow gets: annealed paths where single draws are all refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiltflow
from tiltflow.data.mixtures import gaussian_mixture
from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.witnesses import call_witnesses
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.sampling.recording import frozen_sweeps
from tiltflow.sampling.sweep import FrozenKernel
from tiltflow.training.adaptive_sweeps import WarmUpSettings
from tiltflow.training.global_move import choose_global_move

D = 16
LOG_Z = 1.7
WEIGHTS = np.array([0.3, 0.7])
MEANS = 6.0 * np.eye(2, 1) @ np.eye(1, D)
TARGET = gaussian_mixture(MEANS, np.stack([np.eye(D)] * 2), WEIGHTS)
KERNEL = FrozenKernel("mala", 5, jnp.asarray(0.4))


class Shifted(eqx.Module):
    """The target, with log Z = 1.7."""

    target: eqx.Module

    def __call__(self, x):
        return self.target.log_prob(x) + LOG_Z


def stretched(scale):
    """A flow of the target's two modes in equal shares, too wide or too narrow."""
    return GaussianMixture(np.full(2, 0.5), MEANS, np.stack([scale**2 * np.eye(D)] * 2))


def log_weights(key, flow, n=2000):
    draw_key, chain_key = jax.random.split(key)
    chains, draws = TARGET.sample(chain_key, n), flow.sample(draw_key, (n,))
    at_chains, of_draws = (jax.vmap(TARGET.log_prob)(x) - flow.log_prob(x) for x in (chains, draws))
    return chains, np.asarray(at_chains), of_draws


def choose(key, scale):
    flow = stretched(scale)
    chains, at_chains, of_draws = log_weights(key, flow)
    return (
        flow,
        chains,
        choose_global_move(key, Shifted(TARGET), flow, KERNEL, chains[:256], at_chains, of_draws),
    )


def test_where_no_draw_is_accepted_paths_are_and_tell_log_z(key):
    """Within 4.5 standard errors; with weights of single draws for the paths', off by over 8."""
    flow, chains, (kernel, report) = choose(key, 0.35)
    assert report["kept"] and kernel.path is not None
    assert 20 * report["without_path"] < 0.1 < report["global_acceptance_rate"]

    def bridge(path):
        sweeps = frozen_sweeps(Shifted(TARGET), flow, chains[:256], kernel)
        seen = call_witnesses(key, Shifted(TARGET), flow, sweeps, sweeps=16, draws=1024, path=path)
        rate = float(seen.recording.global_acceptance_rate.mean())
        return bridge_sampling(seen.log_weights, seen.recording.log_ratio), rate

    right, rate = bridge(kernel.path)
    assert abs(float(right.log_z) - LOG_Z) < 4.5 * float(right.stderr) < 0.5
    assert rate == pytest.approx(report["global_acceptance_rate"], rel=0.3)
    wrong, _ = bridge(None)
    assert abs(float(wrong.log_z) - LOG_Z) > 8 * float(wrong.stderr)


def test_a_flow_that_is_good_enough_gets_no_path(key):
    _, _, (kernel, report) = choose(key, 1.1)
    assert report is None and kernel.path is None


def test_without_weights_at_chains_nothing_is_tried(key):
    chains, _, of_draws = log_weights(key, stretched(3.0), 10)
    kernel, report = choose_global_move(
        key, Shifted(TARGET), stretched(3.0), KERNEL, chains, np.zeros(0), of_draws
    )
    assert report is None and kernel.path is None and kernel.proposals == 1


def test_sample_takes_paths_when_a_users_flow_is_poor():
    """Chains start in equal shares in modes of .3 and .7; the flow may not learn.

    log Z within 4.5 standard errors, the weight within its 95 % interval and a little.
    """
    starts = np.random.default_rng(0).normal(size=(96, D)) + MEANS[np.arange(96) % 2]
    settings = WarmUpSettings(
        exploration_chunks=1,
        mixture_chunks=1,
        flow_chunks=1,
        learning_rate=0.0,
        reservoir=1024,
        local_steps=5,
        max_components=2,
    )
    result = tiltflow.sample(
        Shifted(TARGET),
        starts,
        key=jax.random.key(0),
        num_samples=1000,
        settings=settings,
        flow=stretched(3.0),
    )
    report = result.reports[-1]
    assert report["stage"] == "annealed path" and report["kept"]
    assert 20 * report["without_path"] < 0.1 < report["global_acceptance_rate"]
    assert result.verdict.figures["global_acceptance_rate"] > 0.1
    assert abs(result.log_z - LOG_Z) < 4.5 * result.log_z_stderr < 0.5
    found = result.mode_weights(lambda x: (x[:, 0] < 3).astype(int))
    low, high = found.intervals[1]
    assert low - 0.02 < WEIGHTS[1] < high + 0.02 and high - low < 0.15
    # What is left can run on: nothing of it was given away to be overwritten.
    assert np.isfinite(result.sampler.kernel.preconditioner.scale).all()
