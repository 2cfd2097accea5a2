"""Annealed importance sampling: bounds on both sides of the known log Z."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import StandardNormal
from jaxtyping import Array, Float

from tiltflow.evaluation import annealed
from tiltflow.evaluation.annealed import annealed_bounds
from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.log_normalizer import importance_sampling
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling import paths
from tiltflow.sampling.chains import refresh
from tiltflow.sampling.kernels import local_moves
from tiltflow.sampling.paths import AnnealedPath, anneal


class Tilt(eqx.Module):
    """On N(0, 1) in each coordinate: the model is N(-slope, 1), log Z = |slope|^2 / 2."""

    slope: Float[Array, " d"]

    def __call__(self, x):
        return self.slope @ x


SLOPE = np.array([1.5, -0.5])
MODEL = TiltedEBM(StandardNormal((2,)), Tilt(jnp.asarray(SLOPE)))
LOG_Z = (SLOPE**2).sum() / 2
FLOW = GaussianMixture(np.ones(1), np.full((1, 2), 0.5), 1.5 * np.eye(2)[None])
STEP_SIZE = 0.5


def exact_draws(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, 2)) - SLOPE)


def path_of(steps, step_size=STEP_SIZE):
    """An even row of temperatures, so that there are `steps` of them with both ends."""
    temperatures = jnp.linspace(0.0, 1.0, steps)[1:-1]
    return AnnealedPath(temperatures, jnp.full(steps - 2, step_size))


def bounds(key, n=2000, temperatures=6, start=exact_draws, model=MODEL):
    return annealed_bounds(key, model.log_density, FLOW, start(n), path_of(temperatures))


def test_the_bounds_lie_on_both_sides_and_close_in(key):
    """By more than 4 standard errors with few temperatures; with more, they come closer."""
    few, many = bounds(key), bounds(key, temperatures=24)
    assert few.lower + 4 * few.lower_stderr < LOG_Z < few.upper - 4 * few.upper_stderr
    assert many.lower - 4 * many.lower_stderr < LOG_Z < many.upper + 4 * many.upper_stderr
    assert many.upper - many.lower < 0.5 * (few.upper - few.lower)
    assert 0.4 < float(few.acceptance_rate) < 1


def test_the_bounds_gap_without_moves_is_the_divergences(key):
    """A step so small that nothing moves: the means of the log ratio under flow and model.

    They are log Z - KL(flow || model) and log Z + KL(model || flow), within 4 standard errors.
    """
    found = annealed_bounds(
        key,
        MODEL.log_density,
        FLOW,
        exact_draws(2000),
        path_of(3, 1e-12),
    )
    squared = ((0.5 + SLOPE) ** 2).sum()
    down = (2 * 1.5 + squared - 2 - 2 * np.log(1.5)) / 2
    up = (2 / 1.5 + squared / 1.5 - 2 + 2 * np.log(1.5)) / 2
    assert abs(found.lower - (LOG_Z - down)) < 4 * found.lower_stderr
    assert abs(found.upper - (LOG_Z + up)) < 4 * found.upper_stderr


def test_all_estimators_agree(key):
    """Importance, bridge and annealed sampling, each within 4 of its standard errors."""
    flow_draws, log_prob = FLOW.sample_and_log_prob(key, (2000,))
    proposal = jax.vmap(MODEL.log_density)(flow_draws) - log_prob
    chain = exact_draws(2000)
    ratios = jax.vmap(MODEL.log_density)(chain) - FLOW.log_prob(chain)
    estimates = [
        importance_sampling(proposal),
        bridge_sampling(proposal, ratios.reshape(100, 20)),
        bounds(key, temperatures=12).estimate,
    ]
    for estimate in estimates:
        assert abs(float(estimate.log_z) - LOG_Z) < 4 * float(estimate.stderr)
        assert 0 < float(estimate.stderr) < 0.1


def moved_elsewhere(kind, key, chains, log_density, step_size, steps, **scale):
    """Moves for a density that is shifted by 0.5: the wrong one at every temperature."""
    shifted = lambda x: log_density(x - 0.5)  # noqa: E731
    chains = refresh(chains.position, shifted)
    return local_moves(kind, key, chains, shifted, step_size, steps, **scale)


def test_moves_that_leave_another_density_invariant_are_caught(key, monkeypatch):
    right = bounds(key, n=3000, temperatures=12)
    assert abs(float(right.estimate.log_z) - LOG_Z) < 4 * float(right.estimate.stderr)
    monkeypatch.setattr(paths, "local_moves", moved_elsewhere)
    # Another number of paths, so that it is traced again.
    wrong = bounds(key, n=3001, temperatures=12)
    assert abs(float(wrong.estimate.log_z) - LOG_Z) > 8 * float(wrong.estimate.stderr)


def from_the_other_end(key, position, *arguments, down=False):
    """Chains go up and draws of the flow down."""
    position = FLOW.sample(key, (len(position),)) if down else exact_draws(len(position))
    return anneal(key, position, *arguments, down=down)


def test_paths_from_the_wrong_ends_are_caught(key, monkeypatch):
    """Then the lower bound lies above and the upper one below, by more than 8 standard errors."""
    monkeypatch.setattr(annealed, "anneal", from_the_other_end)
    wrong = bounds(key, n=3002, temperatures=4)
    assert wrong.lower - 8 * wrong.lower_stderr > LOG_Z > wrong.upper + 8 * wrong.upper_stderr


def test_a_reverse_run_that_does_not_start_at_the_model_is_no_upper_bound(key):
    """Why the chains must be draws of the model."""
    wrong = bounds(key, start=lambda n: FLOW.sample(key, (n,)))
    assert wrong.upper + 8 * wrong.upper_stderr < LOG_Z


class Half(eqx.Module):
    """N(0, 1) in each coordinate where the first is positive, and `outside` elsewhere."""

    outside: Float[Array, ""]

    def __call__(self, x):
        return jnp.where(x[0] > 0, -0.5 * x @ x - jnp.log(2 * jnp.pi), self.outside)


@pytest.mark.parametrize("outside", [-np.inf, np.inf, np.nan])
def test_a_density_that_is_not_finite_counts_as_zero(key, outside):
    """Half of the flow's draws lie outside of the support: Z is one half."""
    inside = jnp.abs(jax.random.normal(jax.random.key(1), (2000, 2)))
    found = annealed_bounds(
        key,
        Half(jnp.asarray(outside)),
        StandardNormal((2,)),
        inside,
        path_of(5),
    )
    assert abs(float(found.estimate.log_z) - np.log(0.5)) < 4 * float(found.estimate.stderr)
    assert abs(found.lower - np.log(0.5)) < 4 * found.lower_stderr
    # No path comes back from inside, so the upper bound is exact as well.
    assert np.isfinite(found.upper) and found.upper > np.log(0.5) - 1e-5


def test_nothing_finite_bounds_nothing(key):
    found = annealed_bounds(
        key,
        lambda x: jnp.nan * x[0],
        StandardNormal((2,)),
        jnp.zeros((4, 2)),
        path_of(3),
    )
    assert (float(found.lower), float(found.upper)) == (-np.inf, np.inf)
    assert (float(found.lower_stderr), float(found.upper_stderr)) == (np.inf, np.inf)
    assert float(found.estimate.log_z) == -np.inf


def test_another_model_does_not_compile_again(key):
    traces = []

    class Counted(Tilt):
        def __call__(self, x):
            traces.append(1)
            return super().__call__(x)

    for slope in ([1.0, 0.0], [0.0, 1.0]):
        model = TiltedEBM(StandardNormal((2,)), Counted(jnp.asarray(slope)))
        bounds(key, n=10, model=model)
        counted = len(traces) if slope[0] else counted
    assert len(traces) == counted
