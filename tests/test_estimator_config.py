"""Whatever entry of a configuration is damaged, it is named, and nothing is made of it."""

import json

import numpy as np
import pytest
from safetensors.numpy import load

from tiltflow.data.errors import InputError
from tiltflow.estimator_config import ENTRIES, OPTIONAL, check_config
from tiltflow.experiments.fuzz_inputs import model_files

SIZES = {"chains": 2, "energy_width": 4, "energy_depth": 1}


@pytest.fixture(scope="module")
def model():
    files = model_files()
    return json.loads(files["config.json"]), load(files["model.safetensors"])


def test_a_whole_one_passes_and_what_old_models_have_not_may_be_missing(model):
    config, arrays = model
    check_config(config, arrays, "run")
    check_config({name: it for name, it in config.items() if name not in OPTIONAL}, arrays, "run")
    # Figures that are none are written as NaN, and read.
    check_config(config | {"log_normalizer": float("nan")}, arrays, "run")


@pytest.mark.parametrize("name", sorted(set(ENTRIES) - set(OPTIONAL)))
def test_a_missing_entry_is_named(model, name):
    config, arrays = model
    with pytest.raises(InputError, match=f"^run: '{name}' is missing"):
        check_config({key: it for key, it in config.items() if key != name}, arrays, "run")


@pytest.mark.parametrize("name", sorted(ENTRIES))
@pytest.mark.parametrize("value", [10**400, [None], {"a": {}}, "\ud800", -0.5 + 0j], ids=ascii)
def test_an_entry_of_another_type_is_named(model, name, value):
    config, arrays = model
    if name == "parameters" and isinstance(value, dict):
        return  # what arguments may be is the estimator's to say
    with pytest.raises(InputError, match=f"^run: the configuration is damaged: '{name}' is") as it:
        check_config(config | {name: value}, arrays, "run")
    assert len(str(it.value)) < 300


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": ["a", "a"]}, "'columns'"),
        ({"columns": []}, "'columns'"),
        ({"columns": ["mass", "kind", "more"]}, r"'quanta' is float64 of shape \(2,\)"),
        ({"columns": ["mass", "type"]}, "levels of no column"),
        ({"levels": {"kind": []}}, "'levels'"),
        ({"verdict": {"status": "fine", "reasons": [], "figures": {}}}, "'verdict'"),
        ({"metrics": [{"step": {}}]}, "'metrics'"),
        ({"local_steps": True}, "'local_steps'"),
        ({"ladder": 1}, "'ladder'"),
        ({"preprocessing": "whitening"}, "'preprocessing'"),
        ({"proposal_components": 10**9}, "'proposal_components' asks for more than the arrays"),
        ({"base_components": 10**9}, "'base_components' asks for more than the arrays"),
        ({"earlier_energies": 10**9}, "'earlier_energies' asks for more than the arrays"),
        (
            {"sizes": SIZES | {"energy_width": 10**9}},
            "'energy_width' asks for more than the arrays",
        ),
        ({"sizes": SIZES | {"energy_depth": 10**9}}, "asks for more than the arrays"),
        ({"sizes": {"chains": 2}}, "the sizes are .*'energy_width': None.*, which are not counts"),
    ],
)
def test_what_does_not_fit_is_named(model, change, words):
    config, arrays = model
    with pytest.raises(InputError, match=f"^run: .*{words}"):
        check_config(config | change, arrays, "run")


@pytest.mark.parametrize("name", ["quanta", "origin", "rows", "step_size"])
@pytest.mark.parametrize("array", [None, np.zeros((0, 2)), np.zeros(7), np.array(["a", "b"])])
def test_arrays_that_are_none_are_named(model, name, array):
    config, arrays = model
    arrays = {key: it for key, it in arrays.items() if key != name}
    with pytest.raises(InputError, match=f"^run: array '{name}' is"):
        check_config(config, arrays if array is None else arrays | {name: array}, "run")
