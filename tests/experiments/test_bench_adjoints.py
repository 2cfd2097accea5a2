"""The ways to a gradient: a table of all, and one loss and gradient by all that are exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import StandardNormal

from tiltflow.experiments import bench_adjoints
from tiltflow.experiments.bench_adjoints import BACKWARDS, BY_VMAP, DEFAULT, HUTCHINSON
from tiltflow.models.continuous import continuous_flow, continuous_flows


def moving_flow():
    """A flow whose field is not zero."""
    flow = continuous_flow(jax.random.key(0), StandardNormal((2,)), widths=(3,))
    weight = 0.7 * jax.random.normal(jax.random.key(1), (2, 3))
    return eqx.tree_at(
        lambda flow: continuous_flows(flow)[0].field.layers[-1].linear.weight, flow, weight
    )


def test_all_ways_are_timed_and_the_exact_ones_agree(monkeypatch, capsys):
    found = {}
    compiled = bench_adjoints._compiled

    def watched(flow, value):
        run = compiled(flow, value)
        found[len(found)] = run()
        return run

    monkeypatch.setattr(bench_adjoints, "_compiled", watched)
    monkeypatch.setattr(bench_adjoints, "BATCHES", (4,))
    monkeypatch.setattr(bench_adjoints, "TURNS", 1)
    monkeypatch.setattr(bench_adjoints, "trained_flow", lambda x, seed: moving_flow())
    bench_adjoints.bench_adjoints(seed=0, quiet=True)
    printed = capsys.readouterr().out
    assert all(way in printed for way in (DEFAULT, BACKWARDS, HUTCHINSON, BY_VMAP))
    exact, backwards, noisy, alone = (found[i][0] for i in range(4))
    np.testing.assert_allclose([backwards, alone], exact, atol=1e-3)
    assert jnp.abs(noisy - exact) > 1e-4
    for other in (1, 3):
        for one, same in zip(*(jax.tree.leaves(found[i][1]) for i in (0, other)), strict=True):
            np.testing.assert_allclose(one, same, atol=5e-3)
