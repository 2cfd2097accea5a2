"""Rows with missing cells: draws of what is missing, given the cells that are there.

A row's cells are moved in coordinates c of which each belongs to one column (`columns_apart`), in
which p(c) = p(z = T c) |T|. A Gaussian mixture fitted to draws of the model proposes, as
`sampling/conditional.py` tells.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from tiltflow.data.dequantisation import dequantise
from tiltflow.data.preprocessing import FAR, columns_apart, to_model_units, to_user_units
from tiltflow.data.schema import Schema, on_grids
from tiltflow.frozen import FrozenModel, draw_rows
from tiltflow.models.gaussian_mixture import GaussianMixture, best_mixture
from tiltflow.models.tilted import TiltedEBM
from tiltflow.sampling.conditional import ConditionalDraws, sample_given

MIXTURE_ROWS, MIXTURE_HELD_OUT = 4096, 1024
SWEEPS, LOCAL_STEPS = 40, 5
ROWS_AT_ONCE = 256
LEAST_ACCEPTANCE = 0.02
"""Below it, in a sweep, chains of a row may stand where they began: the user is told."""


class Filled(NamedTuple):
    """`rows` in the user's units, and for each how often a proposal was taken, nan if whole."""

    rows: Float[np.ndarray, "n draws d"]
    global_acceptance_rate: Float[np.ndarray, " n"]


class _Apart(eqx.Module):
    """The model's log-density in the coordinates of the columns."""

    model: TiltedEBM
    matrix: Float[Array, "d d"]

    def __call__(self, c: Float[Array, " d"]) -> Float[Array, ""]:
        return self.model.log_density(self.matrix @ c)


def fill(
    key: PRNGKeyArray,
    frozen: FrozenModel,
    bijection: AbstractBijection,
    rows: Float[np.ndarray, "n d"],
    *,
    draws: int,
) -> Filled:
    """`draws` of every row with its nan cells drawn given the others, which stay as they are.

    Whole rows cost nothing, and what is drawn for a row depends on its place in the table and not
    on which others are whole.
    """
    known = np.isfinite(rows)
    (places,) = np.nonzero(~known.all(axis=1))
    filled, rates = np.repeat(rows[:, None], draws, axis=1), np.full(len(rows), np.nan)
    if not len(places):
        return Filled(filled, rates)
    apart, matrix = columns_apart(bijection, rows.shape[1])
    mixture_key, run_key = jax.random.split(key)
    mixture = _mixture_of(mixture_key, frozen, matrix)
    # A stand-in inside of the data: its coordinate is not looked at.
    centre = to_user_units(apart, np.zeros((1, rows.shape[1])))
    c, _ = to_model_units(apart, np.where(known, rows, centre)[places])
    # Further out no point has a density, and chains would go nowhere but to nan.
    c = np.clip(c, -FAR, FAR)
    density = _Apart(frozen.model, jnp.asarray(matrix))
    keys = jax.random.split(run_key, len(rows))[places]
    at_once = min(ROWS_AT_ONCE, len(places))
    for start in range(0, len(places), at_once):
        # The last part overlaps the one before: one compilation serves all.
        first = min(start, len(places) - at_once)
        part = slice(first, first + at_once)
        given = known[places[part]]
        found = _fill_some(
            keys[part], density, mixture, jnp.asarray(c[part]), jnp.asarray(given), draws
        )
        drawn = np.asarray(found.position, float)
        drawn = to_user_units(apart, drawn.reshape(-1, drawn.shape[-1])).reshape(drawn.shape)
        filled[places[part]] = np.where(given[:, None], filled[places[part]], drawn)
        rates[places[part]] = np.asarray(found.global_acceptance_rate)
    return Filled(filled, rates)


def fill_table(
    seed: int,
    schema: Schema,
    frozen: FrozenModel,
    bijection: AbstractBijection,
    rows: Float[np.ndarray, "n d"],
    draws: int,
) -> tuple[Float[np.ndarray, "n draws d"], Bool[np.ndarray, " n"]]:
    """`fill`, with what is drawn on the grids of the schema; and which rows cannot be relied on.

    Cells that are given come back as they are, and not spread over their grid.
    """
    spread = dequantise(np.random.default_rng(seed), rows, schema.quanta)
    filled = fill(jax.random.key(seed), frozen, bijection, spread, draws=draws)
    on_grid = on_grids(schema, filled.rows)
    whole = np.where(np.isnan(rows)[:, None], on_grid, rows[:, None])
    return whole, filled.global_acceptance_rate < LEAST_ACCEPTANCE


@eqx.filter_jit
def _fill_some(
    keys: Key[Array, " n"],
    density: _Apart,
    mixture: GaussianMixture,
    c: Float[Array, "n d"],
    known: Bool[Array, "n d"],
    draws: int,
) -> ConditionalDraws:
    def one(key: PRNGKeyArray, c: Float[Array, " d"], known: Bool[Array, " d"]) -> ConditionalDraws:
        return sample_given(
            key, density, mixture, c, known, draws=draws, sweeps=SWEEPS, local_steps=LOCAL_STEPS
        )

    return jax.vmap(one)(keys, c, known)


def _mixture_of(
    key: PRNGKeyArray, frozen: FrozenModel, matrix: Float[np.ndarray, "d d"]
) -> GaussianMixture:
    """A Gaussian mixture fitted to draws of the model, in the coordinates of the columns."""
    draws = MIXTURE_ROWS + MIXTURE_HELD_OUT
    batches = [draw_rows(each, frozen, 1024) for each in jax.random.split(key, draws // 1024)]
    z = np.concatenate([np.asarray(each, float) for each in batches])
    c = np.linalg.solve(matrix, z.T).T
    return best_mixture(
        c[:MIXTURE_ROWS], c[MIXTURE_ROWS:], seed=0, max_components=8, quick=True
    ).density
