"""Saved models: what is read is what was written, and damage is named in one line."""

import json
import struct

import equinox as eqx
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
    with pytest.raises(InputError, match=r"model\.safetensors: is not what"):
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


def test_types_are_checked_as_shapes_are():
    arrays = tree_arrays("model", mlp(0))
    for damaged in (arrays["model.0"].astype(int), arrays["model.0"].astype(complex)):
        with pytest.raises(InputError, match=r"run: array 'model\.0' holds .*, where float"):
            fill_tree("model", mlp(0), arrays | {"model.0": damaged}, "run")
    # Another precision is read, as ever.
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    assert (
        fill_tree("model", mlp(1), wide, "run")["energy"].network.layers[0].bias.dtype == "float32"
    )


def test_a_template_of_shapes_alone_is_filled():
    tree = mlp(0)["energy"]
    shapes = eqx.filter_eval_shape(lambda: tree)
    filled = fill_tree("model", shapes, tree_arrays("model", tree), "run")
    assert eqx.tree_equal(filled, tree)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    for name in ("a", "b"):
        write_model(tmp_path / name, {}, {"x.0": np.full(3, ord(name))})
    arrays = tmp_path / "a" / "model.safetensors"
    content = arrays.read_bytes()
    for damaged in (
        (tmp_path / "b" / "model.safetensors").read_bytes(),
        content[:-1] + bytes([content[-1] ^ 1]),
    ):
        arrays.write_bytes(damaged)
        with pytest.raises(
            InputError, match=f"^{arrays}: is not what config.json was written with"
        ):
            read_model(tmp_path / "a")
    # Models of before have no digest.
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    del config["arrays_sha256"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    read_model(tmp_path / "a")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[" * 100_000, "cannot be read"),
        (b'{"format_version": 3, "a": "\xff"}', "cannot be read"),
        ('{"format_version": true}', "format version True"),
        ('{"format_version": 2}', "format version 2, .* reads 3; formats before .*: fit the model"),
        ('{"format_version": 4}', "format version 4, .* reads 3; use the version that wrote it"),
        ('{"format_version": 3.0}', r"format version 3\.0"),
        ('{"format_version": "3"}', "format version '3'"),
        ('{"format_version": ' + "9" * 4000 + "}", "format version 9999"),
    ],
    ids=["deep", "bytes", "true", "before", "after", "float", "text", "vast"],
)
def test_odd_configurations_are_named(tmp_path, config, words):
    write_model(tmp_path, {}, {})
    path = tmp_path / "config.json"
    path.write_bytes(config if isinstance(config, bytes) else config.encode())
    with pytest.raises(InputError, match=f"^{path}: {words}") as caught:
        read_model(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        ({"dtype": "F32", "shape": [2**62], "data_offsets": [0, 8]}, None),
        ({"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}, None),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, None),
        ({"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}, 2**62),
        ({"dtype": "F64", "shape": [1], "data_offsets": [0, 2**40]}, None),
    ],
    ids=["vast", "bfloat16", "eight bits", "header", "offset"],
)
def test_headers_that_claim_what_is_not_there_are_named(tmp_path, entry, length):
    write_model(tmp_path, {}, {})
    (tmp_path / "config.json").write_text('{"format_version": 3}')
    header = json.dumps({"x.0": entry}).encode()
    content = struct.pack("<Q", length or len(header)) + header + bytes(8)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        fill_tree("x", [np.zeros(4)], read_model(tmp_path)[1], "x")
