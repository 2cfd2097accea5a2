"""What a panic prints is held back, and nothing else."""

import os

import pytest

from tiltflow.data.panics import panics_are_not_printed


def test_only_panics_are_silent(capfd):
    with panics_are_not_printed():
        os.write(2, b"a note\n")
    assert capfd.readouterr().err == "a note\n"
    with pytest.raises(ValueError), panics_are_not_printed():
        os.write(2, b"another\n")
        raise ValueError
    assert capfd.readouterr().err == "another\n"
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(panic), panics_are_not_printed():
        os.write(2, b"thread panicked at\n")
        raise panic
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
