"""Preprocessings by name: composed, serialisable, and chosen in the user's units."""

import equinox as eqx
import jax
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.preprocessing import columns_apart, to_model_units, to_user_units
from tiltflow.training import preprocess
from tiltflow.training.preprocess import (
    PREPROCESSINGS,
    choose_preprocessing,
    fit_steps,
    steps_template,
)


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    z = generator.normal(size=(400, 2))
    return np.stack([np.exp(z[:, 0]), 5.0 * z[:, 0] + z[:, 1]], axis=1)


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_round_trip_and_template(name, rows):
    bijection = fit_steps(name, rows)
    z, _ = to_model_units(bijection, rows)
    assert np.allclose(to_user_units(bijection, z), rows, rtol=1e-8)
    assert np.allclose(z.mean(axis=0), 0, atol=1e-8) and np.allclose(z.std(axis=0), 1, atol=1e-6)
    template = steps_template(name, 2)
    assert jax.tree.structure(template) == jax.tree.structure(bijection)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(eqx.filter(bijection, eqx.is_array_like))]
    assert shapes == [
        np.shape(leaf) for leaf in jax.tree.leaves(eqx.filter(template, eqx.is_array_like))
    ]


def test_whitening_after_bending_removes_the_correlation(rows):
    z, _ = to_model_units(fit_steps("gaussianise+whiten", rows), rows)
    assert abs(np.corrcoef(z.T)[0, 1]) < 1e-6


def test_with_few_rows_a_bend_must_win_clearly():
    """Normal rows, of which the twenty held out happen to prefer a bend, by 0.1 nats."""
    rows = np.random.default_rng(12).normal(size=(140, 3))
    columns = ["a", "b", "c"]
    chosen, _ = choose_preprocessing("auto", rows[:120], rows[120:], columns, seed=0)
    assert chosen == "standardise"


def _mostly_zero(places):
    """200 rows, of which three have another value than 0 in the first column."""
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[:, 0] = 0
    rows[list(places), 0] = 1.5, 2.5, 4.0
    return rows


SPARSE = [tuple(np.random.default_rng(seed).choice(200, 3, False)) for seed in range(3)]


# In one fold, whose absence leaves none; all held out; anywhere.
@pytest.mark.parametrize("places", [(0, 5, 10), (197, 198, 199), *SPARSE])
def test_a_column_with_few_other_values_is_never_refused(monkeypatch, places):
    monkeypatch.setattr(preprocess, "_flow_scores", lambda it, x, held_out, *_: np.zeros(30))
    rows = _mostly_zero(places)
    x, held_out = rows[:170], rows[170:]
    for name in ("auto", "standardise"):
        _, bijection = choose_preprocessing(name, x, held_out, ["a", "b"], seed=0)
        z, log_det = to_model_units(bijection, rows)
        assert np.isfinite(z).all() and np.isfinite(log_det).all()
    with pytest.raises(InputError, match="column 'a' has standard deviation 0"):
        choose_preprocessing("standardise", 0 * x, 0 * held_out, ["a", "b"], seed=0)


def test_where_no_split_can_judge_columns_are_standardised(monkeypatch):
    monkeypatch.setattr(preprocess, "_flow_scores", lambda it, x, held_out, *_: np.zeros(600))
    rows = _mostly_zero((197, 198, 199))
    many = np.tile(rows[170:], (20, 1))
    chosen, _ = choose_preprocessing("auto", rows[:170], many, ["a", "b"], seed=0)
    assert chosen == "standardise"


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_columns_apart_followed_by_the_matrix_is_the_whole(name):
    rng = np.random.default_rng(4)
    X = np.exp(rng.normal(size=(500, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])) + 1e4
    bijection = fit_steps(name, X)
    apart, matrix = columns_apart(bijection, 3)
    c, _ = to_model_units(apart, X)
    np.testing.assert_allclose(c @ matrix.T, to_model_units(bijection, X)[0], atol=1e-7)
    moved = X.copy()
    moved[:, 1] += 1.0
    c_moved, _ = to_model_units(apart, moved)
    np.testing.assert_array_equal(c_moved[:, [0, 2]], c[:, [0, 2]])
    assert (c_moved[:, 1] != c[:, 1]).all()
    np.testing.assert_allclose(to_user_units(apart, c), X, rtol=1e-9)
