"""The zones' shares are counted by weight, and chains in a latent space for what they are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import Normal, Transformed

from tiltflow.experiments import four_zones as module
from tiltflow.experiments import latent_chains
from tiltflow.experiments.density_images import Image, LastChains, keep_image, read_image
from tiltflow.experiments.four_zones import (
    CASE,
    bars_met,
    points_of,
    save_figure,
    shares_table,
)
from tiltflow.experiments.latent_chains import count_jumps, record, zones_over_time
from tiltflow.experiments.problem import make_problem
from tiltflow.experiments.trial import shares_of_chains
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.loop import Trained
from tiltflow.training.neural_transport import NeuralTransport, NeuralTransportState

CORNERS = np.array([[3.0, 3.0], [-3.0, 3.0], [-3.0, -3.0], [3.0, -3.0]])


class Quadratic(eqx.Module):
    """Tilts N(0, I) to N(0, I / 2)."""

    def __call__(self, x):
        return 0.5 * jnp.sum(x**2)


@pytest.fixture(scope="module")
def problem():
    return make_problem(CASE.make_target(), rows=500, seed=0)


def line(method, figures, seed=0, budget="evaluations"):
    names = {"method": method, "setting": "shared", "seed": seed, "budget": budget}
    return {**names, "fingerprint": method, "figures": figures}


def test_chains_count_by_their_weights_and_lost_ones_in_no_zone(problem):
    position = np.concatenate([CORNERS, CORNERS[:1], [[np.nan, 0.0]]])
    chains = LastChains(position, np.array([0.1, 0.2, 0.3, 0.1, 0.1, 0.2]))
    np.testing.assert_allclose(shares_of_chains(problem, chains), [0.2, 0.2, 0.3, 0.1])


def test_points_are_drawn_by_their_weights():
    axis = np.array([-3.0, 3.0])
    weights = np.array([0.0, 0.5, 0.25, 0.25])
    points = points_of(Image(axis, axis, np.zeros((2, 2)), CORNERS, weights))
    np.testing.assert_array_equal(points, CORNERS[[1, 1, 2, 3]])
    # Without chains they are draws of the density: here all of it lies in one cell.
    log_prob = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    points = points_of(Image(axis, axis, log_prob))
    assert (points[:, 0] < 0).all() and (points[:, 1] > 0).all() and len(points) > 500


def test_the_tables_tell_shares_by_chains_and_by_density_apart(monkeypatch, problem):
    monkeypatch.setattr(module, "make_problem", lambda *_, **__: problem)
    lines = [
        line("balanced", {"weights": [0.4, 0.3, 0.2, 0.1], "chain_weights": [0.7, 0.1, 0.1, 0.1]}),
        line("flow", {"weights": [0.25] * 4}),
        line("balanced", {"weights": [1.0, 0, 0, 0]}, budget="seconds"),
    ]
    rows = [text.split() for text in shares_table(CASE, lines).splitlines()[2:]]
    assert [row[:3] for row in rows[1:]] == [
        ["balanced", "shared", "chains"],
        ["balanced", "shared", "density"],
        ["flow", "shared", "density"],
    ]
    assert [float(each) for each in rows[1][3:]] == [0.7, 0.1, 0.1, 0.1]
    bars = [line("balanced", {"weight_error_data": 0.004, "kl": 0.006}), line("pcd", {})]
    assert [text.rsplit(": ", 1)[1] for text in bars_met(bars)] == ["met", "missed"]


def test_the_figure_is_drawn_from_what_was_kept(tmp_path, problem):
    model = TiltedEBM(Normal(jnp.zeros(2)), Quadratic())
    figures = {"weights": [0.25] * 4, "chain_weights": [0.25] * 4}
    figures |= {"kl": 1.0, "weight_error_data": 0.1}
    lines = [line("pcd", figures), line("flow", {**figures, "kl": np.nan}), line("cd", figures)]
    chains = LastChains(CORNERS, np.full(4, 0.25))
    keep_image(tmp_path, lines[0], problem, model, 0.0, chains)
    keep_image(tmp_path, lines[1], problem, model, 0.0)
    first, second, third = (read_image(tmp_path, each) for each in lines)
    assert first is not None and second is not None and third is None
    np.testing.assert_array_equal(first.position, CORNERS)
    assert second.position is None
    save_figure(CASE, lines, tmp_path)
    assert (tmp_path / "figure.png").stat().st_size < 300_000


def test_jumps_are_changes_of_zone():
    zones = np.array([[0, 1, 2], [0, 2, 2], [0, 1, 2], [0, 1, 3]])
    jumps, stayed = count_jumps(zones, 500)
    assert jumps == pytest.approx(1000 * 3 / 3 / 500) and stayed == pytest.approx(1 / 3)


def test_latent_chains_keep_the_pulled_back_density_and_cost_what_they_say(problem, monkeypatch):
    """128 chains from exact draws; the variance of the last ones at 4 standard errors.

    The mutant that reports latent chains as positions misses it: their variance is 4 times less.
    """
    monkeypatch.setattr(latent_chains, "EVALUATIONS", 60)
    flow = Transformed(
        Normal(jnp.zeros(2), 0.5 * jnp.ones(2)), Affine(jnp.zeros(2), 2 * jnp.ones(2))
    )
    method = NeuralTransport(chains=128, leapfrog_steps=5, local_steps=2)
    latent = np.sqrt(1 / 8) * jax.random.normal(jax.random.key(0), (128, 2))
    state = NeuralTransportState(latent, 2 * latent, jnp.full(128, jnp.log(0.1)))
    trained = Trained(Quadratic(), None, None, state, 0, [], None, ())
    model = TiltedEBM(flow, trained.energy)
    found = record(jax.random.key(1), method, model, trained)
    assert (
        found.latent is not None and found.latent.shape == (7, 128, 2) and found.evaluations == 60
    )
    np.testing.assert_allclose(found.position, 2 * found.latent, rtol=1e-5)
    assert found.local_acceptance_rate > 0.9
    assert not np.allclose(found.latent[0], found.latent[-1])
    limit = 4 * 0.5 * np.sqrt(2 / 256)
    assert abs(np.mean(found.position[-1] ** 2) - 0.5) < limit
    assert abs(np.mean(found.latent[-1] ** 2) - 0.5) > limit
    zones = zones_over_time(problem, found.position)
    rows = found.position * problem.scale + problem.mean
    np.testing.assert_array_equal(zones == 0, (rows >= 0).all(axis=-1))
