"""What the judgement of a fit rests on: chains that start at its rows see what its flow misses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal

from tiltflow.frozen import WITNESS_CHAINS, FrozenModel, judge_fit
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.tilted import TiltedEBM

FAR = 30.0


@pytest.fixture(scope="module")
def frozen():
    """Modes of .7 at 0 and of .3 far off, an energy of zero, and a flow on the first one alone."""
    base = GaussianMixture(np.array([0.7, 0.3]), np.array([[0.0], [FAR]]), np.ones((2, 1, 1)))
    energy = MLPEnergy(1, width=2, depth=1, key=jax.random.key(0))
    flow = Normal(jnp.zeros(1), 1.1 * jnp.ones(1))
    return FrozenModel(TiltedEBM(base, energy), flow, jnp.asarray(1.0), 3, ())


def judged(frozen, right):
    """The status, with rows of which every third lies in the mode far off, if any does."""
    rows = np.random.default_rng(0).normal(size=(WITNESS_CHAINS, 1))
    rows[::3] += FAR if right else 0.0
    return judge_fit(frozen, jnp.asarray(rows, jnp.result_type(float)), None)[2]


def test_a_mode_that_the_flow_misses_is_noticed_by_the_chains_from_rows(frozen):
    verdict = judged(frozen, right=True)
    assert verdict.status == "failed"
    assert verdict.reasons


def test_without_rows_there_nobody_sees_it(frozen):
    """What the test above would look like if chains did not start at rows."""
    assert judged(frozen, right=False).status == "trusted"
