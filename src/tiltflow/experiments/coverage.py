"""How often the 95 % intervals of log Z and of the mode weights hold the truth.

A replicate is one production run of frozen chains and fresh draws of their flow, and the intervals
it gives: log Z +- 1.96 standard errors by bridge and by importance sampling (the truth is 0), and
the shares of the labels by the chains, by the importance weights and by both. A share that a
replicate never saw counts as missed. In d = 2 every replicate is a whole `tiltflow.sample` with its
own starts. Where the warm-up is dear a few warm-ups have many replicates each, and these share a
flow: their intervals are conditional on it. The chains go on from where the replicate before them
ended, after the sweeps that every production run leaves out.

The true share of a label is taken to be its mode's weight. The modes overlap a little; with a norm
of 4 that is off by 2e-4, a twentieth of a standard error.

With R replicates and exact intervals the share that holds lies, 95 times in 100, between the
quantiles of Binomial(R, 0.95) / R. The standard deviation of z = (estimate - truth) / error says
more than the coverage: it is 1 for exact errors, and above 1 they are too small.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy.stats import binom, norm
from tqdm import tqdm

from tiltflow.data.funnel import Funnel
from tiltflow.data.mixtures import GaussianMixture, four_modes, two_modes
from tiltflow.evaluation.bridge import bridge_sampling
from tiltflow.evaluation.log_normalizer import LogNormalizer, importance_sampling
from tiltflow.evaluation.mode_weights import (
    LEVEL,
    WeightEstimate,
    weights_from_chains,
    weights_from_importance,
    with_intervals,
)
from tiltflow.evaluation.witnesses import Witnesses, call_witnesses, label_weights
from tiltflow.report.files import append_json_lines, json_lines, keep_lines
from tiltflow.report.table import format_table
from tiltflow.sampler import Sampler, SampleResult, sample
from tiltflow.sampling.recording import frozen_sweeps

REPLICATES = 200
CHAINS = 256
SAMPLES = 8192
WAYS = ("chains", "importance", "both")


Target = GaussianMixture | Funnel


class Case(NamedTuple):
    """A normalised target, and the warm-ups that 200 replicates are shared out to."""

    name: str
    target: Target
    warm_ups: int


def cases() -> tuple[Case, ...]:
    """The targets, by increasing cost; of the funnel, that of the flow papers and Neal's own."""
    return (
        Case("two modes, d = 2", two_modes(), REPLICATES),
        Case("four modes, d = 32", four_modes(32, 4.0), 40),
        Case("funnel, d = 10, s = sqrt 3", Funnel(10, math.sqrt(3.0)), 25),
        Case("funnel, d = 10, s = 3", Funnel(10), 25),
        Case("four modes, d = 128", four_modes(128, 4.5), 8),
    )


def reproduce_coverage(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """All targets; every seed adds 200 replicates to each.

    What `out` holds of an earlier run with the same seed is not run again.
    """
    for case in cases():
        lines = run_case(case, seeds=seeds, seed=seed, quiet=quiet, out=out)
        print(summary(case, lines), flush=True)


def run_case(case: Case, *, seeds: int, seed: int, quiet: bool, out: Path) -> list[dict[str, Any]]:
    """All replicates of the case, one dictionary each, kept in `out` warm-up by warm-up."""
    path = out / "replicates.jsonl"
    kept = []
    if path.exists():
        whole = list(json_lines(path.read_bytes()))
        keep_lines(path, (text for text, _ in whole))
        kept = [line for _, line in whole]
    lines = []
    wanted = [(seed + i, w) for i in range(seeds) for w in range(case.warm_ups)]
    for run_seed, warm_up in tqdm(wanted, desc=case.name, disable=quiet):
        about = {"case": case.name, "seed": run_seed, "warm_up": warm_up}
        found = [line for line in kept if about.items() <= line.items()]
        if not found:
            key = jax.random.fold_in(jax.random.key(run_seed), warm_up)
            figures = replicate_warm_up(key, case.target, REPLICATES // case.warm_ups)
            found = [about | each for each in figures]
            append_json_lines(path, found)
        lines += found
    return lines


def replicate_warm_up(key: PRNGKeyArray, target: Target, replicates: int) -> list[dict[str, Any]]:
    """One warm-up and the figures of its replicates, the first of which is the result itself."""
    started = time.perf_counter()
    start_key, sample_key, again_key = jax.random.split(key, 3)
    starts = initial_positions(start_key, target, CHAINS)
    result = sample(target.log_prob, starts, key=sample_key, num_samples=SAMPLES)
    figures = [_figures_of_result(target, result)]
    sampler = result.sampler
    sweeps, draws = len(result.chains), len(result.proposals)
    del result
    for index in range(replicates - 1):
        replicate_key = jax.random.fold_in(again_key, index)
        sampler, witnesses = _again(replicate_key, sampler, sweeps, draws)
        figures.append(_figures_of_witnesses(target, sampler, witnesses))
    seconds = time.perf_counter() - started
    return [each | {"seconds": seconds / replicates} for each in figures]


def initial_positions(key: PRNGKeyArray, target: Target, chains: int) -> Float[Array, "chains d"]:
    """As many chains in every mode, whatever its weight; in the funnel, where it is round."""
    noise = jax.random.normal(key, (chains, target.dimension))
    if not isinstance(target, GaussianMixture):
        return noise
    mode = jnp.arange(chains) % len(target.means)
    return target.means[mode] + jnp.einsum("nij,nj->ni", target.scale_trils[mode], noise)


def replicate_figures(
    bridge: LogNormalizer,
    importance: LogNormalizer,
    by_way: dict[str, WeightEstimate],
    modes: int,
) -> dict[str, Any]:
    """Estimates and errors of log Z, and of every way `[weight, from, to, error]` of each mode."""
    figures: dict[str, Any] = {
        "bridge": [float(bridge.log_z), float(bridge.stderr)],
        "importance": [float(importance.log_z), float(importance.stderr)],
    }
    for way, estimate in by_way.items():
        found = with_intervals(estimate)
        table = np.zeros((modes, 4))
        table[found.labels.astype(int)] = np.column_stack(
            [found.weights, found.intervals, estimate.standard_errors]
        )
        figures[f"weights by {way}"] = table.tolist()
    return figures


def _figures_of_result(target: Target, result: SampleResult) -> dict[str, Any]:
    """The figures of what the user gets, with its verdict."""
    chains, draws, log_weights = result.chains, result.proposals, result.proposal_log_weights
    bridge = LogNormalizer(*map(jnp.asarray, (result.log_z, result.log_z_stderr, 0.0)))
    labels = np.asarray(_labels(target, jnp.asarray(chains.reshape(-1, target.dimension))))
    by_way = _by_way(
        labels.reshape(chains.shape[:2]),
        np.asarray(_labels(target, jnp.asarray(draws))),
        log_weights,
    )
    about = {"verdict": result.verdict.status, "reasons": list(result.verdict.reasons)}
    figures = replicate_figures(bridge, result.importance, by_way, len(target.weights))
    return figures | about | {"judged": result.verdict.figures}


def _figures_of_witnesses(target: Target, sampler: Sampler, witnesses: Witnesses) -> dict[str, Any]:
    """The same without a verdict, which costs more than the run."""
    recording, draws, log_weights = witnesses
    rows = recording.position.reshape(-1, target.dimension)
    to_user = sampler.coordinates.to_user
    by_way = _by_way(
        np.asarray(_labels(target, to_user(rows))).reshape(recording.log_ratio.shape),
        np.asarray(_labels(target, to_user(draws))),
        np.asarray(log_weights),
    )
    return replicate_figures(
        bridge_sampling(log_weights, recording.log_ratio),
        importance_sampling(log_weights),
        by_way,
        len(target.weights),
    )


def _by_way(
    chain_labels: Int[np.ndarray, "sweeps chains"],
    draw_labels: Int[np.ndarray, " k"],
    log_weights: Float[np.ndarray, " k"],
) -> dict[str, WeightEstimate]:
    estimates = (
        weights_from_chains(chain_labels),
        weights_from_importance(draw_labels, log_weights),
        label_weights(chain_labels, draw_labels, log_weights),
    )
    return dict(zip(WAYS, estimates))


def _again(
    key: PRNGKeyArray, sampler: Sampler, sweeps: int, draws: int
) -> tuple[Sampler, Witnesses]:
    """One more production run of the frozen sampler, which goes on from where it ended."""
    witnesses = call_witnesses(
        key,
        sampler.coordinates,
        sampler.flow,
        frozen_sweeps(sampler.coordinates, sampler.flow, sampler.position, sampler.kernel),
        sweeps=sweeps,
        draws=draws,
    )
    return sampler._replace(position=witnesses.recording.position[-1]), witnesses


@eqx.filter_jit
def _labels(target: Target, x: Float[Array, "n d"]) -> Int[Array, " n"]:
    return jax.vmap(target.label)(x)


class Coverage(NamedTuple):
    """The share of intervals that hold the truth, their mean width, and mean and spread of z."""

    share: float
    width: float
    z_mean: float
    z_std: float


def coverage(
    truth: float,
    estimates: Float[np.ndarray, " n"],
    intervals: Float[np.ndarray, "n 2"],
    errors: Float[np.ndarray, " n"],
) -> Coverage:
    """Coverage of n intervals; an estimate without a finite error has no z."""
    held = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
    known = np.isfinite(estimates) & np.isfinite(errors) & (errors > 0)
    z = (estimates[known] - truth) / errors[known]
    enough = len(z) > 1
    return Coverage(
        float(held.mean()),
        float((intervals[:, 1] - intervals[:, 0]).mean()),
        float(z.mean()) if enough else math.nan,
        float(z.std(ddof=1)) if enough else math.nan,
    )


def coverages(target: Target, lines: Sequence[dict[str, Any]]) -> dict[str, Coverage]:
    """By the name of what is covered: log Z in two ways, every mode's weight in three."""
    found = {}
    half = float(norm.ppf((1 + LEVEL) / 2))
    for way in ("bridge", "importance"):
        log_z, error = np.array([line[way] for line in lines], float).T
        interval = np.stack([log_z - half * error, log_z + half * error], axis=1)
        found[f"log Z by {way}"] = coverage(0.0, log_z, interval, error)
    for way in WAYS:
        table = np.array([line[f"weights by {way}"] for line in lines], float)
        for mode, truth in enumerate(np.asarray(target.weights, float)):
            weight, low, high, error = table[:, mode].T
            name = f"weight {truth:.2f} of mode {mode} by {way}"
            found[name] = coverage(float(truth), weight, np.stack([low, high], axis=1), error)
    return found


def summary(case: Case, lines: Sequence[dict[str, Any]]) -> str:
    """The case's table, the band for exact intervals, the verdicts and the seconds."""
    low, high = binom.interval(0.95, len(lines), LEVEL)
    verdicts = [line["verdict"] for line in lines if "verdict" in line]
    counted = ", ".join(f"{verdicts.count(each)} {each}" for each in sorted(set(verdicts)))
    rows = [
        [name, f"{each.share:.3f}", f"{each.width:.5f}", f"{each.z_mean:.2f}", f"{each.z_std:.2f}"]
        for name, each in coverages(case.target, lines).items()
    ]
    seconds = sum(line["seconds"] for line in lines)
    return "\n".join(
        [
            f"{case.name}: {len(lines)} replicates of {len(verdicts)} warm-ups; exact intervals "
            f"hold in {low / len(lines):.3f} to {high / len(lines):.3f}",
            format_table(["95 % interval of", "coverage", "width", "mean z", "std z"], rows),
            f"verdicts: {counted}; {seconds:.0f} s",
            "",
        ]
    )
