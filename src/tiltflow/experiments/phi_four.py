"""Log-odds of the two phases of the φ⁴ chain, from one `tiltflow.sample` in each phase.

    log-odds = log Z_- − log Z_+,    Z_± = the integral of exp(−β U) over one phase,

at d = 100, a = .1, β = 20 (Gabrié, Rotskoff, Vanden-Eijnden 2022), against the transfer matrix. The
odds reach exp(31): neither chains that cross nor draws of the whole density would ever be seen in
the rarer phase. So each phase is sampled alone, on the log-density that is −inf outside it, from
the phase's minimum and a little noise; the standard errors of both log Z add up in quadrature.

A phase alone is one bump, for which a mixture suffices: here the flow is not taught, which takes
most of the time. Most of the exploration is for the mixture's covariance, of 5050 numbers.

A small part of the positive phase has a wall beside its middle sites, pressed there by the field (7
in 10 000 at b = .1, by the transfer matrix). The mixture hardly covers it, and now and then the
verdict on the positive phase is a doubt.
"""

import math
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from tiltflow.data.lattice import PhiFourChain, exact_log_odds, minima
from tiltflow.report.files import append_json_lines
from tiltflow.report.table import format_table
from tiltflow.sampler import sample
from tiltflow.training.adaptive_sweeps import WarmUpSettings

FIELDS = (0.0, 0.025, 0.05, 0.075, 0.1)
PHASES = ("negative", "positive")
CHAINS = 256
SAMPLES = 8192
NOISE = 0.02
BAR = 0.1
# One chunk is left of the flow's, in which the local step size adapts to the last mixture.
SETTINGS = WarmUpSettings(exploration_chunks=20, flow_chunks=1, flow_steps=0, reservoir=65_536)


class PhaseDensity(eqx.Module):
    """The chain's log-density inside one phase, −inf outside it.

    `phase` is a label of the chain: 0 for the negative phase, 1 for the positive one. Field and
    phase are arrays, so that all fields and phases are compiled once.
    """

    chain: PhiFourChain
    phase: Int[Array, ""]

    def __init__(self, chain: PhiFourChain, phase: int):
        self.chain = chain
        self.phase = jnp.asarray(phase)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Unnormalised log-density of one point, nats; outside, the gradient is zero."""
        inside = self.chain.label(x) == self.phase
        # However far outside x lies, it is not looked at: infinity times zero would be nan.
        log_density = self.chain.log_density(jnp.where(inside, x, 0.0))
        return jnp.where(inside, log_density, -jnp.inf)


def phase_starts(
    key: PRNGKeyArray, chain: PhiFourChain, phase: int, chains: int
) -> Float[Array, "chains d"]:
    """Points about the minimum of the phase."""
    noise = jax.random.normal(key, (chains, chain.dimension))
    return jnp.asarray(minima(chain)[phase]) + NOISE * noise


def run_field(
    key: PRNGKeyArray,
    chain: PhiFourChain,
    *,
    chains: int = CHAINS,
    samples: int = SAMPLES,
    settings: WarmUpSettings = SETTINGS,
) -> dict[str, Any]:
    """Sample both phases; the exact log-odds, the estimate with its error, and what led to it."""
    started = time.perf_counter()
    figures: dict[str, Any] = {"field": float(chain.field), "exact": exact_log_odds(chain)}
    for phase, name in enumerate(PHASES):
        start_key, sample_key = jax.random.split(jax.random.fold_in(key, phase))
        result = sample(
            PhaseDensity(chain, phase),
            phase_starts(start_key, chain, phase, chains),
            key=sample_key,
            num_samples=samples,
            settings=settings,
        )
        figures[name] = {
            "log_z": result.log_z,
            "log_z_stderr": result.log_z_stderr,
            "verdict": result.verdict.status,
            "reasons": list(result.verdict.reasons),
            "judged": result.verdict.figures,
        }
    estimate, stderr = log_odds(*(figures[name] for name in PHASES))
    return figures | {
        "estimate": estimate,
        "stderr": stderr,
        "error": estimate - figures["exact"],
        "seconds": time.perf_counter() - started,
    }


def log_odds(negative: dict[str, Any], positive: dict[str, Any]) -> tuple[float, float]:
    """The log-odds of the negative phase and their standard error, nats, of two separate runs."""
    return (
        negative["log_z"] - positive["log_z"],
        math.hypot(negative["log_z_stderr"], positive["log_z_stderr"]),
    )


def reproduce_phi_four(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """Five fields for every seed."""
    wanted = [(seed + i, number) for i in range(seeds) for number in range(len(FIELDS))]
    lines = []
    for run_seed, number in tqdm(wanted, desc="fields", disable=quiet):
        key = jax.random.fold_in(jax.random.key(run_seed), number)
        lines.append({"seed": run_seed} | run_field(key, PhiFourChain(FIELDS[number])))
        append_json_lines(out / "fields.jsonl", lines[-1:])
    print(summary(lines), flush=True)


def summary(lines: list[dict[str, Any]]) -> str:
    """The table, the largest error against the bar, and the reasons of every doubt."""
    rows = [
        [
            f"{line['seed']}",
            f"{line['field']:.3f}",
            f"{line['exact']:.3f}",
            f"{line['estimate']:.3f}",
            f"{line['stderr']:.4f}",
            f"{line['error']:+.4f}",
            f"{abs(line['error']) / line['stderr']:.2f}",
            *(line[name]["verdict"] for name in PHASES),
            f"{line['seconds']:.1f}",
        ]
        for line in lines
    ]
    columns = ["seed", "field", "exact", "estimate", "stderr", "error", "|error| / stderr"]
    largest = max(abs(line["error"]) for line in lines)
    reasons = [
        f"seed {line['seed']}, field {line['field']:.3f}, {name} phase: {reason}"
        for line in lines
        for name in PHASES
        for reason in line[name]["reasons"]
    ]
    return "\n".join(
        [
            "log-odds of the negative phase, d = 100, nats",
            format_table([*columns, *PHASES, "seconds"], rows),
            f"largest error {largest:.4f} nats; the bar is {BAR}",
            *reasons,
        ]
    )
