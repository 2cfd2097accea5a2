"""A loop that is stopped between any two chunks and gone on with ends with the same bits."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.bijections import Affine
from flowjax.distributions import Normal, Transformed

from tiltflow.models.energies import MLPEnergy
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.checkpoints import Checkpoints
from tiltflow.training.loop import Schedule, train_energy
from tiltflow.training.maximum_likelihood import fit_flow
from tiltflow.training.stopping import Stopped, StopRequest

SCHEDULE = Schedule(
    steps=100, chunk=10, learning_rate=0.02, batch_size=64, averaging=0.5, patience=4, draws=512
)
BASE = GaussianMixture(np.ones(1), np.zeros((1, 1)), 4 * np.eye(1)[None])


def rows(seed, n):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.normal(np.where(generator.random((n, 1)) < 0.3, 1.5, -1.5), 0.5))


def flow():
    return Transformed(Normal(jnp.zeros(1), 2.0), Affine(jnp.zeros(1), jnp.ones(1)))


def train(seen, stage, schedule=SCHEDULE):
    key = jax.random.key(0)
    energy = MLPEnergy(1, width=8, depth=1, key=jax.random.key(5))
    source = Balanced(chains=64, local_steps=1)
    rows_and_held_out = rows(0, 256), rows(1, 256)
    return train_energy(
        key, energy, BASE, source, flow(), *rows_and_held_out, schedule,
        on_report=seen.append, stage=stage,
    )  # fmt: skip


def train_wildly(seen, stage):
    """At a rate at which it runs away at first, and once more later."""
    return train(seen, stage, replace(SCHEDULE, learning_rate=300.0))


def train_flow(seen, stage):
    return fit_flow(
        jax.random.key(0), flow(), rows(0, 256), rows(1, 256),
        learning_rate=0.03, batch_size=64, max_steps=80, chunk=10, patience=3,
        on_report=seen.append, stage=stage,
    )  # fmt: skip


def stopped_and_gone_on_with(work, run, after):
    """What `work` gives when it is stopped after every `after` reports that are new."""
    for resume in itertools.count():
        stop, seen = StopRequest(), []
        with Checkpoints(run, seconds=1000, resume=resume > 0, stop=stop) as checkpoints:
            checkpoints.begin({})

            class Seen(list):
                def append(self, report, stop=stop, last=after * (resume + 1)):
                    super().append(report)
                    if len(self) == last:
                        stop.number = 15

            seen = Seen()
            try:
                return work(seen, checkpoints.stage("loop")), seen, resume
            except Stopped:
                continue
    raise AssertionError


def assert_same(left, right):
    left, right = jax.tree.leaves(left), jax.tree.leaves(right)
    for one, other in zip(left, right, strict=True):
        if isinstance(one, (jax.Array, np.ndarray, float)):
            np.testing.assert_array_equal(one, other)


def without_speed(reports):
    return [{k: v for k, v in each.items() if k != "steps_per_second"} for each in reports]


@pytest.mark.parametrize(
    ("work", "after"), [(train, 1), (train, 3), (train_wildly, 1), (train_flow, 1), (train_flow, 3)]
)
def test_a_stopped_loop_ends_with_the_same_bits(tmp_path, work, after):
    reports = []
    whole = work(reports, Checkpoints(tmp_path / "none").stage("loop"))
    assert len(reports) > 4
    parts, again, stops = stopped_and_gone_on_with(work, tmp_path / "run", after)
    assert stops >= len(reports) // after - 1
    if work is train:
        assert whole.best_step > 0 and len(whole.earlier) > 1
    if work is train_wildly:
        assert [report["step"] for report in reports if "event" in report][-1] > 0
    if work is not train_flow:
        whole, parts = (
            each._replace(reports=without_speed(each.reports)) for each in (whole, parts)
        )
    assert_same(whole, parts)
    assert without_speed(again) == without_speed(reports)


@pytest.mark.parametrize("kind", ["gaussian", "flow"])
def test_a_base_that_was_chosen_is_taken_as_it_was(tmp_path, kind):
    x, held_out = np.asarray(rows(0, 200)), np.asarray(rows(1, 100))
    starts, reports = [], ([], [])
    for resume, seen in enumerate(reports):
        with Checkpoints(tmp_path, resume=resume > 0) as checkpoints:
            checkpoints.begin({})
            start = choose_base(
                jax.random.key(0), kind, x, held_out,
                seed=0, on_report=seen.append, stage=checkpoints.stage("base"),
            )  # fmt: skip
            starts.append(start)
    assert_same(*starts)
    assert reports[0] == reports[1]
    assert [report["stage"] for report in reports[0]][-1] == "base"
    assert starts[0].kind == starts[1].kind == kind
