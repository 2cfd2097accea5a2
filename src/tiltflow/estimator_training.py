"""From the rows of a fit to its trained density: what is chosen, in which order, and the training.

Preprocessing, base, sizes and schedule are chosen before the energy is trained; what was chosen is
reported then, for those who look on.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from flowjax.bijections import AbstractBijection

from tiltflow.data.preprocessing import to_model_units
from tiltflow.fit_rows import FitRows, stretch_in_model_units
from tiltflow.loading import sizes_of
from tiltflow.training.balanced import Balanced
from tiltflow.training.bases import choose_base
from tiltflow.training.checkpoints import Checkpoints, stage_of
from tiltflow.training.density import Density, default_local_steps, default_schedule, fit_density
from tiltflow.training.preprocess import choose_preprocessing
from tiltflow.training.sizes import choose_sizes


class Choice(NamedTuple):
    """What was chosen; the estimator has the same names with an underscore behind."""

    base: str
    preprocessing: str
    chains: int
    energy_width: int
    energy_depth: int
    local_steps: int
    max_steps: int


class Trained(NamedTuple):
    """The choice, the bijection of its preprocessing, and the density in model units."""

    choice: Choice
    bijection: AbstractBijection
    density: Density


def train(
    rows: FitRows,
    arguments: dict[str, Any],
    seed: int,
    on_report: Callable[[dict[str, Any]], None] | None,
    checkpoints: Checkpoints | None,
) -> Trained:
    """Choose by the held-out rows, then train; `arguments` are the estimator's, checked.

    Raises `TrainingFailed` where training ran away from its first state, again and again.
    """
    base_key, train_key = jax.random.split(jax.random.key(seed))
    preprocessing, bijection = choose_preprocessing(
        arguments["preprocessing"],
        rows.training,
        rows.held_out,
        list(rows.schema.columns),
        seed=seed % 2**31,
        stage=stage_of(checkpoints, "preprocessing"),
    )
    x, _ = to_model_units(bijection, rows.training)
    x_held_out, _ = to_model_units(bijection, rows.held_out)
    start = choose_base(
        base_key,
        arguments["base"],
        x,
        x_held_out,
        seed=seed % 2**31,
        on_report=on_report,
        stage=stage_of(checkpoints, "base"),
    )
    schedule = default_schedule(start.kind)
    if arguments["max_steps"] is not None:
        schedule = replace(schedule, steps=arguments["max_steps"])
    if arguments["learning_rate"] is not None:
        schedule = replace(schedule, learning_rate=arguments["learning_rate"])
    local_steps = arguments["local_steps"] or default_local_steps(start.kind)
    sizes = choose_sizes(rows.rows, **sizes_of(arguments))
    base = f"{start.kind}: {start.description}"
    choice = Choice(base, preprocessing, *sizes, local_steps, schedule.steps)
    if on_report:
        on_report({"stage": "choice", **choice._asdict()})
    density = fit_density(
        train_key,
        start,
        x,
        x_held_out,
        source=Balanced(chains=sizes.chains, local_steps=local_steps),
        schedule=schedule,
        width=sizes.energy_width,
        depth=sizes.energy_depth,
        stretch=stretch_in_model_units(rows, bijection),
        on_report=on_report,
        checkpoints=checkpoints,
    )
    return Trained(choice, bijection, density)
