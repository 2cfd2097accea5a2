"""`tiltflow.sample`: a known log-density from rough starts to weights, log Z and a verdict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import AbstractDistribution, Normal

import tiltflow
from tiltflow.data.errors import InputError
from tiltflow.data.mixtures import two_modes
from tiltflow.sampler import check_arguments
from tiltflow.training.adaptive_sweeps import WarmUpSettings

TARGET = two_modes()
LOG_Z = 1.7
SETTINGS = WarmUpSettings(
    exploration_chunks=2,
    mixture_chunks=2,
    flow_chunks=3,
    reservoir=4096,
    local_steps=5,
)


def shifted(x):
    """The two modes, in units in which they are 100 and 0.1 wide, with log Z = 1.7."""
    units = jnp.array([100.0, 0.1])
    return TARGET.log_prob(x / units) - jnp.sum(jnp.log(units)) + LOG_Z


def label(x):
    return np.asarray(jax.vmap(TARGET.label)(jnp.asarray(x / np.array([100.0, 0.1]))))


@pytest.fixture(scope="module")
def result():
    """Chains start in equal numbers in both modes, which weigh 2 : 1."""
    starts = np.asarray(TARGET.means)[np.arange(128) % 2] * np.array([100.0, 0.1])
    noise = np.random.default_rng(0).normal(size=(128, 2)) * np.array([10.0, 0.01])
    return tiltflow.sample(
        shifted, starts + noise, key=jax.random.key(0), num_samples=3000, settings=SETTINGS
    )


def test_samples_come_as_asked_and_finite(result):
    assert result.samples.shape == (3000, 2) and result.log_weights is None
    assert np.isfinite(result.samples).all()


def test_log_z_is_right_within_its_error(result):
    assert 0 < result.log_z_stderr < 0.02
    assert abs(result.log_z - LOG_Z) < 4.5 * result.log_z_stderr
    # Without the change of units it would be log(100 * 0.1) off.
    assert abs(result.log_z - LOG_Z) < 0.1 * np.log(10)


def test_annealed_bounds_lie_on_both_sides(result):
    """Within 4 standard errors, and close together, since the flow is good."""
    lower, lower_stderr, upper, upper_stderr, *_ = result.annealed_bounds(jax.random.key(1))
    assert lower - 4 * lower_stderr < LOG_Z < upper + 4 * upper_stderr
    assert -4 * lower_stderr < upper - lower < 0.2
    assert "bracket_width" not in result.verdict.figures


def test_weights_come_right_from_wrong_starts(result):
    weights = result.mode_weights(label)
    (low, high), weight = weights.intervals[1], weights.weights[1]
    assert weight == pytest.approx(1 / 3, abs=0.03)
    assert low - 0.01 < 1 / 3 < high + 0.01
    assert label(result.samples).mean() == pytest.approx(1 / 3, abs=0.05)


def test_modes_are_found_without_labels(result):
    """In the user's units; chains cross between them at most sweeps that would change sides."""
    weights = result.mode_weights()
    order = np.argsort(weights.weights)[::-1]
    np.testing.assert_array_equal(order, [0, 1])
    assert weights.weights[0] == pytest.approx(2 / 3, abs=0.03)
    expected = np.asarray(TARGET.means)[np.argsort(-np.asarray(TARGET.weights))]
    np.testing.assert_allclose(weights.centers / np.array([100.0, 0.1]), expected, atol=0.1)
    # Independent draws would change sides with probability 2 (2/3) (1/3).
    assert 0.3 < result.jump_rate(label) < 0.5


def test_labels_that_are_not_one_for_each_point_are_named(result):
    with pytest.raises(InputError, match=r"label_fn: returned shape \(2,\)"):
        result.mode_weights(lambda x: x.mean(axis=0))


def test_the_chains_go_to_arviz(result):
    posterior = result.to_inference_data().posterior
    assert posterior["x1"].shape == result.chains.shape[1::-1]
    np.testing.assert_array_equal(posterior["x0"][3], result.chains[:, 3, 0])


def test_the_verdict_trusts_it(result):
    assert result.verdict.status == "trusted", result.verdict.reasons
    assert result.diagnostics.rhat.shape == (2,)


def test_the_same_key_gives_the_same_bits_and_another_does_not():
    def draw(seed):
        starts = np.random.default_rng(0).normal(size=(16, 2))
        key = jax.random.key(seed)
        return tiltflow.sample(
            TARGET.log_prob, starts, key=key, num_samples=50, settings=SETTINGS
        ).samples

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))


def test_chains_in_a_mode_that_the_flow_cannot_reach_are_not_trusted():
    """Ten chains stand 40 widths away, in a mode that weighs as much as that of the others.

    With no warm-up of the flow beyond the mixture this is found or doubted, never missed.
    """
    far = jnp.array([40.0, 0.0])

    def log_density(x):
        return jnp.logaddexp(-0.5 * jnp.sum(x**2), -0.5 * jnp.sum((x - far) ** 2))

    starts = np.random.default_rng(0).normal(size=(100, 2))
    starts[:10] += np.asarray(far)
    seen = tiltflow.sample(
        log_density, starts, key=jax.random.key(0), num_samples=3200, settings=SETTINGS
    )
    weight = (seen.samples[:, 0] > 20).mean()
    assert abs(weight - 0.5) < 0.05 or seen.verdict.status != "trusted"


GOOD = np.random.default_rng(0).normal(size=(8, 2))


@pytest.mark.parametrize(
    ("log_density", "starts", "words"),
    [
        (lambda x: jnp.sum(x) * jnp.nan, GOOD, "log_density: is nan"),
        (lambda x: jnp.inf + 0 * jnp.sum(x), GOOD, r"log_density: is \+inf"),
        (lambda x: -x, GOOD, r"log_density: returns shape \(2,\)"),
        (lambda x: jnp.sum(x).astype(int), GOOD, "log_density: returns type"),
        (lambda x: x[5:].reshape(3), GOOD, "log_density: fails on one point"),
        (lambda x: 0 * jnp.sum(x), GOOD, "log_density: its gradient is zero"),
        (lambda x: jnp.sqrt(jnp.sum((x - GOOD[3]) ** 2)), GOOD, "gradient is not finite at row 3"),
        (lambda x: jnp.where(x[0] > -9, -jnp.sum(x**2), -jnp.inf), GOOD - 9, "row . lies outside"),
        (TARGET.log_prob, GOOD[:1], "1 chain"),
        (TARGET.log_prob, np.where(GOOD[2, 0] == GOOD, np.nan, GOOD), "row 2 is not finite"),
    ],
)
def test_bad_input_is_named(log_density, starts, words):
    with pytest.raises(InputError, match=words):
        tiltflow.sample(log_density, starts, key=jax.random.key(0), num_samples=10)


def test_a_second_call_compiles_nothing_of_its_own():
    """Traces are counted by the calls of the log-density, of which the checks need some."""
    calls = []

    def counted(x):
        calls.append(1)
        return TARGET.log_prob(x)

    starts = np.random.default_rng(0).normal(size=(16, 2))
    counts = []
    for seed in range(2):
        calls.clear()
        key = jax.random.key(seed)
        tiltflow.sample(counted, starts, key=key, num_samples=50, settings=SETTINGS)
        counts.append(len(calls))
    # Once for the shape, once for the values at the starts, twice for the count of operations.
    assert counts[1] <= 4 < counts[0]


def test_a_flow_of_the_user_is_taught():
    """A wide normal: a quarter of its draws would be accepted, more when it has learned."""
    flow = Normal(jnp.zeros(2), jnp.full(2, 4.0))
    result = tiltflow.sample(
        TARGET.log_prob,
        np.asarray(TARGET.sample(jax.random.key(1), 64)),
        key=jax.random.key(0),
        num_samples=2000,
        flow=flow,
        settings=SETTINGS._replace(flow_chunks=10, learning_rate=0.02),
    )
    rates = [each["global_acceptance_rate"] for each in result.reports if each["stage"] == "flow"]
    assert rates[-1] > 1.2 * rates[0]
    assert abs(result.log_z) < 4.5 * result.log_z_stderr
    # Taught is a copy: what the user holds is as it was.
    np.testing.assert_array_equal(flow.scale, np.full(2, 4.0))


class Noisy(AbstractDistribution):
    """A flow whose log-density is noisy, as by a Hutchinson trace with fresh noise."""

    shape: tuple[int, ...] = (2,)
    cond_shape: None = None

    def _log_prob(self, x, condition=None):
        return jnp.sum(x) + np.random.default_rng().normal()

    def _sample(self, key, condition=None):
        return jax.random.normal(key, (2,))


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (Normal(jnp.zeros(3), jnp.ones(3)), r"flow: has shape \(3,\)"),
        (Noisy(), "flow: its log-density at one point differs"),
    ],
)
def test_a_flow_that_does_not_fit_is_named(flow, words):
    with pytest.raises(InputError, match=words):
        tiltflow.sample(TARGET.log_prob, GOOD, key=jax.random.key(0), num_samples=10, flow=flow)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("text", GOOD, jax.random.key(0), 10), "log_density: a str"),
        ((TARGET.log_prob, GOOD[0], jax.random.key(0), 10), r"shape \(2,\)"),
        ((TARGET.log_prob, GOOD, 0, 10), "key: not a typed key"),
        ((TARGET.log_prob, GOOD, jax.random.key(0), 0), "num_samples: 0"),
    ],
)
def test_what_the_type_checks_of_tests_would_catch_is_named_too(arguments, words):
    with pytest.raises(InputError, match=words):
        check_arguments(*arguments)
