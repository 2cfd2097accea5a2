"""EBFlow in the plane: every loss on the same flow, judged by quadrature (Chao et al. 2023).

    KL = E_p [log p - log q],      Fisher divergence = E_p |grad log p - grad log q|^2 / 2

p is the exact density of the toy with its noise, q the flow, and both integrals run over one grid.
(The published code reports mean(-log q) + mean(p log p) over draws of p, which weighs the second
term by p twice, and its likelihood stands on another base density than its energy.) All losses see
rows with the noise added, but for denoising, which adds it itself.
"""

import json
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import Affine, Invert
from flowjax.distributions import AbstractDistribution, Transformed
from jaxtyping import Array, Float

from tiltflow.data.noised_toys import NOISE, NoisedToy, checkerboard, sine, swirl
from tiltflow.evaluation.quadrature import grid_around, kl_divergence
from tiltflow.models.energy_flow_architectures import coupled_energy_flow
from tiltflow.report.files import append_json_lines
from tiltflow.report.table import format_table
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.energy_flow_fit import fit_energy_flow
from tiltflow.training.finite_difference_score_matching import FiniteDifferenceScoreMatching
from tiltflow.training.flow_losses import (
    FlowLoss,
    MaximumLikelihood,
    SampledMaximumLikelihood,
    ScoreMatching,
)
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

TOYS = {"sine": sine, "swirl": swirl, "checkerboard": checkerboard}
UNIT = 4.0
"""Model units are a quarter: the toys are about four wide."""
LOSSES: dict[str, FlowLoss] = {
    "likelihood": MaximumLikelihood(),
    "sampled likelihood": SampledMaximumLikelihood(),
    "sliced": ScoreMatching(SlicedScoreMatching()),
    "denoising": ScoreMatching(DenoisingScoreMatching(NOISE / UNIT)),
    "finite differences": ScoreMatching(FiniteDifferenceScoreMatching(0.02)),
}
ROWS, HELD_OUT, BATCH = 50_000, 10_000, 512
STEPS, QUICK_STEPS, CHUNK = 10_000, 2_000, 250
LEARNING_RATE = 2e-3
BLOCKS, WIDTH = 10, 64


def reproduce_ebflow_2d(
    *,
    seeds: int,
    seed: int,
    quiet: bool,
    out: Path,
    methods: tuple[str, ...] | None = None,
    quick: bool = False,
) -> None:
    """A line for every toy and loss: KL, Fisher divergence and seconds, mean over the seeds."""
    lines = []
    for name in TOYS:
        for loss in methods or tuple(LOSSES):
            results = [
                run(name, loss, seed=seed + i, steps=QUICK_STEPS if quick else STEPS)
                for i in range(seeds)
            ]
            append_json_lines(out / "results.jsonl", results)
            if not quiet:
                print(json.dumps(results), flush=True)
            lines.append([name, loss, *_mean(results)])
    print(f"EBFlow in the plane, {BLOCKS} blocks; KL in nats, Fisher divergence in 1 / unit^2")
    print(format_table(["data", "loss", "KL", "Fisher divergence", "seconds"], lines))


def run(name: str, loss: str, *, seed: int, steps: int) -> dict[str, Any]:
    """One training, and what quadrature says about it."""
    toy = TOYS[name]()
    noise = 0.0 if loss == "denoising" else NOISE
    key = jax.random.key(seed)
    x = np.asarray(toy.sample(jax.random.fold_in(key, 0), ROWS, noise), float)
    held_out = np.asarray(toy.sample(jax.random.fold_in(key, 1), HELD_OUT), float)
    flow = eqx.filter_jit(coupled_energy_flow)(
        jax.random.fold_in(key, 2), 2, blocks=BLOCKS, width=WIDTH
    )
    preprocessing = Affine(jnp.zeros(2), jnp.full(2, 1 / UNIT))
    started = time.perf_counter()
    fit = fit_energy_flow(
        jax.random.fold_in(key, 3),
        flow,
        x,
        held_out,
        preprocessing=preprocessing,
        loss=LOSSES[loss],
        learning_rate=LEARNING_RATE,
        batch_size=BATCH,
        max_steps=steps,
        chunk=CHUNK,
        patience=steps // CHUNK,
        averaging=0.995,
    )
    seconds = time.perf_counter() - started
    kl, fisher = divergences(toy, Transformed(fit.flow, Invert(preprocessing)), held_out)
    return {
        "data": name,
        "loss": loss,
        "seed": seed,
        "kl": kl,
        "fisher": fisher,
        "seconds": seconds,
        "steps": fit.steps,
        "skipped": fit.skipped,
    }


def divergences(
    toy: NoisedToy, model: AbstractDistribution, rows: Float[np.ndarray, "n 2"]
) -> tuple[float, float]:
    """KL(toy || model) in nats and the Fisher divergence, by quadrature about `rows`."""
    grid = grid_around(rows, margin=0.1)
    points = jnp.asarray(grid.points)
    true, true_score = map(np.asarray, _look(toy, points))
    log_prob, score = map(np.asarray, _look(model, points))
    mass = np.exp(np.asarray(true, float) + grid.log_cell)
    seen = mass > 1e-12
    gap = np.asarray(true_score - score, float)[seen]
    fisher = 0.5 * float(mass[seen] @ (gap**2).sum(axis=1))
    return kl_divergence(grid, np.asarray(true, float), np.asarray(log_prob, float)), fisher


@eqx.filter_jit
def _look(
    density: NoisedToy | AbstractDistribution, points: Float[Array, "p 2"]
) -> tuple[Float[Array, " p"], Float[Array, "p 2"]]:
    """Log-density and score at every point."""
    return jax.lax.map(jax.value_and_grad(density.log_prob), points, batch_size=4096)


def _mean(results: list[dict[str, Any]]) -> list[str]:
    means = {
        name: np.mean([each[name] for each in results]) for name in ("kl", "fisher", "seconds")
    }
    return [f"{means['kl']:.4f}", f"{means['fisher']:.4f}", f"{means['seconds']:.0f}"]
