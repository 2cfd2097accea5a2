"""The bound against an exact marginal likelihood, and a short training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from tiltflow.data.errors import InputError
from tiltflow.models.integration import Integration
from tiltflow.models.posteriors import ContinuousPosterior, GaussianPosterior, PlanarPosterior
from tiltflow.models.variational_autoencoder import VariationalAutoencoder
from tiltflow.training.maximum_likelihood import fit_flow
from tiltflow.training.variational import VariationalBound, binary, bound_of_rows

PIXELS = 6


def new_model(posterior, seed=0):
    return VariationalAutoencoder(PIXELS, 1, posterior, width=8, key=jax.random.key(seed))


def wide(model):
    """With a posterior wider than the prior, so that weights have a variance; flows are mild."""
    last = lambda it: (it.encoder.layers[-1].weight, it.encoder.layers[-1].bias)  # noqa: E731
    weight, bias = last(model)
    return eqx.tree_at(last, model, (0.5 * weight, (0.5 * bias).at[1].set(0.4)))


def log_marginal(model, x):
    """log p(x) by quadrature over the one latent coordinate."""
    z = np.linspace(-8, 8, 4001)
    logits = np.asarray(jax.vmap(model.decoder)(jnp.asarray(z[:, None], jnp.float32)), float)
    log_likelihood = np.log(expit((2 * np.asarray(x)[:, None] - 1) * logits)).sum(axis=2)
    density = np.exp(log_likelihood - z**2 / 2) / np.sqrt(2 * np.pi)
    return np.log(np.trapezoid(density, z, axis=1))


@pytest.mark.parametrize(
    "posterior",
    [
        GaussianPosterior(),
        PlanarPosterior(1, 2),
        ContinuousPosterior(
            1, key=jax.random.key(3), widths=(4,), rank=1, integration=Integration(steps=3)
        ),
    ],
)
def test_weights_of_the_bound_have_the_marginal_likelihood_as_their_mean(posterior):
    """E_q[p(x, z) / q(z | x)] = p(x): 4.5 standard errors of 4000 draws.

    Mutants: the sign of the log-determinant, or the deviation of q left out.
    """
    model = wide(new_model(posterior))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, PIXELS)), jnp.float32)
    many = jnp.repeat(x, 4000, axis=0)
    value = eqx.filter_jit(lambda model, x: model.bound(x, jax.random.key(1)).value)(model, many)
    weights = np.exp(np.asarray(value, float)).reshape(2, -1)
    error = weights.std(axis=1) / np.sqrt(4000)
    expected = np.exp(log_marginal(model, x))
    assert (np.abs(weights.mean(axis=1) - expected) < 4.5 * error).all()
    assert (np.asarray(value).reshape(2, -1).mean(axis=1) < np.log(expected)).all()


def test_rows_without_a_bound_are_named():
    """A weight that is not a number in the encoder: no row has one."""
    model = new_model(GaussianPosterior())
    bias = model.encoder.layers[-1].bias
    broken = eqx.tree_at(lambda it: it.encoder.layers[-1].bias, model, bias.at[0].set(jnp.nan))
    grey = jnp.full((4, PIXELS), 0.5)
    VariationalBound().diagnose(model, grey)
    with pytest.raises(InputError, match=r"the bound is nan at row 1 \(4 of 4 rows\)"):
        VariationalBound().diagnose(broken, grey)


def test_a_posterior_whose_solver_runs_out_of_steps_is_named():
    """And not an outlier, which the rows do not have; what the encoder breaks is still its row."""
    posterior = ContinuousPosterior(
        1, key=jax.random.key(3), widths=(4,), rank=1, integration=Integration(max_steps=2)
    )
    fields = lambda it: [field.layers[-1].linear.weight for field in it.fields]  # noqa: E731
    steep = eqx.tree_at(fields, posterior, [30 * jnp.ones((1, 4))] * 2)
    grey = jnp.full((4, PIXELS), 0.5)
    words = r"continuous flow 1 of the posterior: the solver did not arrive in 2 steps"
    model = new_model(steep)
    with pytest.raises(InputError, match=words):
        VariationalBound().diagnose(model, grey)
    bias = model.encoder.layers[-1].bias
    broken = eqx.tree_at(lambda it: it.encoder.layers[-1].bias, model, bias.at[0].set(jnp.nan))
    with pytest.raises(InputError, match="the bound is nan at row 1"):
        VariationalBound().diagnose(broken, grey)


def test_training_raises_the_bound_and_pixels_are_drawn_anew():
    rng = np.random.default_rng(0)
    grey = np.where(rng.random((400, 1)) < 0.5, 0.9, 0.1) * np.ones((400, PIXELS))
    grey = jnp.asarray(grey, jnp.float32)
    model = new_model(PlanarPosterior(1, 1))
    before, _ = bound_of_rows(model, np.asarray(grey[:150]))
    fit = fit_flow(
        jax.random.key(0),
        model,
        grey[100:],
        grey[:100],
        learning_rate=1e-2,
        batch_size=64,
        max_steps=300,
        chunk=100,
        objective=VariationalBound(),
    )
    after, calls = bound_of_rows(fit.flow, np.asarray(grey[:150]))
    # The two kinds of rows have -H = -1.95 each and one bit between them.
    assert after.mean() > before.mean() + 0.5
    assert after.mean() > -3.2
    assert calls == 0 and len(after) == 150
    assert (binary(jax.random.key(1), grey) != binary(jax.random.key(2), grey)).any()
