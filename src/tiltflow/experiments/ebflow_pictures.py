"""What the figure of `ebflow_images.py` shows: draws, and what Langevin steps make of images.

Draws are by inversion; half an image is drawn anew and noise is taken off by Langevin steps in
logits (`sampling/langevin_inpainting.py`).
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Float, UInt8

from tiltflow.data.arrays import load_npz
from tiltflow.data.preprocessing import to_model_units, to_user_units
from tiltflow.experiments.cells import Line
from tiltflow.experiments.grey_images import ScaledImages
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.report.figure_images import ImageRow, draw_figure_images
from tiltflow.report.files import write_atomically
from tiltflow.report.style import save_png
from tiltflow.sampling.langevin_inpainting import denoise, inpaint

SHOWN = 8
LANGEVIN_STEPS = 500
NOISE = 1.5
"""Of the images to be denoised, in logits; black is at -6, white at 6."""


class Pictures(NamedTuple):
    """What the figure shows of one model; those of the data are the same for all models."""

    draws: UInt8[np.ndarray, "n h w"]
    half: UInt8[np.ndarray, "n h w"]
    inpainted: UInt8[np.ndarray, "n h w"]
    noisy: UInt8[np.ndarray, "n h w"]
    denoised: UInt8[np.ndarray, "n h w"]


class InLogits(eqx.Module):
    """A flow behind a scaling, as an unnormalised density of logits."""

    flow: EnergyFlow
    scaling: AbstractBijection

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Up to the scaling's determinant, which is a constant, and log Z."""
        return self.flow.log_density(self.scaling.transform(x))


def make_pictures(flow: EnergyFlow, images: ScaledImages, *, seed: int) -> Pictures:
    """Draws, lower halves by Langevin steps, and noise taken off by the same."""
    draw_key, inpaint_key, noise_key, denoise_key = jax.random.split(jax.random.key(seed), 4)

    def seen(logits: Any) -> UInt8[np.ndarray, "n h w"]:
        pixels = to_user_units(images.logit, np.asarray(logits, float))
        return np.clip(np.round(pixels), 0, 255).astype(np.uint8).reshape(-1, *images.shape)

    draws = np.asarray(flow.sample(draw_key, (SHOWN,)), float)
    model = InLogits(flow, _in_default_precision(images.scaling))
    logits = to_model_units(images.logit, images.test[:SHOWN])[0]
    known = np.zeros((SHOWN, *images.shape), bool)
    known[:, : images.shape[0] // 2] = True
    known = known.reshape(SHOWN, -1)
    logits = logits.astype(draws.dtype)
    noisy = logits + NOISE * np.asarray(jax.random.normal(noise_key, logits.shape), float)
    black = to_model_units(images.logit, np.zeros((1, logits.shape[1])))[0]
    inpainted = inpaint(inpaint_key, model.log_density, logits, known, steps=LANGEVIN_STEPS)
    denoised = denoise(denoise_key, model.log_density, noisy, NOISE, steps=LANGEVIN_STEPS)
    return Pictures(
        seen(to_user_units(images.scaling, draws)),
        seen(np.where(known, logits, black)),
        seen(inpainted),
        seen(noisy),
        seen(denoised),
    )


def _in_default_precision(bijection: AbstractBijection) -> AbstractBijection:
    """Preprocessing has double precision, in which every Langevin step would then be."""

    def cast(leaf: Any) -> Any:
        return jnp.asarray(leaf, float) if eqx.is_inexact_array_like(leaf) else leaf

    return jax.tree.map(cast, bijection)


def keep_pictures(out: Path, cell: Line, pictures: Pictures) -> None:
    """Beside the cells, for figures of later runs."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **pictures._asdict())
    path = _path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, stream.getvalue())


def read_pictures(out: Path, cell: Line) -> Pictures | None:
    """Those of a cell, or None where none were kept."""
    path = _path(out, cell)
    if not path.exists():
        return None
    arrays = load_npz(path)
    return Pictures(*(arrays[name] for name in Pictures._fields))


def _path(out: Path, cell: Line) -> Path:
    return out / "pictures" / f"{cell['fingerprint']}.npz"


HEADINGS = ("draws", "lower half unknown, and by Langevin steps", "noisy, and by Langevin steps")


def save_figure(lines: Sequence[Line], out: Path, name: str, *, seed: int) -> None:
    """Pictures of the first seed, a row for each loss, as `name` in `out`."""
    rows = []
    for line in lines:
        pictures = read_pictures(out, line) if line["seed"] == seed else None
        if pictures is None:
            continue
        draws, half, inpainted, noisy, denoised = pictures
        pairs = [
            np.stack([one, other], axis=1) for one, other in ((half, inpainted), (noisy, denoised))
        ]
        inpainting, denoising = (pair[:4].reshape(-1, *draws.shape[1:]) for pair in pairs)
        note = f"{line['figures']['bits_per_dimension']:.3f} bits/dim"
        rows.append(ImageRow(line["method"], note, [draws, inpainting, denoising]))
    if rows:
        save_png(draw_figure_images(HEADINGS, rows), out / name)
        print(f"written to {out}: {name}")
