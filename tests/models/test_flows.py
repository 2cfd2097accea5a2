"""Coupling flows: identity at first, a normalised density and a true bijection ever after.

In float64, where an error is an error: in float32 a strongly bent spline inverts to 0.1 only.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import Normal, StandardNormal, Transformed

from tiltflow.models.flows import (
    LOG_SCALE_BOUND,
    autoregressive_flow,
    coupling_flow,
    trainable,
)
from tiltflow.models.gaussian_mixture import GaussianMixture

LAYERS = 2
every_kind = pytest.mark.parametrize(("dimension", "transformer"), [(2, "spline"), (5, "affine")])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def uneven_base(dimension):
    """Two Gaussians that are different in every coordinate, so that no permutation hides."""
    means = np.stack([np.arange(dimension) * 0.5, -np.ones(dimension)])
    covariances = np.stack([np.diag(0.5 + 0.3 * np.arange(dimension)), np.eye(dimension)])
    return GaussianMixture(np.array([0.7, 0.3]), means, covariances)


build = eqx.filter_jit(coupling_flow)


def make(dimension, transformer, noise=0.0, architecture=build):
    """A flow at its start, or with the parameters of its layers moved by N(0, noise^2)."""
    base = uneven_base(dimension)
    flow = architecture(jax.random.key(0), base, layers=LAYERS, width=8, transformer=transformer)
    rng = np.random.default_rng(1)
    parameters, static = trainable(flow.bijection)
    moved = jax.tree.map(lambda x: jnp.asarray(x + noise * rng.normal(size=x.shape)), parameters)
    return eqx.tree_at(lambda f: f.bijection, flow, eqx.combine(moved, static))


@eqx.filter_jit
def look(flow):
    """Draws of the flow and everything that the tests compare there."""
    bijection = paramax.unwrap(flow.bijection)

    def one(x):
        def inverse(x):
            z, log_det = bijection.inverse_and_log_det(x)
            return z, (z, log_det)

        jacobian, (z, log_det) = jax.jacfwd(inverse, has_aux=True)(x)
        back, forward_log_det = bijection.transform_and_log_det(z)
        return {
            "back": back,
            "inverse_log_det": log_det,
            "forward_log_det": forward_log_det,
            "autodiff_log_det": jnp.linalg.slogdet(jacobian)[1],
        }

    x, drawn_log_prob = flow.sample_and_log_prob(jax.random.key(7), (400,))
    return jax.vmap(one)(x) | {
        "x": x,
        "drawn_log_prob": drawn_log_prob,
        "log_prob": flow.log_prob(x),
        "base_log_prob": flow.base_dist.log_prob(x),
    }


@every_kind
def test_a_new_flow_is_its_base(dimension, transformer):
    seen = look(make(dimension, transformer))
    np.testing.assert_allclose(seen["log_prob"], seen["base_log_prob"], atol=1e-9)
    np.testing.assert_allclose(seen["drawn_log_prob"], seen["log_prob"], atol=1e-9)
    # Level about 1e-5 a coordinate: 4.5 standard errors.
    expected = 0.7 * 0.5 * np.arange(dimension) - 0.3
    error = np.asarray(seen["x"].mean(0)) - expected
    assert (np.abs(error) < 4.5 * np.asarray(seen["x"].std(0)) / 400**0.5).all()


@pytest.mark.parametrize("architecture", [build, autoregressive_flow], ids=["coupling", "masked"])
@every_kind
def test_bijection_inverts_and_its_log_det_is_that_of_autodiff(
    dimension, transformer, architecture
):
    seen = look(make(dimension, transformer, noise=0.3, architecture=architecture))
    assert np.abs(seen["forward_log_det"]).max() > 0.1
    assert np.abs(seen["log_prob"] - seen["base_log_prob"]).max() > 0.3
    np.testing.assert_allclose(seen["back"], seen["x"], atol=1e-8)
    np.testing.assert_allclose(seen["forward_log_det"], -seen["inverse_log_det"], atol=1e-7)
    np.testing.assert_allclose(seen["inverse_log_det"], seen["autodiff_log_det"], atol=1e-7)
    np.testing.assert_allclose(seen["drawn_log_prob"], seen["log_prob"], atol=1e-7)


@pytest.mark.parametrize("transformer", ["spline", "affine"])
def test_perturbed_density_integrates_to_one(transformer):
    flow = make(2, transformer, noise=0.3)
    half_width, cells = 24.0, 400
    centres = (np.arange(cells) + 0.5) / cells * 2 * half_width - half_width
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    log_prob = eqx.filter_jit(lambda flow, x: flow.log_prob(x))(flow, jnp.asarray(grid))
    mass = np.exp(np.asarray(log_prob)).sum() * (2 * half_width / cells) ** 2
    assert abs(mass - 1) < 2e-3


def test_in_an_autoregressive_flow_a_coordinate_depends_on_those_before_it():
    """Of one layer: in the order that it has drawn, the Jacobian is triangular, and full below."""
    base = uneven_base(4)
    flow = autoregressive_flow(jax.random.key(0), base, layers=1, width=16, transformer="affine")
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    jacobian = jax.jacfwd(paramax.unwrap(flow.bijection).inverse)(x)
    depends = np.asarray(jacobian != 0)
    np.testing.assert_array_equal(np.sort(depends.sum(axis=0)), [1, 2, 3, 4])
    rows = np.argsort(depends.sum(axis=1))
    columns = np.argsort(-depends.sum(axis=0))
    np.testing.assert_array_equal(depends[rows][:, columns], np.tri(4, dtype=bool))


def test_far_outside_the_interval_spline_gradients_are_finite_in_float32():
    flow = make(2, "spline", noise=0.3)
    flow = jax.tree.map(
        lambda x: (
            x.astype(np.int32 if jnp.issubdtype(x.dtype, jnp.integer) else np.float32)
            if eqx.is_array(x)
            else x
        ),
        flow,
    )
    with jax.enable_x64(False):
        parameters, static = trainable(flow)
        x = jnp.array([[60.0, -60.0], [-60.0, 60.0], [6.0, -6.0], [0.0, 60.0]])

        @jax.jit
        def gradients(parameters, x):
            return jax.grad(lambda p, x: eqx.combine(p, static).log_prob(x).sum(), (0, 1))(
                parameters, x
            )

        for leaf in jax.tree.leaves(gradients(parameters, x)):
            assert leaf.dtype == np.float32
            assert np.isfinite(leaf).all()


def test_log_scales_are_bounded_however_large_the_parameters():
    log_det = look(make(5, "affine", noise=100.0))["inverse_log_det"]
    # Of 5 coordinates a layer moves 3.
    assert np.abs(log_det).max() <= LAYERS * 3 * LOG_SCALE_BOUND * (1 + 1e-9)
    assert np.abs(log_det).max() > 0.9 * LOG_SCALE_BOUND


def shapes_of(base, seed=0, **options):
    """A flow with shapes in place of arrays: nothing is computed."""
    return eqx.filter_eval_shape(
        lambda key: coupling_flow(key, base, layers=1, width=4, **options), jax.random.key(seed)
    )


def test_two_flows_of_one_structure_are_one_to_the_compiler():
    """flowjax keeps a new closure in every layer; left there, each new flow compiles anew."""
    base = uneven_base(2)
    assert eqx.tree_equal(shapes_of(base, 0), shapes_of(base, 1))
    assert not eqx.tree_equal(shapes_of(base), shapes_of(base, transformer="affine"))


def test_the_kind_of_layer_follows_the_dimension():
    """A spline of 8 knots asks its conditioner for many more numbers a coordinate than 2."""

    def outputs(dimension):
        flow = shapes_of(StandardNormal((dimension,)))
        nodes = jax.tree.leaves(flow.bijection, is_leaf=lambda n: isinstance(n, eqx.nn.MLP))
        (network,) = [node for node in nodes if isinstance(node, eqx.nn.MLP)]
        return network.out_size / (dimension - dimension // 2)

    assert outputs(8) > 2
    assert outputs(9) == 2


def test_a_frozen_base_has_no_trainable_leaves():
    """`Normal(zeros)` looks frozen and is not: flowjax trains its location and scale."""

    def leaves(base):
        flow = Transformed(base, Affine(jnp.zeros(2)))
        return jax.tree.leaves(trainable(flow)[0].base_dist)

    assert leaves(StandardNormal((2,))) == []
    assert len(leaves(Normal(jnp.zeros(2)))) == 2
    assert leaves(paramax.non_trainable(Normal(jnp.zeros(2)))) == []
