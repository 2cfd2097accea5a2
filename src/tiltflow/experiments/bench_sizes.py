"""Do the sizes that follow from a table fit it? Each is halved and doubled, the others kept.

Tables at the edges of what the defaults are for, made on the spot from densities that are known, so
that the mean log-density of many fresh rows is compared: what a fit leaves on the table is the
distance from the truth's. Differences are of the same rows, and their errors are over rows; two
fits with other seeds differ as well, which the first line of each table but the first shows.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from tiltflow.data.mixtures import four_modes, warped_modes
from tiltflow.estimator import BalancedEBM
from tiltflow.report.table import format_table
from tiltflow.training.sizes import Sizes, choose_sizes

FRESH_ROWS = 20_000


class Edge(NamedTuple):
    """A table: how many rows and columns, and which density they come from."""

    rows: int
    columns: int
    target: str


EDGES = (
    Edge(200, 1, "four"),
    Edge(200, 100, "warped"),
    Edge(2000, 3, "warped"),
    Edge(10_000, 100, "warped"),
    Edge(100_000, 10, "warped"),
)


def bench_sizes(*, seed: int, quiet: bool, edges: Sequence[Edge] = EDGES) -> None:
    """Print a table for every edge."""
    for edge in edges:
        target = {"four": four_modes, "warped": warped_modes}[edge.target](edge.columns, 4.0)
        row_key, fresh_key = jax.random.split(jax.random.key(seed))
        rows = np.asarray(target.sample(row_key, edge.rows), float)
        fresh = np.asarray(target.sample(fresh_key, FRESH_ROWS), float)
        truth = np.asarray(jax.lax.map(target.log_prob, fresh, batch_size=1000))
        chosen = choose_sizes(edge.rows)
        reference = _fit(rows, fresh, seed, chosen)
        lines = [_line("as chosen", chosen, reference, truth)]
        again = _fit(rows, fresh, seed + 1, chosen)
        lines.append(_line("another seed", chosen, again, reference[0]))
        for name in ("energy_width", "chains"):
            for factor in (0.5, 2):
                sizes = chosen._replace(**{name: round(getattr(chosen, name) * factor)})
                fitted = _fit(rows, fresh, seed, sizes)
                lines.append(_line(f"{name} x {factor:g}", sizes, fitted, reference[0]))
        print(
            f"{edge.rows} rows x {edge.columns} columns, {edge.target} modes; nats per fresh row, "
            "less the truth's in the first line, less the first fit's below"
        )
        print(format_table(["sizes", "energy", "chains", "nats", "verdict", "seconds"], lines))


def _fit(
    rows: Float[np.ndarray, "n d"], fresh: Float[np.ndarray, "m d"], seed: int, sizes: Sizes
) -> tuple[Float[np.ndarray, " m"], str, float]:
    started = time.perf_counter()
    estimator = BalancedEBM(random_state=seed, **sizes._asdict()).fit(rows)
    return (
        estimator.score_samples(fresh),
        estimator.verdict_.status,
        time.perf_counter() - started,
    )


def _line(
    name: str, sizes: Sizes, fitted: tuple[Any, str, float], beside: Float[np.ndarray, " m"]
) -> list[str]:
    scores, status, seconds = fitted
    difference = scores - beside
    stderr = difference.std() / np.sqrt(len(difference))
    network = f"{sizes.energy_width} x {sizes.energy_depth}"
    figures = f"{difference.mean():+.4f} ± {stderr:.4f}"
    return [name, network, str(sizes.chains), figures, status, f"{seconds:.0f}"]
