"""Training the parametric energy of the Jarzynski experiment as its authors do.

Plain gradient steps on all rows, at rates .025 h (means) and h / 8 (log-ratio of the masses) with
h = .1, which is the Langevin step too (Carbone, Hua, Coste, Vanden-Eijnden 2023). `train_energy`
would take Adam's steps on batches instead. All methods take the authors' 8 000 steps:

    balanced    1 000 chains, 8 MALA steps, a refreshed chain and a proposal
    jarzynski   10 000 walkers, resampled below an effective share of 1/2
    pcd         10 000 chains that start at the rows, one ULA step
    cd          10 000 chains that start at the rows in every step, four ULA steps, at ten times the
                rates; the authors' start there at every fourth, and have moved three times at most

so that `balanced` takes fewer gradients than any other.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution, StandardNormal
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from tiltflow.experiments.clock import clock
from tiltflow.experiments.jarzynski_energy import TwoModesEnergy, first_energy
from tiltflow.experiments.judged import judge_chains
from tiltflow.experiments.trial import LAST_REPORTS
from tiltflow.models.flows import trainable
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.contrastive import Contrastive
from tiltflow.training.jarzynski import Jarzynski
from tiltflow.training.methods import Source, energy_gradient
from tiltflow.training.persistent import Persistent

STEP_SIZE = 0.1
MEANS_RATE, RATIO_RATE = STEP_SIZE / 40, STEP_SIZE / 8
REPORTS = 80


@dataclass(frozen=True)
class Entrant:
    """A method, how many steps it takes, and how many times the authors' rates it takes them at.

    `steps` are a multiple of `REPORTS`, or fewer. With `at_rows` its chains start at as many rows,
    where others' are draws of the base.
    """

    name: str
    method: Source
    steps: int
    rate: float = 1.0
    at_rows: bool = False


def entrants(*, quick: bool = False) -> tuple[Entrant, ...]:
    """All methods; the quick ones have a fifth of the chains and a quarter of the steps."""
    chains, steps, rate = (2000, 2000, 4.0) if quick else (10_000, 8000, 1.0)
    return (
        Entrant("balanced", Balanced(chains=chains // 10, local_steps=8), steps, rate),
        Entrant("jarzynski", Jarzynski(chains, STEP_SIZE), steps, rate),
        Entrant("pcd", Persistent(chains, 1, STEP_SIZE), steps, rate, at_rows=True),
        Entrant("cd", Contrastive(chains, 4, STEP_SIZE), steps, 10 * rate),
    )


def descend(
    entrant: Entrant, rows: Float[np.ndarray, "n d"], *, seed: int
) -> tuple[TwoModesEnergy, dict[str, Any]]:
    """The last energy; `seconds`, `evaluations`, `steps`, on the way `watched`, and of the chains
    what `judge_chains` finds.

    The flow of the balanced method is fitted to nine tenths of the rows first, by the rest; it is
    in the seconds.
    """
    started = clock()
    method, flow = entrant.method, _flow_for(entrant, rows, seed)
    base = StandardNormal(rows.shape[1:])
    energy = first_energy(jax.random.key(seed + 2), rows.shape[1])
    init_key, run_key = jax.random.split(jax.random.key(seed + 3))
    state = method.init(init_key, base, flow)
    if entrant.at_rows:
        state = state._replace(position=jnp.asarray(rows[: len(state.position)]))
    fixed = (method, base, trainable(flow)[1], jnp.asarray(rows), entrant.rate)
    chunk = max(1, entrant.steps // REPORTS)
    watched = [{"step": 0, "mass": float(energy.mass_below)}]
    last: deque[Float[np.ndarray, "chains d"]] = deque(maxlen=LAST_REPORTS)
    for step in range(0, entrant.steps, chunk):
        keys = jax.random.split(jax.random.fold_in(run_key, step), chunk)
        energy, state = _run_chunk(fixed, energy, state, keys)
        watched.append({"step": step + chunk, "mass": float(energy.mass_below)})
        last.append(np.asarray(state.position))
    return energy, {
        **judge_chains(list(last)),
        "seconds": clock() - started,
        "evaluations": entrant.steps * method.evaluations(len(rows)),
        "steps": entrant.steps,
        "watched": watched,
    }


def _flow_for(
    entrant: Entrant, rows: Float[np.ndarray, "n d"], seed: int
) -> AbstractDistribution | None:
    if not isinstance(entrant.method, Balanced):
        return None
    key, tenth = jax.random.key(seed + 1), len(rows) // 10
    return choose_base(key, "gaussian", rows[tenth:], rows[:tenth], seed=seed).flow


@eqx.filter_jit
def _run_chunk(
    fixed: tuple[Any, ...], energy: TwoModesEnergy, state: PyTree, keys: Key[Array, " steps"]
) -> tuple[TwoModesEnergy, PyTree]:
    method, base, flow_static, rows, rate = fixed

    def step(
        carry: tuple[TwoModesEnergy, PyTree], key: PRNGKeyArray
    ) -> tuple[tuple[TwoModesEnergy, PyTree], None]:
        energy, state = carry
        model = TiltedEBM(base, energy)
        gradient, state, _ = energy_gradient(
            method, key, model, flow_static, state, rows, jnp.ones_like(energy.z)
        )
        return (_stepped(energy, gradient, rate), state), None

    return jax.lax.scan(step, (energy, state), keys)[0]


def _stepped(energy: TwoModesEnergy, gradient: TwoModesEnergy, rate: float) -> TwoModesEnergy:
    return TwoModesEnergy(
        energy.a - rate * MEANS_RATE * gradient.a,
        energy.b - rate * MEANS_RATE * gradient.b,
        energy.z - rate * RATIO_RATE * gradient.z,
    )
