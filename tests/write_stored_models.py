"""Write samples of what today's version saves: `python tests/write_stored_models.py`.

Each goes to a folder that names the format version, and none that is there is written again: change
`FORMAT_VERSION`, or the names below, where the parts of a model change. Fits of a few steps.
"""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

import tiltflow
from tiltflow import BalancedEBM
from tiltflow.models.files import FORMAT_VERSION
from tiltflow.models.flow_files import Architecture, save_flow
from tiltflow.models.gaussian_mixture import GaussianMixture
from tiltflow.models.mixture_of_flows import MixtureOfFlows
from tiltflow.models.tilted import TiltedEBM

HERE = Path(__file__).parent
SMALL = {"max_steps": 100, "chains": 32, "energy_width": 4, "energy_depth": 1, "local_steps": 2}
FLOWS = {
    "continuous": Architecture(
        "continuous flow",
        {"dimension": 2, "widths": (4,), "integration": {"steps": 4, "solver": "dopri5"}},
    ),
    "coupled": Architecture("coupled energy flow", {"dimension": 4, "width": 4, "blocks": 1}),
}


def bent(rows: int) -> np.ndarray:
    """A bent column beside another one, on which a flow gains over mixtures."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=rows)
    return np.stack([x, x**2 + 0.2 * generator.normal(size=rows)], axis=1)


def trees(rows: int) -> pl.DataFrame:
    """Numbers of another type than float64 beside a category."""
    generator = np.random.default_rng(0)
    kind = generator.choice(["pine", "oak"], size=rows, p=[0.7, 0.3])
    return pl.DataFrame(
        {
            "height": generator.normal(np.where(kind == "pine", 10.0, 20.0)).astype(np.float32),
            "kind": pl.Series(kind, dtype=pl.Enum(["oak", "elm", "pine"])),
        }
    )


def write_model(folder: Path, estimator: BalancedEBM, rows: np.ndarray) -> None:
    """The model, and what it says of `rows`."""
    del estimator.metrics_[:-1]
    estimator.save(folder)
    expected = {
        "rows": rows.tolist(),
        "log_prob": estimator.score_samples(rows).tolist(),
        "samples": estimator.sample(3, key=0).tolist(),
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1))


def write_models(folder: Path) -> None:
    """Bases that are a mixture (with categories) and a flow; a mixture of flows as proposal."""
    common = {"preprocessing": "standardise", "random_state": 0, **SMALL}
    if not (place := folder / f"format_{FORMAT_VERSION}_mixture").exists():
        table = trees(300)
        write_model(place, BalancedEBM(base="mixture", **common).fit(table), table[:5].to_numpy())
    if not (place := folder / f"format_{FORMAT_VERSION}_flow").exists():
        write_model(place, BalancedEBM(base="flow", **common).fit(bent(600)), bent(5))
    if not (of_flows := folder / f"format_{FORMAT_VERSION}_flows").exists():
        # A fit makes these above eight columns alone, and larger.
        estimator = tiltflow.load(place)
        mixture = GaussianMixture(np.array([0.4, 0.6]), np.eye(2), np.stack([np.eye(2)] * 2))
        frozen = estimator._frozen
        estimator._frozen = frozen._replace(
            model=TiltedEBM(mixture, frozen.model.energy),
            flow=MixtureOfFlows(jax.random.key(1), mixture),
        )
        estimator.set_offset()
        write_model(of_flows, estimator, bent(5))


def write_flows(folder: Path) -> None:
    """A flow of every other kind than those in models, its parameters a little off."""
    for name, architecture in FLOWS.items():
        place = folder / f"format_{FORMAT_VERSION}_{name}"
        if place.exists():
            continue
        flow = jax.tree.map(
            lambda leaf: (
                leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)
                if eqx.is_inexact_array(leaf)
                else leaf
            ),
            architecture.make(jax.random.key(3)),
        )
        save_flow(place, architecture, flow)
        rows = np.random.default_rng(0).normal(size=(5, *flow.shape))
        log_prob = np.asarray(flow.log_prob(jnp.asarray(rows)), float)
        expected = {"rows": rows.tolist(), "log_prob": log_prob.tolist()}
        (place / "expected.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    write_flows(HERE / "stored_flows")
    write_models(HERE / "stored_models")
