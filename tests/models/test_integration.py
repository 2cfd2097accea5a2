"""Integration of fields: linear fields known in closed form, the trace's estimate, the count."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import expm

from tiltflow.data.errors import InputError
from tiltflow.models.integration import Integration, draw_probes, integrate

A = jnp.array([[0.9, 1.0, 0.0], [-0.8, 0.6, 0.4], [0.2, -0.3, 0.7]])
T = jnp.asarray(0.8)
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


class Linear(eqx.Module):
    """The field A x, by way of a hidden side of width 2 where A has that rank."""

    first: jax.Array
    second: jax.Array
    dimension: int = eqx.field(static=True, default=3)
    width: int = eqx.field(static=True, default=3)

    def enter(self, t, x):
        return self.first @ x

    def leave(self, t, hidden):
        return self.second @ hidden

    def __call__(self, t, x):
        return self.leave(t, self.enter(t, x))


DEFAULT = Integration()
FIELD = Linear(A, jnp.eye(3))
NARROW = Linear(A[:2], jnp.array([[1.0, 0.5], [0.3, 0.8], [0.7, 0.2]]), width=2)


@eqx.filter_jit
def solve(field, x, probes, integration=DEFAULT, towards="data", **options):
    return integrate(field, T, x, probes, integration, towards=towards, **options)


@pytest.mark.parametrize("towards", ["data", "base"])
def test_a_linear_field_is_the_matrix_exponential(towards):
    """Also the regularisers: |T A|^2, and int |T A x|^2 ds by a fine sum. Both are positive."""
    sign = 1 if towards == "data" else -1
    result = solve(FIELD, X, jnp.eye(3), towards=towards, regularisers=True)
    assert result.reached
    end = result.end
    np.testing.assert_allclose(end.x, X @ expm(sign * T * A).T, atol=2e-5)
    np.testing.assert_allclose(end.log_det, sign * T * jnp.trace(A), atol=1e-5)
    np.testing.assert_allclose(end.jacobian_norm, T**2 * (A**2).sum(), rtol=1e-4)
    times = (np.arange(200) + 0.5) / 200 * T
    speeds = [((X @ expm(sign * t * A).T @ A.T) ** 2).sum(1) for t in times]
    np.testing.assert_allclose(end.kinetic_energy, T**2 * np.mean(speeds, axis=0), rtol=1e-3)


def test_a_longer_end_time_does_not_evade_the_regularisers():
    """A/4 followed for 4 T is the same flow; as integrals over t both would be a quarter."""
    slow = Linear(A / 4, jnp.eye(3))
    short, long = (
        integrate(field, end_time, X, jnp.eye(3), DEFAULT, towards="data", regularisers=True).end
        for field, end_time in ((FIELD, T), (slow, 4 * T))
    )
    np.testing.assert_allclose(long.x, short.x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(long.kinetic_energy, short.kinetic_energy, rtol=1e-4)
    np.testing.assert_allclose(long.jacobian_norm, short.jacobian_norm, rtol=1e-4)


@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
@pytest.mark.parametrize("field", [FIELD, NARROW])
def test_the_estimates_are_unbiased(noise, field):
    """4000 noises of two probes at 4 standard errors; mutants at more than 8.

    The mutants: probes that are not divided by their number, and noise of the wrong variance.
    """
    n, hidden = 4000, field.width == 2
    matrix = field.second @ field.first
    keys = jax.random.split(jax.random.key(1), n)
    probes = jax.vmap(lambda key: draw_probes(key, noise, 2, field.width))(keys)
    x = jnp.broadcast_to(X[0], (n, 3))
    few = Integration(steps=2)

    def errors(probes):
        options = {"hidden": True} if hidden else {"regularisers": True}
        end = solve(field, x, probes, few, **options).end
        pairs = [(end.log_det, T * jnp.trace(matrix))]
        if not hidden:
            pairs.append((end.jacobian_norm, T**2 * (matrix**2).sum()))
        return [
            abs(float(each.mean() - truth)) / (float(each.std()) / n**0.5 + 1e-6)
            for each, truth in pairs
        ]

    assert max(errors(probes)) < 4
    assert min(errors(probes * jnp.sqrt(2.0))) > 8
    assert min(errors(probes * 1.3)) > 8


def test_the_hidden_side_has_the_same_exact_trace():
    """And takes two products where the coordinates take three; probes transposed have not."""
    trace = T * jnp.trace(NARROW.second @ NARROW.first)
    on_hidden = solve(NARROW, X, jnp.eye(2), hidden=True).end
    on_coordinates = solve(NARROW, X, jnp.eye(3)).end
    np.testing.assert_allclose(on_hidden.log_det, trace, atol=1e-5)
    np.testing.assert_allclose(on_hidden.x, on_coordinates.x, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="hidden: the norm of the Jacobian"):
        solve(NARROW, X, jnp.eye(2), hidden=True, regularisers=True)


CALLS = []


class Counted(Linear):
    """The field, which says on the host when it was called, and gives nothing there to wait for."""

    def __call__(self, t, x):
        jax.debug.callback(lambda: CALLS.append(1))
        return super().__call__(t, x)


@pytest.mark.parametrize(
    "integration",
    [
        Integration(),
        Integration(tolerance=1e-3, solver="dopri5"),
        Integration(steps=4),
        Integration(steps=2, solver="dopri5"),
    ],
)
def test_evaluations_are_the_calls_of_the_field(integration):
    CALLS.clear()
    result = solve(Counted(A, jnp.eye(3)), X, None, integration)
    jax.effects_barrier()
    assert int(result.evaluations) == len(CALLS)
    if integration.steps:
        assert int(result.evaluations) == 6 * integration.steps + 1


def test_a_tighter_tolerance_costs_more_and_errs_less():
    truth = X @ expm(T * A).T
    loose, tight = (solve(FIELD, X, None, Integration(tolerance=each)) for each in (1e-2, 1e-5))
    assert loose.evaluations < tight.evaluations
    assert jnp.abs(loose.end.x - truth).max() > 5 * jnp.abs(tight.end.x - truth).max()


@pytest.mark.parametrize("adjoint", ["checkpoints", "backwards"])
def test_both_adjoints_give_the_gradient_of_the_matrix_exponential(adjoint):
    """In the matrix, the end time and the points: |x(T)|^2 / 2 + 3 log|det|, which is 3 T tr A."""

    def loss(matrix, end_time, x):
        field = Linear(matrix, jnp.eye(3))
        integration = Integration(adjoint=adjoint)
        end = integrate(field, end_time, x, jnp.eye(3), integration, towards="data").end
        return (end.x**2).sum() / 2 + 3 * end.log_det.sum()

    def truth(matrix, end_time, x):
        end = x @ expm(end_time * matrix).T
        return (end**2).sum() / 2 + 3 * len(x) * end_time * jnp.trace(matrix)

    got, expected = (jax.jit(jax.grad(each, (0, 1, 2)))(A, T, X) for each in (loss, truth))
    for one, other in zip(got, expected):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_a_solve_that_fails_is_nan_and_says_so():
    stopped = solve(FIELD, X, jnp.eye(3), Integration(max_steps=1))
    assert not stopped.reached
    assert jnp.isnan(stopped.end.log_det).all()
    broken = solve(Linear(A.at[0, 0].set(jnp.nan), jnp.eye(3)), X, jnp.eye(3))
    assert not broken.reached
    assert jnp.isnan(broken.end.x).all()


def test_settings_out_of_range_are_refused():
    for wrong in ({"tolerance": 0.0}, {"tolerance": 2.0}, {"max_steps": 0}, {"steps": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Integration(**wrong)
    with pytest.raises(InputError, match=r"too tight for float32.*float64"):
        solve(FIELD, X, None, Integration(tolerance=1e-8))
    with jax.enable_x64(True):
        field = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), FIELD)
        x = jnp.asarray(X, jnp.float64)
        assert solve(field, x, None, Integration(tolerance=1e-8)).reached
