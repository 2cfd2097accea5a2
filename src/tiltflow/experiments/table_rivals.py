"""Densities that a balanced model is compared with on a table, each fitted for so many seconds.

    ffjord                stacked continuous flows, batch norm on the data's side of each
                          (Grathwohl et al. 2019)
    coupling_flow         the library's coupling flow on one standard normal
    mixture_flow          the same on the best Gaussian mixture: the proposal of a balanced fit
    autoregressive_flow   a masked autoregressive flow (Papamakarios et al. 2017)
    energy_flow           a flow with dense linear layers (Chao et al. 2023), by likelihood

All are fitted by maximum likelihood and keep their best state on held-out rows. How many steps the
seconds allow is measured before, in three chunks that do not count, and neither does compilation:
the learning rate falls to zero over that many steps. Where a step may take minutes, chunks are of
one step at first, and longer only if three of the longer ones would take less than a quarter of
the seconds. A solver of continuous flows takes more steps as it learns, so that it also stops when
the time is over. Seconds are those of the processor, so that other work on it changes nothing; on
an accelerator, those of the clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import AbstractDistribution, StandardNormal
from jaxtyping import Array, Float, PRNGKeyArray

from tiltflow.experiments.clock import clock
from tiltflow.experiments.published_tables import Network
from tiltflow.models.batch_likelihood import batch_likelihood
from tiltflow.models.checked_flows import log_prob_in_parts
from tiltflow.models.continuous import continuous_flow, continuous_flows
from tiltflow.models.energy_flow import normalise_activations
from tiltflow.models.energy_flow_architectures import coupled_energy_flow
from tiltflow.models.flows import autoregressive_flow, bounded_relu, coupling_flow
from tiltflow.models.gaussian_mixture import best_mixture
from tiltflow.training.bases import proposal_for_rows
from tiltflow.training.continuous_fit import ContinuousLikelihood
from tiltflow.training.flow_objective import LIKELIHOOD, FlowObjective
from tiltflow.training.maximum_likelihood import FlowFit, fit_flow

ROWS_AT_ONCE = 250
PROBE_CHUNKS = 3
PROBE_SHARE = 0.25
"""Of a flow's seconds, that measuring the time of longer chunks may take."""
PATIENCE = 4
"""A fit stops early where a quarter of it brought no gain."""
GROWTH = 1.3
"""By which the solves of continuous flows become dearer in training, on average."""

SCORED_BY_NOISE = ContinuousLikelihood(score_trace="rademacher")
"""Scores after every chunk took a third of the seconds by the exact trace, of as many products as
there are columns. Test rows are judged by the exact one all the same."""

Make = Callable[
    [PRNGKeyArray, Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], AbstractDistribution
]


@dataclass(frozen=True)
class Rival:
    """A flow and how it is fitted: `make` is given the rows and the held-out ones.

    Only `scored_rows` of these are looked at after every chunk, where that is dear. `chunks` are
    numbers of steps in a chunk, of which the largest is taken that the seconds allow.
    """

    name: str
    make: Make
    objective: FlowObjective = LIKELIHOOD
    learning_rate: float = 3e-3
    batch_size: int = 512
    chunks: tuple[int, ...] = (100,)
    averaging: float = 0.99
    weight_decay: float = 1.0
    scored_rows: int = 2000
    growth: float = 1.0


@dataclass(frozen=True)
class Continuous:
    """Makes a stack of continuous flows, of the published network or of a small one."""

    network: Network | None = None

    def __call__(
        self, key: PRNGKeyArray, x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
    ) -> AbstractDistribution:
        """New, on a standard normal."""
        base = StandardNormal((x.shape[1],))
        if self.network is None:
            return continuous_flow(key, base, flows=2, widths=(64, 64), batch_norm=True)
        activation = {"tanh": jnp.tanh, "softplus": jax.nn.softplus}[self.network.activation]
        widths = (self.network.times * x.shape[1],) * self.network.layers
        flows = self.network.flows
        return continuous_flow(
            key, base, flows=flows, widths=widths, activation=activation, batch_norm=True
        )


def on_one_normal(
    key: PRNGKeyArray, x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
) -> AbstractDistribution:
    """A coupling flow on a standard normal."""
    base = StandardNormal((x.shape[1],))
    return eqx.filter_jit(coupling_flow)(key, base, activation=bounded_relu)


def on_a_mixture(
    key: PRNGKeyArray, x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
) -> AbstractDistribution:
    """A coupling flow on the mixture that is best on the held-out rows."""
    return proposal_for_rows(key, best_mixture(x, held_out, seed=0).density)


def autoregressive(
    key: PRNGKeyArray, x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
) -> AbstractDistribution:
    """A masked autoregressive flow on a standard normal."""
    return autoregressive_flow(key, StandardNormal((x.shape[1],)))


def energy(
    key: PRNGKeyArray, x: Float[np.ndarray, "n d"], held_out: Float[np.ndarray, "m d"]
) -> AbstractDistribution:
    """Couplings and dense linear layers on a standard normal, normalised on the rows."""
    return normalise_activations(coupled_energy_flow(key, x.shape[1]), jnp.asarray(x[:4096]))


def rivals(network: Network | None) -> tuple[Rival, ...]:
    """All of them; continuous flows with `network`, or small ones."""
    ffjord = Rival(
        "ffjord",
        Continuous(network),
        objective=SCORED_BY_NOISE,
        learning_rate=5e-3 if network is None else 1e-3,
        batch_size=128 if network is None else network.batch_size,
        chunks=(50,) if network is None else (1, 25),
        weight_decay=1e-5,
        scored_rows=500,
        growth=GROWTH,
    )
    return (
        ffjord,
        Rival("coupling_flow", on_one_normal),
        Rival("mixture_flow", on_a_mixture),
        Rival("autoregressive_flow", autoregressive),
        Rival("energy_flow", energy, averaging=0.999),
    )


def fit_rival(
    key: PRNGKeyArray,
    rival: Rival,
    x: Float[np.ndarray, "n d"],
    held_out: Float[np.ndarray, "m d"],
    *,
    seconds: float,
) -> tuple[AbstractDistribution, dict[str, Any]]:
    """The fitted flow, and figures: steps taken and kept, seconds, calls of fields in a step."""
    make_key, fit_key = jax.random.split(key)
    started = clock()
    flow = rival.make(make_key, x, held_out)
    making = clock() - started
    rows, scored = jnp.asarray(x), jnp.asarray(held_out[: rival.scored_rows])

    def fit(
        steps: int,
        chunk: int,
        on_report: Callable[[dict[str, Any]], None],
        stop: Callable[[], bool] | None = None,
    ) -> FlowFit:
        return fit_flow(
            fit_key,
            flow,
            rows,
            scored,
            learning_rate=rival.learning_rate,
            batch_size=rival.batch_size,
            max_steps=steps,
            chunk=chunk,
            # The warm-up alone is an eighth of the run.
            patience=max(10, steps // chunk // PATIENCE),
            objective=rival.objective,
            averaging=rival.averaging,
            weight_decay=rival.weight_decay,
            stop=stop,
            on_report=on_report,
        )

    chunk = rival.chunks[0]
    probe, each = _probe(fit, chunk, seconds)
    for longer in rival.chunks[1:]:
        if PROBE_CHUNKS * each * longer / chunk > PROBE_SHARE * seconds:
            break
        chunk = longer
        probe, each = _probe(fit, chunk, seconds)
    each = rival.growth * each
    left = max(each, seconds - making)
    steps = int(left / each) * chunk
    reports: list[dict[str, Any]] = []
    started = clock()
    best = fit(steps, chunk, reports.append, lambda: clock() - started > left)
    waited = clock() - started
    # What was measured by is a fit too, if a short one.
    best = max(best, probe, key=lambda it: it.held_out_log_likelihood)
    figures = {
        "steps": reports[-1]["step"],
        "best_step": best.steps,
        "steps_allowed": steps,
        "skipped": best.skipped,
        "stopped": best.stopped,
        "seconds": making + waited,
        "held_out_log_likelihood": best.held_out_log_likelihood,
    }
    if "evaluations" in reports[-1]:
        figures["evaluations"] = reports[-1]["evaluations"]
    return best.flow, figures


def _probe(fit: Callable[..., FlowFit], chunk: int, seconds: float) -> tuple[FlowFit, float]:
    """A few chunks, two at least and no more after `seconds`, and the time of one, in seconds.

    The first one may be compiled, and does not count.
    """
    times: list[float] = []
    started = clock()
    probe = fit(
        PROBE_CHUNKS * chunk,
        chunk,
        lambda _: times.append(clock()),
        lambda: len(times) > 1 and clock() - started > seconds,
    )
    return probe, min(np.diff(times), default=seconds)


def log_prob_of_rows(
    flow: AbstractDistribution, x: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """Log-densities in model units; continuous flows by the exact trace, so many rows at once.

    Rows of one solve fail together: those of one that did are taken with step sizes of their own.
    """
    size = ROWS_AT_ONCE if continuous_flows(flow) else 4096
    # The last part is filled up, so that one program serves all.
    filled = np.concatenate([x, np.repeat(x[-1:], -len(x) % size, axis=0)])
    parts = []
    for rows in filled.reshape(-1, size, x.shape[1]):
        values = np.asarray(_log_prob(flow, jnp.asarray(rows)), float)
        if continuous_flows(flow) and not np.isfinite(values).all():
            values = np.asarray(log_prob_in_parts(flow, jnp.asarray(rows)), float)
        parts.append(values)
    return np.concatenate(parts)[: len(x)]


@eqx.filter_jit
def _log_prob(flow: Any, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    return batch_likelihood(flow, x).log_prob if continuous_flows(flow) else flow.log_prob(x)
