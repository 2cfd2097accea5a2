"""Saved flows: what is read has the density of what was written, and what does not fit is named."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.continuous import with_fixed_noise
from tiltflow.models.files import write_model
from tiltflow.models.flow_files import Architecture, load_flow, save_flow

ARCHITECTURES = {
    "coupled": Architecture(
        "coupled energy flow", {"dimension": 3, "blocks": 1, "width": 4, "linear": "lu"}
    ),
    "connected": Architecture("fully connected energy flow", {"dimension": 3}),
    "convolutional": Architecture(
        "convolutional energy flow", {"image": (4, 4, 1), "stages": 2, "size": 3}
    ),
    "continuous": Architecture(
        "continuous flow",
        {
            "dimension": 3,
            "widths": (8,),
            "batch_norm": True,
            "integration": {"steps": 4, "solver": "dopri5"},
        },
    ),
}
KEY = jax.random.key(3)


def trained(architecture):
    """A new flow with all of its parameters a little off."""
    flow = architecture.make(KEY)
    return jax.tree.map(
        lambda leaf: (
            leaf + 0.01 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)
            if eqx.is_inexact_array(leaf)
            else leaf
        ),
        flow,
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_read_is_what_was_written(name, tmp_path):
    architecture = ARCHITECTURES[name]
    flow = trained(architecture)
    save_flow(tmp_path, architecture, flow)
    again, made = load_flow(tmp_path)
    assert eqx.tree_equal(again, flow)
    assert made.kind == architecture.kind
    # What was read can be saved in turn: lists of JSON are the tuples they were.
    save_flow(tmp_path / "copy", made, again)
    x = 0.3 * jnp.ones(flow.shape)
    assert float(again.log_prob(x)) == float(flow.log_prob(x))
    assert float(flow.log_prob(x)) != float(architecture.make(KEY).log_prob(x))


def test_a_flow_of_another_architecture_is_refused_and_nothing_written(tmp_path):
    flow = ARCHITECTURES["connected"].make(KEY)
    for settings in ({"dimension": 4}, {"dimension": 3, "depth": 3}):
        other = Architecture("fully connected energy flow", settings)
        with pytest.raises(InputError, match=r"flow: is not what fully connected energy flow of"):
            save_flow(tmp_path / "run", other, flow)
    continuous = ARCHITECTURES["continuous"]
    noisy = with_fixed_noise(continuous.make(KEY), KEY, "gaussian")
    with pytest.raises(InputError, match="fixed noise"):
        save_flow(tmp_path / "run", continuous, noisy)
    assert not (tmp_path / "run").exists()


def test_damage_is_named(tmp_path):
    architecture = ARCHITECTURES["connected"]
    save_flow(tmp_path, architecture, architecture.make(KEY))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for change, words in (
        (
            {"flow": "os.system"},
            "config.json: the architecture is damaged .kind: 'os.system' is not known",
        ),
        ({"settings": {"dimension": 3, "colour": 1}}, "the architecture is damaged.*colour"),
        ({"settings": {"dimension": 5}}, r"array 'flow\.0' has shape \(3, 3\)"),
        ({"settings": {"dimension": 3, "depth": 3}}, r"array 'flow\.4' is missing"),
        ({"settings": None}, "describes no flow"),
        ({"settings": {"dimension": 2**62}}, "dimension is 4611686018427387904, which is more"),
        ({"settings": {"dimension": 3, "depth": 10**9}}, "depth is 1000000000, which is more"),
        ({"settings": {"dimension": [3]}}, "config.json: the architecture is damaged"),
        ({"flow": ["x"]}, "config.json: the architecture is damaged"),
        ({"flow": "continuous flow", "settings": {"dimension": 3, "integration": 5}}, "damaged"),
        (
            {
                "flow": "continuous flow",
                "settings": {"dimension": 3, "integration": {"solver": "euler"}},
            },
            "config.json: the architecture is damaged",
        ),
        ({"format_version": 0}, "format version 0"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=words):
            load_flow(tmp_path)
    write_model(tmp_path, {"base": "flow"}, {"x": np.zeros(1)})
    with pytest.raises(InputError, match=r"describes no flow.*tiltflow\.load"):
        load_flow(tmp_path)
