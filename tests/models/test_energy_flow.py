"""Energy flows: energy and constant make up the log-density, about one base, and both ways."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.bijections import Chain, Invert
from flowjax.distributions import Normal, StandardNormal, Transformed

from tiltflow.data.errors import InputError
from tiltflow.models.convolution import Convolution
from tiltflow.models.energy_flow import EnergyFlow, check_invertible, normalise_activations
from tiltflow.models.energy_flow_architectures import (
    convolutional_energy_flow,
    coupled_energy_flow,
    fully_connected_energy_flow,
)
from tiltflow.models.flows import trainable
from tiltflow.models.linear_layers import ActNorm, FullLinear
from tiltflow.models.smooth_leaky_relu import SmoothLeakyReLU

KEY = jax.random.key(5)
MAKERS = {
    "coupled": lambda key: coupled_energy_flow(key, 3, blocks=2, width=4),
    "triangular": lambda key: coupled_energy_flow(key, 2, blocks=2, width=4, linear="lower"),
    "connected": lambda key: fully_connected_energy_flow(key, 4),
    "convolutional": lambda key: convolutional_energy_flow(key, (4, 4, 1), stages=2, size=3),
}
every_flow = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def moved(flow, noise=0.2):
    rng = np.random.default_rng(1)
    parameters, static = trainable(flow)
    return eqx.combine(
        jax.tree.map(lambda x: jnp.asarray(x + noise * rng.normal(size=x.shape)), parameters),
        static,
    )


@eqx.filter_jit
def look(flow):
    x, drawn = flow.sample_and_log_prob(jax.random.key(7), (50,))
    # flowjax's own: it takes every layer's determinant at every point.
    plain = Transformed(flow.base_dist, Invert(Chain(flow.layers)))
    return {
        "x": x,
        "drawn": drawn,
        "log_prob": flow.log_prob(x),
        "plain": plain.log_prob(x),
        "energy": jax.vmap(flow.energy)(x),
        "log_normalizer": flow.log_normalizer(),
    }


@every_flow
def test_energy_and_constant_make_up_flowjaxs_own_log_density(name):
    seen = look(moved(MAKERS[name](KEY)))
    split = -seen["energy"] - seen["log_normalizer"]
    np.testing.assert_allclose(split, seen["plain"], atol=1e-9)
    np.testing.assert_allclose(seen["log_prob"], seen["plain"], atol=1e-9)
    # Mutants: no constant, its sign wrong.
    assert abs(float(seen["log_normalizer"])) > 0.1
    # Draws by inversion: in float64 to the last digits.
    np.testing.assert_allclose(seen["drawn"], seen["log_prob"], atol=1e-7)


def test_the_density_integrates_to_one():
    flow = moved(coupled_energy_flow(KEY, 2, blocks=1, width=4), noise=0.2)
    centres = (np.arange(300) + 0.5) / 300 * 40 - 20
    grid = jnp.asarray(np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2))
    log_prob = np.asarray(eqx.filter_jit(lambda flow, x: flow.log_prob(x))(flow, grid))
    assert abs(np.exp(log_prob).sum() * (40 / 300) ** 2 - 1) < 2e-3


def test_all_use_the_one_base_that_is_given():
    """Laplace in the likelihood and Gauss in the energy is a defect of the published code."""
    base = paramax.non_trainable(Normal(jnp.array([3.0, -1.0]), jnp.array([0.5, 2.0])))
    flow = EnergyFlow(base, [FullLinear(2, key=KEY)])
    seen = look(flow)
    np.testing.assert_allclose(-seen["energy"] - seen["log_normalizer"], seen["drawn"], atol=1e-9)
    u = np.asarray(jax.vmap(flow.layers[0].transform)(seen["x"]))
    # Level 4.5 standard errors of 50 draws.
    assert (np.abs(u.mean(0) - [3, -1]) < 4.5 * np.array([0.5, 2.0]) / 50**0.5).all()
    assert jax.tree.leaves(trainable(flow)[0].base_dist) == []


def test_activations_are_normalised_on_a_batch():
    flow = moved(MAKERS["coupled"](KEY))
    x = jax.random.normal(KEY, (300, 3)) * jnp.array([4.0, 0.1, 1.0]) + 5
    ready = normalise_activations(flow, x)
    for layer in ready.layers:
        x = jax.vmap(layer.transform)(x)
        if isinstance(layer, ActNorm):
            np.testing.assert_allclose(x.mean(0), 0, atol=1e-9)
            np.testing.assert_allclose(x.std(0), 1, atol=1e-9)


def test_a_singular_layer_is_an_error_that_names_the_remedy():
    flow = MAKERS["connected"](KEY)
    check_invertible(flow)
    for row in (jnp.zeros(4), flow.layers[2].weight[1] * (1 + 1e-17)):
        singular = eqx.tree_at(
            lambda it: it.layers[2].weight, flow, flow.layers[2].weight.at[0].set(row)
        )
        with pytest.raises(InputError, match=r"layer 2, FullLinear, is singular.*LULinear"):
            check_invertible(singular)
        assert not np.isfinite(singular.log_normalizer()) or float(singular.log_normalizer()) > 30
    lost = eqx.tree_at(lambda it: it.layers[2].weight, flow, jnp.full((4, 4), jnp.nan))
    with pytest.raises(InputError, match="singular"):
        check_invertible(lost)


def test_a_singular_convolution_is_not_told_to_be_another_layer():
    """`LULinear` takes flat vectors; an image's convolution is none it could stand in for."""
    flow = EnergyFlow(StandardNormal((16,)), [Convolution((4, 4, 1), 3, key=KEY)])
    singular = eqx.tree_at(lambda it: it.layers[0].kernel, flow, jnp.zeros((3, 3, 1, 1)))
    with pytest.raises(
        InputError, match=r"layer 0, Convolution, is singular.*smaller learning"
    ) as told:
        check_invertible(singular)
    assert "LULinear" not in str(told.value)


@every_flow
def test_two_flows_of_one_structure_are_one_to_the_compiler(name):
    one, other = (eqx.filter_eval_shape(MAKERS[name], jax.random.key(seed)) for seed in (0, 1))
    assert eqx.tree_equal(one, other)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="layer 1 has shape"):
        EnergyFlow(StandardNormal((2,)), [ActNorm(2), SmoothLeakyReLU(3)])
    with pytest.raises(InputError, match="found none"):
        EnergyFlow(StandardNormal((2,)), [])
    with pytest.raises(InputError, match="at least 2"):
        coupled_energy_flow(KEY, 1)
    with pytest.raises(InputError, match="even height"):
        convolutional_energy_flow(KEY, (5, 5, 1), stages=2)
