"""FFJORD on images: a small run, what is run without files, and solves that fail afterwards."""

import jax
import numpy as np
import pytest
from flowjax.bijections import Identity
from flowjax.distributions import StandardNormal, Transformed

from tiltflow.data.errors import InputError
from tiltflow.experiments import ffjord_images, grey_images
from tiltflow.experiments.cells import read_cells
from tiltflow.experiments.ffjord_images import (
    DIGITS,
    QUICK,
    WHOLE,
    Settings,
    load_images,
    log_prob_of_images,
    reproduce_ffjord_images,
)
from tiltflow.experiments.grey_images import load_digits

SMALL = Settings(200, 50, 100, steps=4, chunk=2, channels=(2,), tolerance=1e-2)


def run(out, capsys):
    reproduce_ffjord_images(seeds=1, seed=0, quiet=True, out=out, quick=True)
    return capsys.readouterr().out


def test_a_small_run_is_kept(tmp_path, image_folder, monkeypatch, capsys):
    """Uniform bytes have eight bits a pixel, and a logit on a normal not much more."""
    monkeypatch.setattr(ffjord_images, "QUICK", {"mnist": SMALL})
    out = tmp_path / "out"
    out.mkdir()
    printed = run(out, capsys)
    assert "guessed: 1" in printed and "no step was skipped, every density is finite" in printed
    (cell,) = read_cells(out)
    figures = cell["figures"]
    assert 8 <= figures["bits_per_dimension"] <= figures["start_bits"] + 0.02 < 9
    # Three fields, two steps of six calls and the first, at the least.
    assert figures["calls"] >= 3 * 13 and figures["calls_training"] >= 3 * 13
    assert figures["seconds"] > 0
    again = run(out, capsys)
    assert "all of them kept" in again
    assert again.splitlines()[1:] == printed.splitlines()[1:]


def test_without_files_it_is_the_digits(tmp_path, monkeypatch, capsys):
    figures = dict.fromkeys((name for _, name, _ in ffjord_images.COLUMNS), 1.0)
    asked = []

    def judge(settings, images, *, seed):
        asked.append((settings, images.shape, images.levels))
        return figures | {"skipped": 3, "failed_rows": 100}

    monkeypatch.setattr(grey_images, "FOLDER", tmp_path / "nowhere")
    monkeypatch.setattr(ffjord_images, "train_and_judge", judge)
    printed = run(tmp_path, capsys)
    assert asked == [(QUICK[DIGITS], (8, 8), 17)]
    assert "digits, multiscale, channels (16, 16), seed 0: 3 steps were not finite" in printed
    assert "100 rows have no finite density" in printed


def test_digits_are_split_and_spread():
    images = load_digits(30, 20, 10, seed=0)
    assert [len(part) for part in images[:3]] == [30, 20, 10]
    rows = np.concatenate(images[:3])
    assert -0.5 <= rows.min() < 0 and 15 < rows.max() <= 16.5
    assert len(np.unique(rows)) == rows.size
    other = load_digits(30, 20, 10, seed=1)
    assert not np.array_equal(images.train.round(), other.train.round())
    with pytest.raises(InputError, match="there are 1797 for 2020"):
        load_digits(2000, 10, 10, seed=0)


def test_there_are_as_many_images_as_every_run_asks_for():
    for known in (QUICK, WHOLE):
        images = load_images(DIGITS, known[DIGITS], seed=0)
        assert len(images.test) == known[DIGITS].test
    mnist = WHOLE["mnist"]
    assert mnist.rows + mnist.held_out <= 60_000 and mnist.test <= 10_000


def test_a_part_whose_solve_fails_is_not_a_number(monkeypatch):
    """Parts of one size, the last filled up; its filling is not among the rows."""
    monkeypatch.setattr(ffjord_images, "ROWS_AT_ONCE", 4)
    shapes = []

    def evaluate(flow, x, key):
        shapes.append(x.shape)
        failed = len(shapes) == 2
        value = np.full(4, np.nan) if failed else np.asarray(x[:, 0])
        return ffjord_images.BatchLikelihood(value, None, None, 39, not failed, [])

    monkeypatch.setattr(ffjord_images, "_evaluate", evaluate)
    x = np.arange(20.0).reshape(10, 2)
    flow = Transformed(StandardNormal((2,)), Identity((2,)))
    log_prob, calls = log_prob_of_images(flow, x, jax.random.key(0))
    assert shapes == [(4, 2)] * 3 and calls == 39
    np.testing.assert_array_equal(log_prob, [0, 2, 4, 6, *[np.nan] * 4, 16, 18])
