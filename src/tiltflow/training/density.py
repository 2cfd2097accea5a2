"""From rows to a normalised density: base, proposal, energy, settling, log Z.

Everything here happens in model units; the estimator adds the preprocessing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.evaluation.log_normalizer import (
    LogNormalizer,
    best_of_proposals,
    effective_share,
    estimate_log_normalizer,
)
from tiltflow.models.energies import Energy, MLPEnergy
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.independent import check_trace_is_exact
from tiltflow.training.balanced import Balanced, BalancedState
from tiltflow.training.bases import Start
from tiltflow.training.checkpoints import Checkpoints, stage_of
from tiltflow.training.guard import Runaway
from tiltflow.training.loop import OnReport, Rows, Schedule, settle, train_energy
from tiltflow.training.polish import polish

SETTLE_CHUNKS = 1


class Density(NamedTuple):
    """A trained, normalised density with the proposal that normalises and samples it.

    `positions` are the chains as training left them, settled under the model. `earlier` are
    energies on the way to the model's.
    """

    model: TiltedEBM
    flow: AbstractDistribution
    step_size: Float[Array, ""]
    positions: Float[Array, "chains d"]
    log_normalizer: LogNormalizer
    best_step: int
    reports: list[dict[str, Any]]
    stopped: Runaway | None
    flattery: float
    """Nats by which the mean over the held-out rows exceeds the honest one."""
    earlier: tuple[Energy, ...]
    acceptance_rate: float
    """Of the flow's proposals, by chains of this model while the flow still learns from them."""

    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Normalised log-density of the rows of `x`, in nats of model units."""
        return batched_log_density(self.model, x) - self.log_normalizer.log_z


def default_schedule(base_kind: str) -> Schedule:
    """Steps and rates: a base near the data needs small steps and few, one Gaussian many."""
    if base_kind == "gaussian":
        return Schedule(steps=1000, learning_rate=1e-3, weight_decay=1.0, patience=5)
    if base_kind == "mixture":
        return Schedule(steps=1000, learning_rate=5e-4, weight_decay=1.0, patience=5)
    return Schedule(steps=400, chunk=50, learning_rate=3e-4, weight_decay=1.0, patience=4)


def default_local_steps(base_kind: str) -> int:
    """MALA steps a sweep: a flow as base is dear to differentiate, and IMH crosses it at once."""
    return 3 if base_kind == "flow" else 10


def fit_density(
    key: PRNGKeyArray,
    start: Start,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    source: Balanced,
    schedule: Schedule,
    energy: Energy | None = None,
    width: int = 128,
    depth: int = 3,
    final_draws: int = 65_536,
    stretch: Callable[[int, int], Float[np.ndarray, "_ d"]] | None = None,
    on_report: OnReport | None = None,
    checkpoints: Checkpoints | None = None,
) -> Density:
    """Train an energy (an MLP of `width` and `depth` if None) on the base and the flow of `start`.

    Where `x` is a sample of more rows than memory holds, `stretch` gives as many of all of them as
    asked for, from a place on, to train the energy. What `checkpoints` hold of it is gone on with,
    bit for bit.

    Raises:
        InputError: base or flow hold noise for the trace of a continuous flow.
        TrainingFailed: nothing good was ever reached.
    """
    check_trace_is_exact(start.base, "start.base")
    check_trace_is_exact(start.flow, "start.flow")
    energy_key, train_key, polish_key, settle_key, final_key = jax.random.split(key, 5)
    if energy is None:
        energy = MLPEnergy(x.shape[1], width=width, depth=depth, key=energy_key)
    rows = jnp.asarray(x)
    taught: Float[Array, "n d"] | Rows = rows
    if stretch is not None:
        of_a_step = schedule.batch_size

        def of_chunk(step: int) -> Float[Array, "n d"]:
            return jnp.asarray(stretch(step * of_a_step, schedule.chunk * of_a_step))

        taught = of_chunk

    # A base fitted to the held-out rows too would flatter them: its honest mean is in `start`.
    flattered = float(start.base.log_prob(jnp.asarray(held_out)).mean()) - start.base_log_likelihood

    def honest(report: dict[str, Any]) -> dict[str, Any]:
        names = {"held_out_log_likelihood", "base_held_out_log_likelihood"} & report.keys()
        return {**report, **{name: report[name] - flattered for name in names}}

    trained = train_energy(
        train_key,
        energy,
        start.base,
        source,
        start.flow,
        taught,
        jnp.asarray(held_out),
        schedule,
        on_report=None if on_report is None else lambda report: on_report(honest(report)),
        stage=stage_of(checkpoints, "energy"),
    )
    if on_report:
        on_report({"stage": "settle", "step": 0, "total_steps": SETTLE_CHUNKS * schedule.chunk})
    flattery = flattered
    if isinstance(trained.energy, MLPEnergy):
        model = TiltedEBM(start.base, trained.energy)
        proposal = trained.flow or start.flow

        def polished() -> tuple[Energy, dict[str, Any]]:
            found = polish(
                polish_key, model, proposal, rows, jnp.asarray(held_out), draws=final_draws
            )._asdict()
            return found.pop("energy"), found

        energy, record = stage_of(checkpoints, "polish").once(polished, lambda _: trained.energy)
        trained = trained._replace(energy=energy)
        flattery += record["flattery"]
        if on_report:
            damping = record["damping"] if record["damping"] is not None else "none"
            on_report({"stage": "polish", "gain": record["gain"], "damping": damping})

    def settled() -> tuple[BalancedState, dict[str, Any]]:
        # Of the shape of those that the chunk was compiled for; they teach nothing any more.
        shown = taught(0) if callable(taught) else taught
        found = settle(
            settle_key, trained, start.base, source, shown, schedule, chunks=SETTLE_CHUNKS
        )
        return found.source, {"acceptance_rate": found.acceptance_rate}

    state, record = stage_of(checkpoints, "settle").once(settled, lambda _: trained.source)
    model = TiltedEBM(start.base, trained.energy)
    # The flow follows the last energy; the one that stood by when the best was kept, or the base
    # itself under a small tilt, may overlap more with what was kept.
    flows = [eqx.combine(state.flow, trained.flow_static), trained.flow or start.flow]
    best, from_flow = best_of_proposals(final_key, model, flows, final_draws)
    from_base = estimate_log_normalizer(final_key, model, start.base, final_draws)
    log_normalizer = max(from_flow, from_base, key=effective_share)
    return Density(
        model=model,
        flow=flows[best],
        step_size=jnp.exp(state.log_step_size),
        positions=state.position,
        log_normalizer=log_normalizer,
        best_step=trained.best_step,
        reports=[honest(report) for report in trained.reports],
        flattery=flattery,
        acceptance_rate=record["acceptance_rate"],
        stopped=trained.stopped,
        earlier=trained.earlier,
    )


@eqx.filter_jit
def batched_log_density(model: TiltedEBM, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """The unnormalised log-density of rows, in chunks so that memory stays bounded."""
    return jax.lax.map(model.log_density, x, batch_size=8192)
