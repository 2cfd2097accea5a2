"""A fit of a multiscale flow of images, judged by noise in place of the exact trace."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.integration import Integration
from tiltflow.models.multiscale import multiscale_flow
from tiltflow.training.continuous_fit import ContinuousLikelihood, fit_continuous_flow

OBJECTIVE = ContinuousLikelihood(score_trace="rademacher")


def images(seed, n):
    """Of 4 x 4 pixels, dark above and bright below, all a little brighter or darker."""
    rng = np.random.default_rng(seed)
    rows = np.repeat([40.0, 90.0, 160.0, 210.0], 4) + rng.normal(0, 20, (n, 1))
    return jnp.asarray(np.clip(rows + rng.normal(0, 5, (n, 16)), 0, 255), jnp.float32)


def test_it_raises_the_likelihood_of_held_out_images():
    flow = multiscale_flow(
        jax.random.key(0), (4, 4, 1), channels=(4,), integration=Integration(steps=2)
    )
    held_out = images(1, 64)
    exact = eqx.filter_jit(lambda flow, x: batch_likelihood(flow, x).log_prob)
    before = float(exact(flow, held_out).mean())
    reports = []
    fit = fit_continuous_flow(
        jax.random.key(1),
        flow,
        images(0, 256),
        held_out,
        objective=OBJECTIVE,
        learning_rate=0.02,
        batch_size=32,
        max_steps=60,
        chunk=20,
        on_report=reports.append,
    )
    after = np.asarray(exact(fit.flow, held_out))
    # A nat for each of sixteen pixels: the width of a logit is some three times theirs.
    assert after.mean() > before + 5
    # Three fields, two steps each of six calls and the first.
    assert all(report["evaluations"] == 3 * 13 for report in reports)
    assert fit.skipped == 0 and fit.stopped is None
    # Judged by noise: near the exact trace, and not it.
    assert 1e-2 < abs(fit.held_out_log_likelihood - after.mean()) < 1
