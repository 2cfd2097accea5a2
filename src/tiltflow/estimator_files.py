"""What a fitted `BalancedEBM` is on disk: settings and figures in JSON, all arrays beside them."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tiltflow.data.column_types import read_type
from tiltflow.data.matching import are_counted
from tiltflow.data.schema import Schema
from tiltflow.estimator_arguments import plain_arguments
from tiltflow.estimator_config import FIGURES, check_config, stored_sizes
from tiltflow.evaluation.verdict import read_verdict
from tiltflow.extreme_rows import extreme_arrays, read_extremes
from tiltflow.frozen import FrozenModel
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.files import fill_tree, tree_arrays
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.bases import densities_template, describe_densities
from tiltflow.training.preprocess import steps_template
from tiltflow.training.sizes import Sizes


def describe(estimator: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The configuration and the arrays of a fitted estimator."""
    frozen: FrozenModel = estimator._frozen
    base, flow, verdict = frozen.model.base, frozen.flow, estimator.verdict_
    config = {
        "parameters": {**plain_arguments(estimator), "random_state": None},
        "columns": list(estimator.schema_.columns),
        "named": estimator.schema_.named,
        "levels": {name: list(levels) for name, levels in estimator.schema_.levels.items()},
        "types": {name: each._asdict() for name, each in estimator.schema_.types.items()},
        "base": estimator.base_,
        **describe_densities(base, flow),
        "preprocessing": estimator.preprocessing_,
        "local_steps": estimator.local_steps_,
        "sizes": {name: getattr(estimator, f"{name}_") for name in Sizes._fields},
        "independent_rows": estimator.independent_rows_,
        "max_steps": estimator.max_steps_,
        "best_step": estimator.n_iter_,
        "earlier_energies": len(frozen.earlier),
        "ladder": frozen.climbs,
        "stopped": estimator.stopped_,
        "versions": estimator.versions_,
        "verdict": {**verdict._asdict(), "reasons": list(verdict.reasons)},
        **{name: getattr(estimator, f"{name}_") for name in FIGURES},
        "offset": estimator.offset_,
        "metrics": estimator.metrics_,
    }
    arrays = {
        "quanta": estimator.schema_.quanta,
        "origin": estimator.schema_.origin,
        "rows": estimator._kept_rows,
        "step_size": np.asarray(frozen.step_size),
        **extreme_arrays(estimator._extremes),
    }
    modules = {
        "preprocessing": estimator._bijection,
        "base": base,
        "energy": frozen.model.energy,
        "flow": flow,
        **{f"earlier_{i}": energy for i, energy in enumerate(frozen.earlier)},
    }
    for name, tree in modules.items():
        arrays |= tree_arrays(name, tree)
    return config, arrays


def restore(
    estimator: Any, config: dict[str, Any], arrays: dict[str, np.ndarray], source: str
) -> None:
    """Make `estimator`, with the stored parameters, the fitted one that was described.

    Raises:
        InputError: something is missing or damaged; `source` names where.
    """
    check_config(config, arrays, source)
    columns, dimension = config["columns"], len(config["columns"])
    estimator.base_ = config["base"]
    estimator.preprocessing_ = config["preprocessing"]
    estimator.local_steps_ = config["local_steps"]
    independent = config.get("independent_rows")
    estimator.independent_rows_ = None if independent is None else float(independent)
    estimator.max_steps_ = config.get("max_steps")
    estimator.n_iter_ = config["best_step"]
    estimator.stopped_ = config["stopped"]
    estimator.versions_ = dict(config.get("versions", {}))
    estimator.verdict_ = read_verdict(config["verdict"])
    estimator.metrics_ = config["metrics"]
    for name in FIGURES:
        setattr(estimator, f"{name}_", float(config[name]))
    base, flow = densities_template(config, dimension)
    sizes = Sizes(**stored_sizes(config))
    for name, size in sizes._asdict().items():
        setattr(estimator, f"{name}_", size)
    make_energy = partial(MLPEnergy, dimension, width=sizes.energy_width, depth=sizes.energy_depth)
    energy = eqx.filter_eval_shape(make_energy, key=jax.random.key(0))
    bijection = steps_template(estimator.preprocessing_, dimension)
    # Models written before there were categories, or types of columns, have none.
    levels = {name: tuple(each) for name, each in config.get("levels", {}).items()}
    types = {name: read_type(each) for name, each in config.get("types", {}).items()}
    # The oldest do not say either whether the names were given: those of an array are like these.
    named = config.get("named", not are_counted(columns))
    grids = arrays["quanta"], arrays["origin"]
    estimator.schema_ = Schema(tuple(columns), levels, *grids, types, named)
    estimator._set_columns()
    estimator._kept_rows = arrays["rows"]
    estimator._extremes = read_extremes(arrays, dimension, source)

    def fill(name: str, tree: Any) -> Any:
        return fill_tree(name, tree, arrays, source)

    estimator._bijection = fill("preprocessing", bijection)
    estimator._frozen = FrozenModel(
        TiltedEBM(fill("base", base), fill("energy", energy)),
        fill("flow", flow),
        jnp.asarray(arrays["step_size"]),
        estimator.local_steps_,
        tuple(fill(f"earlier_{i}", energy) for i in range(config["earlier_energies"])),
        config["ladder"],
    )
    if "offset" in config:
        estimator.offset_ = float(config["offset"])
    else:
        estimator.set_offset()
