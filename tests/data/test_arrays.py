"""Files of arrays: what a header claims is checked before it is believed, and no file refers on."""

import io
import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

import tiltflow.data.machine
from tiltflow.data.arrays import load_h5, load_npy, load_npz
from tiltflow.data.errors import InputError
from tiltflow.data.machine import Machine


def npy(body=b"", version=b"\1\0", **header):
    """An NPY file whose header claims what it is told to."""
    claimed = {"descr": "<f8", "fortran_order": False, "shape": (2,), **header}
    text = repr(claimed).encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


def packed(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", content)
    return stream.getvalue()


class Payload:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.makedirs, (str(self.place),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(bytes(16), shape=(2**40,)), "claims 8796093022208 bytes of shape"),
        (npy(bytes(15)), "claims 16 bytes .* 15 are there"),
        (npy(bytes(16), shape=(-1, -2)), "damaged"),
        (npy(bytes(16), descr="|O"), "pickled Python objects"),
        (npy(bytes(16), descr=[("a", "|O")], shape=(1,)), "pickled Python objects"),
        (npy(bytes(16), version=b"\3\0"), r"NPY version 3\.0"),
        (npy(b"\0\0\x11\0" * 2, descr="<U1"), "no Unicode"),
        (npy(b"\0\xd8\0\0" * 2, descr="<U1"), "no Unicode"),
    ],
    ids=["vast", "short", "negative", "objects", "field", "version", "beyond", "surrogate"],
)
def test_claims_are_checked_packed_or_not(tmp_path, content, words):
    path = tmp_path / "x"
    for load, whole in ((load_npy, content), (load_npz, packed(content))):
        path.write_bytes(whole)
        with pytest.raises(InputError, match=f"^{path}: .*{words}"):
            load(path)


def test_sound_files_are_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(npy(np.arange(2.0).tobytes()))
    np.testing.assert_array_equal(load_npy(path), [0, 1])
    np.savez(tmp_path / "x.npz", X=np.ones((2, 3)), columns=np.array(["é", "b", "𝒙"]))
    arrays = load_npz(tmp_path / "x.npz")
    assert arrays["X"].shape == (2, 3)
    assert arrays["columns"].tolist() == ["é", "b", "𝒙"]


def test_no_pickle_is_loaded(tmp_path):
    content = pickle.dumps(np.array([Payload(tmp_path / "canary")], dtype=object))
    for whole in (content, npy(content, descr="|O", shape=(1,)), packed(content)):
        (tmp_path / "x").write_bytes(whole)
        for load in (load_npy, load_npz, load_h5):
            with pytest.raises(InputError):
                load(tmp_path / "x")
    assert not (tmp_path / "canary").exists()


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    array = np.zeros((1000, 100))
    np.save(tmp_path / "x.npy", array)
    np.savez_compressed(tmp_path / "x.npz", X=array)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("X", data=array, compression="gzip")
    assert (tmp_path / "x.npz").stat().st_size < 5000
    files = ((load_npy, "x.npy"), (load_npz, "x.npz"), (load_h5, "x.h5"))
    monkeypatch.setattr(tiltflow.data.machine, "find_machine", lambda: Machine(10**9, 1_500_000))
    for load, name in files:
        with pytest.raises(InputError, match=rf"{name}: .* takes 0\.0 GB, and 0\.0 GB"):
            load(tmp_path / name)
    monkeypatch.setattr(tiltflow.data.machine, "find_machine", lambda: Machine(10**9, 1_700_000))
    for load, name in files:
        load(tmp_path / name)


def external_link(file):
    file["X"] = h5py.ExternalLink("other.h5", "/X")


def loop(file):
    file["X"] = h5py.SoftLink("/X")


def external_storage(file):
    file.create_dataset("X", (4,), np.uint8, external=[("other.h5", 0, 4)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), float)
    layout[:] = h5py.VirtualSource("other.h5", "X", (4,))
    file.create_virtual_dataset("X", layout)


def vast(file):
    file.create_dataset("X", (2**50,), float, chunks=(1024,))


def nothing(file):
    file["X"] = h5py.Empty("f")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (external_link, "'X' is a link to another place"),
        (loop, "'X' is a link to another place"),
        (external_storage, "the numbers of 'X' are in another file"),
        (virtual, "the numbers of 'X' are in another file"),
        (vast, "'X' claims 9007199254740992 bytes .*, and 0 are stored"),
        (nothing, "'X' is empty"),
    ],
)
def test_an_hdf5_file_is_read_by_itself(tmp_path, make, words):
    """The other file is there, and would be read."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = np.ones(4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        make(file)
    with pytest.raises(InputError, match=words):
        load_h5(tmp_path / "x.h5")
    assert load_h5(tmp_path / "other.h5")["X"].tolist() == [1, 1, 1, 1]
