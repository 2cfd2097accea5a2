"""Saved flows of their own: an architecture in JSON and the arrays, in the format of `files.py`.

An `Architecture` names a function that makes the flow and the arguments that it was made with. To
save is to check that it makes the very tree that is to be saved; to load is to fill the arrays in.
All stand on a standard normal. Nothing is unpickled, and no name is looked up but those of `KINDS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from flowjax.distributions import AbstractDistribution, StandardNormal
from jaxtyping import PRNGKeyArray, PyTree

from tiltflow.data.errors import InputError, reason
from tiltflow.models.continuous import continuous_flow
from tiltflow.models.energy_flow_architectures import (
    convolutional_energy_flow,
    coupled_energy_flow,
    fully_connected_energy_flow,
)
from tiltflow.models.files import CONFIG_NAME, fill_tree, read_model, tree_arrays, write_model
from tiltflow.models.integration import Integration


def _continuous(
    key: PRNGKeyArray,
    dimension: int,
    *,
    integration: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AbstractDistribution:
    """A continuous flow, the fields of its `Integration` as a mapping."""
    how = Integration(**integration) if integration is not None else None
    return continuous_flow(key, StandardNormal((dimension,)), integration=how, **settings)


LAYERS = ("blocks", "depth", "flows", "stages")
"""Settings that count layers, each of which has an array of its own."""
KINDS: dict[str, Callable[..., AbstractDistribution]] = {
    "coupled energy flow": coupled_energy_flow,
    "fully connected energy flow": fully_connected_energy_flow,
    "convolutional energy flow": convolutional_energy_flow,
    "continuous flow": _continuous,
}


@dataclass(frozen=True)
class Architecture:
    """One of `KINDS` and its arguments by name, of which JSON must have a form.

    Those of "continuous flow" are `dimension`, those of `continuous_flow`, and as `integration` the
    fields of an `Integration`.
    """

    kind: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Raise `InputError` for an unknown kind."""
        if self.kind not in KINDS:
            raise InputError(f"kind: '{self.kind}' is not known; use one of {', '.join(KINDS)}")

    def make(self, key: PRNGKeyArray) -> AbstractDistribution:
        """A new flow; raises what the function raises."""
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.settings.items()
        }
        return KINDS[self.kind](key, **settings)


def save_flow(folder: Path, architecture: Architecture, flow: AbstractDistribution) -> None:
    """Write a flow that `architecture` has made, whatever training has done to its arrays.

    Raises:
        InputError: it has not made this flow, or not on this kind of base.
    """
    template = eqx.filter_eval_shape(architecture.make, jax.random.key(0))
    if not eqx.tree_equal(_shapes(flow), template):
        raise InputError(
            f"flow: is not what {architecture.kind} of {dict(architecture.settings)} makes; "
            "layers, shapes, precision, base or fixed noise differ: give what it was made with"
        )
    config = {"flow": architecture.kind, "settings": dict(architecture.settings)}
    write_model(folder, config, tree_arrays("flow", flow))


def load_flow(folder: Path) -> tuple[AbstractDistribution, Architecture]:
    """The flow in today's precision, and how it was made.

    Raises:
        InputError: the folder holds no flow, or it is damaged, or of another format version.
    """
    config, arrays = read_model(folder)
    source = str(folder / CONFIG_NAME)
    if "flow" not in config or not isinstance(config.get("settings"), dict):
        raise InputError(f"{source}: describes no flow; what fit has made is read by tiltflow.load")
    _check_sizes(config["settings"], arrays, source)
    try:
        architecture = Architecture(config["flow"], config["settings"])
        template = eqx.filter_eval_shape(architecture.make, jax.random.key(0))
    # Of settings that are none of its own, a function may raise anything.
    except Exception as error:
        raise InputError(
            f"{source}: the architecture is damaged ({reason(error)}); save the flow anew"
        ) from None
    return fill_tree("flow", template, arrays, str(folder)), architecture


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf,
        tree,
    )


def _check_sizes(settings: dict[str, Any], arrays: dict[str, np.ndarray], source: str) -> None:
    """Refuse numbers that the stored arrays cannot be of, before a flow of that size is traced."""
    most_layers, most = len(arrays), sum(array.size for array in arrays.values())
    for name, value in settings.items():
        allowed = most_layers if name in LAYERS else most
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not -allowed <= number <= allowed:
                raise InputError(
                    f"{source}: {name} is {number!r:.40}, which is more than the arrays can be "
                    "of; the two files do not belong together"
                )
