"""The weights of four modes in 256 dimensions, by `tiltflow.sample` started evenly in the modes.

    p(x) = sum_k w_k N(x; mean_k, I),    mean_k = ± alpha sqrt(2 log d) in each half of the axes,

with the signs (−, −), (+, +), (−, +), (+, −) of the two halves and alpha = 0.591 (the four-mode
target of Grenioux's code, d = 16 to 256; there of equal weights). Here the weights are .4, .3, .2,
.1, and a user who knows the modes and not their weights starts as many chains in each. At d = 256
two modes are 45 or 63 deviations apart, so that only the flow's draws carry mass between them.
"""

import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from tiltflow.data.mixtures import GaussianMixture
from tiltflow.experiments.coverage import initial_positions
from tiltflow.report.files import append_json_lines
from tiltflow.report.table import format_table
from tiltflow.sampler import sample
from tiltflow.training.adaptive_sweeps import WarmUpSettings

DIMENSION = 256
ALPHA = 0.591
SIGNS = ((-1, -1), (1, 1), (-1, 1), (1, -1))
WEIGHTS = (0.4, 0.3, 0.2, 0.1)
CHAINS = 512
SAMPLES = 16_384
BAR = 0.02


def four_corners(dimension: int = DIMENSION) -> GaussianMixture:
    """The target in an even number of dimensions."""
    height = ALPHA * math.sqrt(2 * math.log(dimension))
    means = height * np.repeat(np.array(SIGNS), dimension // 2, axis=1)
    return GaussianMixture(means, np.tile(np.eye(dimension), (len(SIGNS), 1, 1)), np.array(WEIGHTS))


def run_seed(
    key: PRNGKeyArray,
    target: GaussianMixture,
    *,
    chains: int = CHAINS,
    samples: int = SAMPLES,
    settings: WarmUpSettings | None = None,
) -> dict[str, Any]:
    """One `tiltflow.sample`: weights with intervals, log Z with its error, and the verdict."""
    started = time.perf_counter()
    start_key, sample_key = jax.random.split(key)
    starts = initial_positions(start_key, target, chains)
    result = sample(target.log_prob, starts, key=sample_key, num_samples=samples, settings=settings)
    label = jax.jit(jax.vmap(target.label))
    found = result.mode_weights(lambda x: np.asarray(label(jnp.asarray(x))))
    # A mode that was never seen has weight zero and no error.
    weights, intervals = np.zeros(len(WEIGHTS)), np.zeros((len(WEIGHTS), 2))
    seen = found.labels.astype(int)
    weights[seen], intervals[seen] = found.weights, found.intervals
    return {
        "weights": weights.tolist(),
        "intervals": intervals.tolist(),
        "largest_error": float(np.abs(weights - np.array(WEIGHTS)).max()),
        "log_z": result.log_z,
        "log_z_stderr": result.log_z_stderr,
        "acceptance": result.verdict.figures["global_acceptance_rate"],
        "verdict": result.verdict.status,
        "reasons": list(result.verdict.reasons),
        "judged": result.verdict.figures,
        "seconds": time.perf_counter() - started,
        "peak_mebibytes": peak_mebibytes(),
    }


def peak_mebibytes() -> float:
    """The most memory that this process has held so far; it never falls."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def reproduce_sample_four_modes_256(*, seeds: int, seed: int, quiet: bool, out: Path) -> None:
    """D = 256, one run for every seed."""
    target = four_corners()
    lines = []
    for each in tqdm(range(seed, seed + seeds), desc="seeds", disable=quiet):
        lines.append({"seed": each} | run_seed(jax.random.key(each), target))
        append_json_lines(out / "seeds.jsonl", lines[-1:])
    print(summary(lines), flush=True)


def summary(lines: list[dict[str, Any]]) -> str:
    """One table of the weights, one of the runs, and the largest error against the bar."""
    weights = [
        [
            f"{line['seed']}",
            f"{mode}",
            f"{truth:.1f}",
            f"{line['weights'][mode]:.4f}",
            "{:.4f} to {:.4f}".format(*line["intervals"][mode]),
            f"{line['weights'][mode] - truth:+.4f}",
        ]
        for line in lines
        for mode, truth in enumerate(WEIGHTS)
    ]
    runs = [
        [
            f"{line['seed']}",
            f"{line['largest_error']:.4f}",
            f"{line['log_z']:.4f} ± {line['log_z_stderr']:.4f}",
            f"{line['acceptance']:.3f}",
            line["verdict"],
            f"{line['seconds']:.1f}",
            f"{line['peak_mebibytes']:.0f}",
        ]
        for line in lines
    ]
    largest = max(line["largest_error"] for line in lines)
    reasons = [f"seed {line['seed']}: {reason}" for line in lines for reason in line["reasons"]]
    return "\n".join(
        [
            format_table(["seed", "mode", "truth", "weight", "95 % interval", "error"], weights),
            "",
            format_table(
                ["seed", "largest error", "log Z (0)", "acceptance", "verdict", "seconds", "MiB"],
                runs,
            ),
            f"largest error of any weight {largest:.4f}; the bar is {BAR}",
            *reasons,
        ]
    )
