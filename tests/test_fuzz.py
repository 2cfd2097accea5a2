"""Damaged inputs of every kind are read, or refused in a line that names them.

The damage is that of `tiltflow bench fuzz`, which gives ten thousand of them to a process of its
own; these few are read here, where a crash or a hang would be seen as such.
"""

import shutil
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltflow.experiments.bench_fuzz import try_to_read
from tiltflow.experiments.fuzz_inputs import KINDS, mangled, put, whole
from tiltflow.experiments.mangled_files import CANARY

VAST = {".csv.gz", ".npz", "images", "patches"}
"""Kinds with bombs among their damages, which are for a process with limits."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_input_is_read(tmp_path, kind):
    """Or what follows would show nothing."""
    put(tmp_path, whole(kind))
    assert try_to_read(kind, tmp_path) == ("read", "")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_inputs_are_read_or_refused(tmp_path, kind):
    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(number=st.integers(0, 2**31))
    def survives(number):
        files = mangled(kind, 1, number)
        if kind in VAST and sum(map(len, files.values())) > 1_000_000:
            return
        folder = tmp_path / str(number)
        put(folder, files)
        with warnings.catch_warnings():
            # Numbers that are damaged overflow; that is no matter of reading.
            warnings.simplefilter("ignore")
            outcome, said = try_to_read(kind, folder)
        shutil.rmtree(folder)
        assert outcome in ("read", "refused"), said
        assert not CANARY.exists()

    survives()
