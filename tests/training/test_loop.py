"""The loop's decisions, with a source of negatives that misbehaves on cue and compiles at once."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flowjax.distributions import Normal

from tiltflow.models.energies import MLPEnergy
from tiltflow.models.flows import trainable
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.training.balanced import Balanced
from tiltflow.training.guard import TrainingFailed
from tiltflow.training.likelihood import Negatives
from tiltflow.training.loop import (
    Fixed,
    Schedule,
    initial_state,
    run_chunk,
    train_energy,
)
from tiltflow.training.persistent import Persistent

BASE = GaussianMixture(np.ones(1), np.zeros((1, 2)), 4 * np.eye(2)[None])
MODES = np.array([[-1.5, 0.0], [1.5, 0.0]])
SCHEDULE = Schedule(
    steps=200, chunk=10, learning_rate=0.05, batch_size=64, averaging=0.5, patience=3, draws=512
)


def two_mode_rows(seed, n):
    rng = np.random.default_rng(seed)
    return jnp.asarray(MODES[rng.integers(2, size=n)] + 0.5 * rng.normal(size=(n, 2)))


X, HELD_OUT = two_mode_rows(0, 256), two_mode_rows(1, 256)


class ScriptState(NamedTuple):
    """`flow` is what the loop compares with; the rest is the script."""

    flow: Any
    position: jax.Array
    count: jax.Array
    turns_bad: jax.Array
    breaks: jax.Array
    breaks_above: jax.Array


@dataclass(frozen=True)
class Script(Persistent):
    """Negatives from the base; from step `turns_bad` on all at one mode of the data.

    Between `breaks` and ten steps later one figure is NaN as long as the rate is above
    `breaks_above`. The cues are not compared, so that all scripts are one to the compiler.
    """

    chains: int = 128
    turns_bad: int = field(default=10_000, compare=False)
    breaks: int = field(default=10_000, compare=False)
    breaks_above: float = field(default=-1.0, compare=False)

    def init(self, key, base, flow=None):
        cues = [jnp.asarray(cue) for cue in (0, self.turns_bad, self.breaks)]
        position = base.sample(key, (self.chains,))
        above = jnp.asarray(self.breaks_above)
        return ScriptState(trainable(flow)[0], position, *cues, above)

    def draw(self, key, model, flow_static, state, batch, rate):
        good = model.base.sample(key, (self.chains,))
        position = jnp.where(state.count < state.turns_bad, good, jnp.asarray(MODES[0]))
        since = state.count - state.breaks
        broken = (since >= 0) & (since < 10) & (rate > state.breaks_above)
        info = {"proposal_log_z": jnp.where(broken, jnp.nan, 0.0)}
        weights = jnp.full(self.chains, 1 / self.chains)
        state = state._replace(position=position, count=state.count + 1)
        return Negatives(position, weights), state, info


def train(source, *, seed=0, held_out=HELD_OUT, x=X, schedule=SCHEDULE):
    """One training; also every averaged energy that the loop looked at, by step."""
    seen = {}

    def watch(energy, state):
        arrays = jax.tree.leaves(eqx.filter(energy, eqx.is_array))
        seen[int(state.count)] = [np.array(array) for array in arrays]
        return {"watched": int(state.count)}

    key = jax.random.key(seed)
    energy = MLPEnergy(2, width=8, depth=1, key=jax.random.key(5))
    flow = Normal(jnp.zeros(2), 2.5 * jnp.ones(2))
    return train_energy(key, energy, BASE, source, flow, x, held_out, schedule, watch=watch), seen


def assert_same(energy, arrays):
    leaves = jax.tree.leaves(eqx.filter(energy, eqx.is_array))
    for leaf, array in zip(leaves, arrays, strict=True):
        np.testing.assert_array_equal(leaf, array)


def rollbacks(trained):
    return [report for report in trained.reports if report.get("event") == "rollback"]


def steps(trained):
    return [report["step"] for report in trained.reports if "event" not in report]


def test_the_best_state_is_kept_and_training_stops_after_it():
    trained, seen = train(Script(turns_bad=30))
    assert trained.stopped is None
    gains = {report["step"]: report["gain"] for report in trained.reports}
    best = max(step for step in gains if gains[step] > 0)
    assert trained.best_step == best
    assert 10 <= best <= 50
    # Three reports without a gain, long before the end.
    assert steps(trained) == list(range(10, best + 31, 10))
    assert max(gains.values()) > 0.02
    assert all(report["watched"] == report["step"] for report in trained.reports)
    # Chunks that came later were donated its buffers' successors; what is kept is still itself.
    assert_same(trained.energy, seen[best])
    assert not np.array_equal(seen[best][0], seen[best + 10][0])


def test_earlier_energies_are_those_on_the_way_to_the_best():
    """The start, and those after 1, 2, 4, 8 ... chunks of ten steps, six at most."""
    trained, seen = train(Script(turns_bad=30))
    on_the_way = [step for step in (10, 20, 40, 80) if step < trained.best_step]
    assert len(trained.earlier) == 1 + len(on_the_way) > 1
    first = jax.tree.leaves(eqx.filter(trained.earlier[0], eqx.is_array))[-1]
    assert not np.asarray(first).any()
    for energy, step in zip(trained.earlier[1:], on_the_way):
        assert_same(energy, seen[step])


def test_without_held_out_rows_the_last_average_is_kept():
    trained, seen = train(Script(), held_out=None)
    assert trained.best_step == 200
    assert_same(trained.energy, seen[200])
    assert "gain" not in trained.reports[-1]


def test_a_runaway_goes_back_and_lowers_the_rate_until_it_passes():
    # The warm-up's rate at step 20 is 0.21 times the cosine, 0.975: half of it still breaks.
    trained, _ = train(Script(breaks=20, breaks_above=0.08), held_out=None)
    events = rollbacks(trained)
    assert [event["rate_scale"] for event in events] == [0.5, 0.25]
    assert [event["step"] for event in events] == [20, 20]
    assert events[0]["reason"] == "proposal_log_z was nan at step 20"
    assert trained.stopped is None
    assert steps(trained) == list(range(10, 201, 10))
    leaves = jax.tree.leaves(eqx.filter(trained.energy, eqx.is_array))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("held_out", [None, HELD_OUT])
def test_a_runaway_for_good_stops_at_the_last_good_state(held_out):
    trained, seen = train(Script(breaks=25), held_out=held_out)
    assert trained.stopped is not None
    assert (trained.stopped.quantity, trained.stopped.step) == ("proposal_log_z", 25)
    assert len(rollbacks(trained)) == SCHEDULE.max_rollbacks + 1
    assert steps(trained) == [10, 20]
    assert trained.best_step == 20
    assert_same(trained.energy, seen[20])
    assert int(trained.source.count) == 20


def test_a_runaway_from_the_first_state_is_a_failure():
    with pytest.raises(TrainingFailed, match=r"6 times: proposal_log_z was nan at step 3"):
        train(Script(breaks=3))


def test_rows_that_are_not_finite_are_a_failure_that_is_named():
    with pytest.raises(TrainingFailed, match="energy_gap was nan at step"):
        train(Script(), x=X.at[0, 0].set(jnp.nan))


def test_the_same_key_gives_the_same_bits_and_another_does_not():
    (one, seen), (again, _), (_, other) = (train(Script(), seed=seed) for seed in (0, 0, 1))
    assert one.best_step == again.best_step
    assert_same(again.energy, seen[one.best_step])
    for a, b in zip(one.reports, again.reports):
        a, b = ({k: v for k, v in r.items() if k != "steps_per_second"} for r in (a, b))
        assert a == b
    assert not np.array_equal(seen[10][0], other[10][0])


@dataclass(frozen=True)
class Traced(Script):
    """Notes whenever a step is traced for the compiler."""

    chains: int = 127
    times: list[int] = field(default_factory=list, compare=False)

    def draw(self, key, model, flow_static, state, batch, rate):
        self.times.append(1)
        return super().draw(key, model, flow_static, state, batch, rate)


def test_a_longer_training_is_not_compiled_anew():
    source, traced = Traced(), []
    for length in (20, 40):
        trained, _ = train(source, held_out=None, schedule=replace(SCHEDULE, steps=length))
        assert steps(trained)[-1] == length
        traced.append(len(source.times))
    assert traced[1] == traced[0] > 0


def test_in_double_precision_everything_is_double():
    """Traced, not compiled: every float of the state and of the figures, with the real source."""
    with jax.enable_x64(True):
        base = Normal(jnp.zeros(2), jnp.ones(2))
        energy = MLPEnergy(2, width=8, depth=1, key=jax.random.key(5))
        parameters, static = eqx.partition(energy, eqx.is_inexact_array)
        source = Balanced(chains=16, local_steps=1)
        state = initial_state(parameters, source.init(jax.random.key(0), base, base), SCHEDULE)
        x = jnp.zeros((32, 2))
        fixed = Fixed(source, base, static, trainable(base)[1], SCHEDULE, x)
        rates = jnp.ones(SCHEDULE.chunk)
        after = eqx.filter_eval_shape(run_chunk, (fixed, rates, rates, jax.random.key(0)), state)
    floats = [leaf for leaf in jax.tree.leaves(after) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert len(floats) > 20
    assert {leaf.dtype for leaf in floats} == {np.dtype("float64")}
