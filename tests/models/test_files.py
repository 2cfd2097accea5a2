"""Saved models: what is read is what was written, and damage is named in one line."""

import jax
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.files import fill_tree, read_model, tree_arrays, write_model


def mlp(seed, width=4):
    energy = MLPEnergy(2, width=width, depth=1, key=jax.random.key(seed))
    return {"energy": energy, "mean": np.array([0.1, 1 + 1e-12])}


def test_round_trip_is_exact_and_keeps_precision(tmp_path):
    tree = mlp(0)
    write_model(tmp_path / "run", {"width": 4}, tree_arrays("model", tree))
    config, arrays = read_model(tmp_path / "run")
    filled = fill_tree("model", mlp(1), arrays, "run")
    assert config["width"] == 4
    assert type(filled["mean"]) is np.ndarray
    np.testing.assert_array_equal(filled["mean"], tree["mean"])
    for layer, stored in zip(filled["energy"].network.layers, tree["energy"].network.layers):
        np.testing.assert_array_equal(layer.weight, stored.weight)
        assert layer.weight.dtype == stored.weight.dtype
    assert np.abs(tree["energy"].network.layers[0].weight).max() > 0


def test_writing_replaces_its_own_files_and_no_others(tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    write_model(tmp_path, {"a": 1}, {"x.0": np.zeros(2)})
    write_model(tmp_path, {"a": 2}, {"x.0": np.ones(2)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]
    config, arrays = read_model(tmp_path)
    assert config["a"] == 2
    np.testing.assert_array_equal(arrays["x.0"], np.ones(2))


def test_arrays_that_do_not_fit_are_named():
    arrays = tree_arrays("model", mlp(0))
    with pytest.raises(InputError, match=r"run: array 'model\.0' has shape \(4, 2\).*\(8, 2\)"):
        fill_tree("model", mlp(0, width=8), arrays, "run")
    del arrays["model.1"]
    with pytest.raises(InputError, match=r"run: array 'model\.1' is missing"):
        fill_tree("model", mlp(0), arrays, "run")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"config\.json is not there"):
        read_model(tmp_path / "nowhere")
    write_model(tmp_path, {}, {"x.0": np.zeros(3)})
    config, arrays = tmp_path / "config.json", tmp_path / "model.safetensors"
    text, content = config.read_text(), arrays.read_bytes()

    arrays.write_bytes(content[:-5])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        read_model(tmp_path)
    arrays.write_bytes(content)

    for damaged, found in [
        (text[:-3], "cannot be read"),
        (text.replace('"format_version": 3', '"format_version": 99'), "format version 99"),
        ("[1, 2]", "format version 'list'"),
    ]:
        config.write_text(damaged)
        with pytest.raises(InputError, match=found):
            read_model(tmp_path)
    arrays.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is not there"):
        read_model(tmp_path)
