"""Benchmark: how noisy and how biased the negatives are, by which points get which weight.

One draw of `Balanced` pays for three sets of n points: the chains before the global move (x), the
flow's proposals (y, importance weights w), and the chains that went on from there (z). Every
estimator here is a set of weights on those 3 n points; each set that is used costs its forward
and backward pass. With energy and flow frozen, and chains that have come to the model,

    one draw     Var(estimate) / (Var_p(f) / n)                the variance of one draw
    20 draws     20 Var(mean of 20 in a row) / (Var_p(f) / n)  what an optimiser averages over

so that 1 is n independent draws of the model at every step; the chains' memory shows in the
second. f is the indicator of a mode (the direction that moves a mode's weight), the gradient of
the energy or of the flow's log-density in the parameters (traces of covariances). `bias` is the
squared distance from `recycled`, which is exact, in the same unit, less what noise explains.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from tiltflow.data.mixtures import four_modes, two_modes
from tiltflow.data.targets import Target
from tiltflow.evaluation.log_normalizer import importance_sampling, normalised_weights
from tiltflow.experiments.problem import Problem, make_problem
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.report.table import format_table
from tiltflow.sampling.chains import Chains, refresh
from tiltflow.sampling.independent import (
    Proposals,
    acceptance_weights,
    independent_metropolis_hastings,
)
from tiltflow.sampling.local import mala
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.loop import Schedule, train_energy

CHAINS, LOCAL_STEPS, RUN, RUNS, ROWS = 512, 10, 20, 20, 6000

Weights = Float[Array, "3 n"]
"""Of the chains before, the proposals, the chains after; together they add up to one."""


class Draw(NamedTuple):
    """One draw: log w of the chains before and of the proposals, and the offered acceptance."""

    chains: Float[Array, " n"]
    proposals: Float[Array, " n"]


def plain(draw: Draw) -> Weights:
    """Equal weights on the chains after the draw."""
    n = len(draw.chains)
    return jnp.zeros((3, n)).at[2].set(1 / n)


def before(draw: Draw) -> Weights:
    """Equal weights on the chains before the draw: what the flow learns from without more work."""
    return plain(draw)[::-1]


def pairs(draw: Draw) -> Weights:
    """Each chain and its own proposal by (1 - a, a), the exact mean over the acceptance."""
    a = jnp.exp(jnp.minimum(draw.proposals - draw.chains, 0.0))
    return jnp.stack([1 - a, a, jnp.zeros_like(a)]) / len(a)


def all_pairs(draw: Draw) -> Weights:
    """The mean of `pairs` over every way to deal the proposals to the chains: the default."""
    stay, go = acceptance_weights(draw.chains, draw.proposals)
    return jnp.stack([stay, go, jnp.zeros_like(go)])


def importance(draw: Draw) -> Weights:
    """Self-normalised importance weights on the proposals alone."""
    v = normalised_weights(draw.proposals)
    return jnp.stack([jnp.zeros_like(v), v, jnp.zeros_like(v)])


def iterated(draw: Draw) -> Weights:
    """i-SIR: every chain in one pool with all proposals, averaged over the chains; exact too."""
    pool = jnp.logaddexp(draw.chains, logsumexp(draw.proposals))
    chains, proposals = draw.chains - pool, draw.proposals + logsumexp(-pool)
    return jnp.exp(jnp.stack([chains, proposals, jnp.full(len(pool), -jnp.inf)])) / len(pool)


def blend(draw: Draw) -> Weights:
    """`plain` and `importance` in proportion to the effective sizes n and ESS of the weights."""
    ess = importance_sampling(draw.proposals).ess
    return (plain(draw) + ess * importance(draw)) / (1 + ess)


def guarded(draw: Draw) -> Weights:
    """`blend`, the ESS no larger than mean_y w / mean_x w: small where the flow misses chains."""
    ess = importance_sampling(draw.proposals).ess
    excess = importance_sampling(draw.proposals).log_z - importance_sampling(draw.chains).log_z
    ess = jnp.minimum(ess, jnp.exp(jnp.minimum(excess, 0.0)))
    return (plain(draw) + ess * importance(draw)) / (1 + ess)


def recycled(draw: Draw) -> Weights:
    """Half `plain`, half `all_pairs`."""
    return (plain(draw) + all_pairs(draw)) / 2


ESTIMATORS: list[Callable[[Draw], Weights]] = [
    plain, before, pairs, all_pairs, importance, iterated, blend, guarded, recycled,
]  # fmt: skip


class Start(NamedTuple):
    """Chains and a step size, as training left them."""

    position: Float[Array, "n d"]
    step_size: Float[Array, ""]


class State(NamedTuple):
    """A model to be judged at: trained for some steps, and then kept."""

    problem: Problem
    model: TiltedEBM
    flow: AbstractDistribution
    chains: Start


def bench_negatives(*, seed: int, quiet: bool) -> None:
    """Print one table for each model and stage of training."""
    for name, target, steps in (
        ("two modes, d = 2, early", two_modes(), 40),
        ("two modes, d = 2", two_modes(), 400),
        ("four modes, d = 16, early", four_modes(16, 3.5), 40),
        ("four modes, d = 16", four_modes(16, 3.5), 400),
        ("four modes, d = 64, early", four_modes(64, 4.0), 40),
        ("four modes, d = 64", four_modes(64, 4.0), 400),
    ):
        state = prepare(target, steps, seed=seed)
        acceptance, ess, rows = measure(state, seed=seed)
        print(f"{name}, {steps} steps: acceptance {acceptance:.2f}, ESS {ess:.2f}", flush=True)
        print(format_table(COLUMNS, rows), flush=True)


def prepare(target: Target, steps: int, *, seed: int) -> State:
    """Train for `steps` steps on the rows of `target`."""
    problem = make_problem(target, rows=ROWS, seed=seed)
    start = choose_base(jax.random.key(seed), "gaussian", problem.x, problem.held_out, seed=seed)
    trained = train_energy(
        jax.random.key(seed + 1),
        MLPEnergy(target.dimension, key=jax.random.key(seed + 2)),
        start.base,
        Balanced(chains=CHAINS, local_steps=LOCAL_STEPS),
        start.flow,
        jnp.asarray(problem.x),
        None,
        Schedule(steps=steps, chunk=40, learning_rate=2e-3, averaging=0.9),
    )
    source = trained.source
    flow = eqx.combine(source.flow, trained.flow_static)
    model = TiltedEBM(start.base, trained.energy)
    return State(problem, model, flow, Start(source.position, jnp.exp(source.log_step_size)))


class Sums(NamedTuple):
    """Sums over a run of the estimates, of their squared norms, and of mean |f|^2 at the chains."""

    first: Float[Array, "*runs estimators p"]
    squares: Float[Array, "*runs estimators"]
    points: Float[Array, "*runs"]


def measure(state: State, *, seed: int) -> tuple[float, float, list[list[str]]]:
    """Mean acceptance and ESS, and one row for each estimator."""
    problem = state.problem
    unscaled = (jnp.asarray(problem.mean), jnp.asarray(problem.scale))
    acceptance, ess, parts = _runs(
        jax.random.key(seed + 3), state.model, state.flow, state.chains, problem.target, unscaled
    )
    columns = [value for part in parts for value in _figures(part)]
    rows = [
        [estimator.__name__, *(f"{column[index]:.2f}" for column in columns)]
        for index, estimator in enumerate(ESTIMATORS)
    ]
    return float(acceptance.mean()), float(ess.mean()), rows


COLUMNS = ["weights"] + [
    f"{part} {figure}"
    for part in ("mode", "energy", "flow")
    for figure in ("one draw", "20 draws", "bias")
]


def _figures(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One draw, 20 draws, squared bias; in units of the variance of n independent draws."""
    means = np.asarray(sums.first, float) / RUN
    centre = means.mean(0)
    between = ((means - centre) ** 2).sum((0, 2)) / (RUNS - 1)
    one = np.asarray(sums.squares, float).mean(0) / RUN - (centre**2).sum(-1)
    unit = (np.asarray(sums.points, float).mean() / RUN - (centre[-1] ** 2).sum()) / CHAINS
    # Against the last one, which is exact; in pairs, since their noise is shared.
    difference = means - means[:, -1:]
    noise = difference.var(0, ddof=1).sum(-1) / RUNS
    bias = (difference.mean(0) ** 2).sum(-1) - noise
    return one / unit, RUN * between / unit, bias / unit


@eqx.filter_jit
def _runs(
    key: PRNGKeyArray,
    model: TiltedEBM,
    flow: AbstractDistribution,
    start: Start,
    target: Target,
    unscaled: tuple[Float[Array, " d"], Float[Array, " d"]],
) -> tuple[Float[Array, "runs draws"], Float[Array, "runs draws"], list[Sums]]:
    """Acceptance, ESS, and sums over RUNS runs of RUN draws, after five runs thrown away."""
    mean, scale = unscaled
    energy, energy_static = eqx.partition(model.energy, eqx.is_inexact_array)
    learned, flow_static = trainable(flow)

    def modes(points: Float[Array, "m d"]) -> Float[Array, "m modes"]:
        labels = jax.vmap(target.label)(points * scale + mean)
        return jax.nn.one_hot(labels, target.weights.shape[0])

    def sums_of_gradients(
        points: Float[Array, "m d"], weights: Float[Array, "rows m"]
    ) -> list[Float[Array, "rows p"]]:
        def energies(parameters: PyTree) -> Float[Array, " m"]:
            return jax.vmap(eqx.combine(parameters, energy_static))(points)

        def log_probs(parameters: PyTree) -> Float[Array, " m"]:
            return eqx.combine(parameters, flow_static).log_prob(points)

        pullbacks = [jax.vjp(energies, energy)[1], jax.vjp(log_probs, learned)[1]]
        return [
            jax.lax.map(lambda row, pullback=pullback: ravel_pytree(pullback(row)[0])[0], weights)
            for pullback in pullbacks
        ]

    def squared_norm(point: Float[Array, " d"]) -> Float[Array, " 2"]:
        gradients = sums_of_gradients(point[None], jnp.ones((1, 1)))
        return jnp.stack([jnp.sum(gradient**2) for gradient in gradients])

    def move(chains: Chains, key: PRNGKeyArray) -> tuple[Chains, Proposals, Draw, Array]:
        proposal_key, global_key, local_key = jax.random.split(key, 3)
        points, log_prob = flow.sample_and_log_prob(proposal_key, (CHAINS,))
        proposals = Proposals(refresh(points, model.log_density), log_prob)
        chains_log_prob = flow.log_prob(chains.position)
        draw = Draw(chains.log_density - chains_log_prob, proposals.log_weights)
        chains, _, rate = independent_metropolis_hastings(
            global_key, chains, chains_log_prob, proposals
        )
        chains, _ = mala(local_key, chains, model.log_density, start.step_size, LOCAL_STEPS)
        return chains, proposals, draw, rate

    def step(
        carry: tuple[Chains, list[Sums]], key: PRNGKeyArray
    ) -> tuple[tuple[Chains, list[Sums]], tuple[Array, Array]]:
        before, sums = carry
        after, proposals, draw, rate = move(before, key)
        points = jnp.concatenate([before.position, proposals.chains.position, after.position])
        weights = jnp.stack([estimator(draw).ravel() for estimator in ESTIMATORS])
        estimates = [weights @ modes(points), *sums_of_gradients(points, weights)]
        norms = jax.lax.map(squared_norm, before.position[: CHAINS // 16]).mean(0)
        sums = [
            Sums(s.first + e, s.squares + (e**2).sum(-1), s.points + norm)
            for s, e, norm in zip(sums, estimates, [jnp.ones(()), *norms])
        ]
        return (after, sums), (rate, importance_sampling(draw.proposals).ess)

    def run(chains: Chains, key: PRNGKeyArray) -> tuple[Chains, tuple[list[Sums], tuple[Any, ...]]]:
        n = len(ESTIMATORS)
        sizes = [target.weights.shape[0], *(ravel_pytree(p)[0].size for p in (energy, learned))]
        zero = [Sums(jnp.zeros((n, p)), jnp.zeros(n), jnp.zeros(())) for p in sizes]
        (chains, sums), rates = jax.lax.scan(step, (chains, zero), jax.random.split(key, RUN))
        return chains, (sums, rates)

    settle_key, run_key = jax.random.split(key)
    chains, _ = jax.lax.scan(
        lambda chains, key: (move(chains, key)[0], None),
        refresh(start.position, model.log_density),
        jax.random.split(settle_key, 5 * RUN),
    )
    _, (parts, (rate, ess)) = jax.lax.scan(run, chains, jax.random.split(run_key, RUNS))
    return rate, ess, parts
