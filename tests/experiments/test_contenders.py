"""Every contender is given what its method needs, and none a base that is the answer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import Transformed

from tiltflow.data.errors import InputError
from tiltflow.experiments.contenders import Contender, Shared, contenders, first_settings
from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import mixture_template
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.methods import energy_gradient

ALL = contenders(2, Shared(chains=16, local_steps=5, variance=0.05))
TRAINED = [each for each in ALL if each.method is not None]
BASE = mixture_template(1, 2)
# In place of a coupling flow, which takes a second to trace.
FLOW = Transformed(paramax.non_trainable(BASE), Affine(jnp.zeros(2), jnp.ones(2)))


@pytest.mark.parametrize("each", TRAINED, ids=lambda it: f"{it.name}, {it.setting}")
def test_a_step_of_everyone_is_a_program(each):
    """Traced, not compiled: that kinds of bases, flows and energies fit their methods."""
    base = FLOW if each.base == "flow" else BASE
    flow = FLOW if each.flow else None
    energy = each.energy(2, jax.random.key(0))

    def step(key, batch):
        state = each.method.init(key, base, flow)
        model = TiltedEBM(base, energy)
        rate = jnp.asarray(1.0)
        gradient, after, _ = energy_gradient(
            each.method, key, model, trainable(flow)[1], state, batch, rate
        )
        return gradient, state, after

    gradient, before, after = eqx.filter_eval_shape(step, jax.random.key(0), jnp.zeros((32, 2)))
    arrays = eqx.filter(energy, eqx.is_inexact_array)
    assert jax.tree.map(np.shape, arrays) == jax.tree.map(lambda leaf: leaf.shape, gradient)
    assert jax.tree.map(lambda leaf: leaf.dtype, before) == jax.tree.map(
        lambda leaf: leaf.dtype, after
    )
    assert each.method.evaluations(32) > 0


def test_names_and_settings_tell_contenders_apart():
    assert len({(each.name, each.setting) for each in ALL}) == len(ALL)
    assert (ALL[0].name, ALL[-1].name) == ("balanced", "floor")


def test_the_first_settings_are_every_method_once():
    first = first_settings(ALL)
    assert len({each.name for each in ALL}) == len(first)
    assert first[0] is ALL[0]
    assert next(each for each in first if each.name == "pcd").setting == "shared"


def test_a_flow_that_is_a_base_is_not_handed_the_answer():
    assert {each.flow for each in ALL if each.base == "flow"} == {"on one Gaussian"}


def test_who_needs_a_flow_must_name_it():
    with pytest.raises(InputError, match=r"flow: found None; flow \(alone\) needs one"):
        Contender("flow", "alone", None)


def test_steps_follow_the_narrowest_mode():
    assert Shared(variance=0.02).step_size == pytest.approx(0.002)
