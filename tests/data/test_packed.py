"""Packed files: one that would not fit into memory is refused before it is taken there."""

import gzip

import pytest

import tiltflow.data.machine
import tiltflow.data.packed
from tiltflow.data.errors import InputError
from tiltflow.data.machine import Machine
from tiltflow.data.packed import check_unpacked, unpack
from tiltflow.data.tables import read_columns


@pytest.fixture
def free(monkeypatch):
    """Say how many bytes are free."""

    def set_free(size):
        for module in (tiltflow.data.machine, tiltflow.data.packed):
            monkeypatch.setattr(module, "find_machine", lambda: Machine(10**12, size))

    return set_free


def test_a_bomb_is_refused_and_what_fits_is_unpacked(tmp_path, free):
    path = tmp_path / "x.csv.gz"
    # Members may follow each other, and the length at the end is that of the last one.
    path.write_bytes(gzip.compress(bytes(3_000_000)) * 3)
    free(8_000_000)
    for read in (check_unpacked, unpack, read_columns):
        with pytest.raises(InputError, match=rf"^{path}: what is packed in it.* takes"):
            read(path)
    free(9_000_000)
    check_unpacked(path)
    assert unpack(path) == bytes(9_000_000)


def test_damage_is_named(tmp_path, free):
    path = tmp_path / "x.gz"
    packed = gzip.compress(bytes(range(256)) * 1000)
    for available in (1000, 10**9):
        free(available)
        for content in (
            packed[:-9],
            packed[:200],
            b"\x1f\x8b" + bytes(100),
            packed[:-6] + bytes(6),
        ):
            path.write_bytes(content)
            with pytest.raises(InputError, match=f"^{path}: "):
                unpack(path)
