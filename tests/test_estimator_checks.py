"""scikit-learn's own checks of an estimator.

They look at conventions: arguments, attributes, copies, the kinds of tables. Training is therefore
a stand-in here, a Gaussian; `pytest --real-training tests/test_estimator_checks.py` trains.
"""

import copy
import json
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tiltflow
from tiltflow import BalancedEBM, estimator_training
from tiltflow.data.errors import InputError
from tiltflow.evaluation.log_normalizer import LogNormalizer
from tiltflow.evaluation.verdict import Verdict
from tiltflow.models.energies import MLPEnergy
from tiltflow.models.gaussian_mixture import best_gaussian
from tiltflow.models.tilted import TiltedEBM
from tiltflow.training.bases import Start, proposal_for_rows
from tiltflow.training.density import Density
from tiltflow.training.guard import Runaway

SMALL = {"max_steps": 100, "chains": 32, "energy_width": 4, "energy_depth": 1, "local_steps": 1}
EXPECTED = {
    "check_do_not_raise_errors_in_init_or_set_params": (
        "types of arguments are checked at run time in these tests, and here alone"
    ),
    "check_sample_weight_equivalence_on_dense_data": (
        "training is random: a row of weight two and two rows meet other random numbers"
    ),
    "check_dtype_object": "a cell that is no number is an InputError, a ValueError, everywhere",
}


@pytest.fixture(autouse=True)
def training(request, monkeypatch):
    if request.config.getoption("--real-training"):
        return

    def choose_base(key, kind, x, held_out, **_):
        gaussian = best_gaussian(x, held_out)
        flow = proposal_for_rows(key, gaussian.density)
        return Start(gaussian.density, "gaussian", "one", flow, 0.0)

    def fit_density(key, start, x, held_out, *, width, depth, **_):
        energy = MLPEnergy(x.shape[1], width=width, depth=depth, key=key)
        energy = jax.tree.map(lambda leaf: 0 * leaf if eqx.is_inexact_array(leaf) else leaf, energy)
        zero = jnp.zeros(())
        return Density(
            TiltedEBM(start.base, energy),
            start.flow,
            jnp.ones(()),
            jnp.asarray(x),
            LogNormalizer(zero, zero, zero),
            0,
            [],
            None,
            0.0,
            (),
            1.0,
        )

    monkeypatch.setattr(estimator_training, "choose_base", choose_base)
    monkeypatch.setattr(estimator_training, "fit_density", fit_density)
    verdict = Verdict("trusted", (), {})
    monkeypatch.setattr(BalancedEBM, "_judge", lambda self: setattr(self, "verdict_", verdict))


@parametrize_with_checks(
    [BalancedEBM(base="gaussian", preprocessing="standardise", random_state=0, **SMALL)],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_conventions(estimator, check):
    check(estimator)


def test_a_training_that_ran_away_is_warned_of(monkeypatch):
    standin = estimator_training.fit_density
    runaway = Runaway("energy_gap", 300, 1e9)
    monkeypatch.setattr(
        estimator_training,
        "fit_density",
        lambda *a, **k: standin(*a, **k)._replace(stopped=runaway),
    )
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = BalancedEBM(base="gaussian", preprocessing="standardise", random_state=0, **SMALL)
    with pytest.warns(RuntimeWarning, match="ran away.*energy_gap was 1e\\+09 at step 300"):
        model.fit(X)
    assert model.stopped_ == str(runaway)


def test_a_search_finds_the_better_preprocessing_and_a_pipeline_scores():
    """Rows of a skewed law: bending the columns gains nats on every fold."""
    X = np.exp(np.random.default_rng(0).normal(size=(300, 2)))
    model = BalancedEBM(base="gaussian", random_state=0, **SMALL)
    search = GridSearchCV(model, {"preprocessing": ["standardise", "gaussianise"]}, cv=2).fit(X)
    assert search.best_params_ == {"preprocessing": "gaussianise"}
    assert search.best_score_ > search.cv_results_["mean_test_score"].min() + 0.1
    pipeline = make_pipeline(StandardScaler(), search.best_estimator_).fit(X)
    assert pipeline.score_samples(X).shape == (300,)
    assert set(pipeline.predict(X)) == {-1, 1}


NUMPYS = {
    "max_steps": np.int64(100),
    "chains": np.int32(32),
    "energy_width": np.int64(4),
    "energy_depth": np.int64(1),
    "local_steps": np.uint8(1),
    "learning_rate": np.float32(1e-3),
    "validation_fraction": np.float32(0.25),
    "contamination": np.float64(0.1),
    "base": np.str_("gaussian"),
    "preprocessing": np.str_("standardise"),
    "random_state": np.int64(0),
}


@pytest.mark.parametrize("names", [np.array(["a"]), pandas.Index(["a"]), ("a",), ["a"]], ids=type)
def test_arguments_of_numpy_are_saved_pickled_and_copied(tmp_path, names):
    """As searches over arrays set them."""
    generator = np.random.default_rng(0)
    X = pandas.DataFrame({"a": generator.integers(3, size=60), "b": generator.normal(size=60)})
    model = BalancedEBM().set_params(**NUMPYS, categorical_features=names).fit(X)
    scores = model.score_samples(X)
    model.save(tmp_path)
    parameters = json.loads((tmp_path / "config.json").read_text())["parameters"]
    assert parameters["categorical_features"] == ["a"] and parameters["chains"] == 32
    assert parameters["learning_rate"] == pytest.approx(1e-3)
    copies = tiltflow.load(tmp_path), copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for each in copies:
        np.testing.assert_array_equal(each.score_samples(X), scores)


@pytest.mark.parametrize("names", ["a", 3, np.array("a"), iter("ab")], ids=type)
def test_names_of_columns_are_a_list(names):
    model = BalancedEBM().set_params(categorical_features=names)
    with pytest.raises(ValueError, match=r"categorical_features: .*; give a list of names"):
        model.fit(np.random.default_rng(0).normal(size=(60, 2)))


@pytest.mark.parametrize("seed", [-1, 5_000_000_000, "1", 0.5])
def test_seeds_that_are_none_are_named(seed):
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(InputError, match=r"random_state: found .*; give a whole number from 0 to"):
        BalancedEBM(random_state=seed).fit(X)


def test_keys_that_are_no_seeds_are_named():
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = BalancedEBM(base="gaussian", preprocessing="standardise", random_state=0, **SMALL)
    model.fit(X)
    for draw in (model.sample, lambda key: model.impute(X, key=key), model.log_normalizer_bounds):
        with pytest.raises(InputError, match="key: found -1; give a whole number from 0 to"):
            draw(key=-1)


def test_the_choice_is_told_before_training_and_kept(monkeypatch, tmp_path):
    reports, standin = [], estimator_training.fit_density

    def fit_density(*arguments, **named):
        assert [report["stage"] for report in reports] == ["choice"]
        return standin(*arguments, **named)

    monkeypatch.setattr(estimator_training, "fit_density", fit_density)
    model = BalancedEBM(base="gaussian", preprocessing="standardise", random_state=0, **SMALL)
    model.fit(np.random.default_rng(0).normal(size=(60, 2)), on_report=reports.append)
    assert reports == [
        {
            "stage": "choice",
            "base": "gaussian: one",
            "preprocessing": "standardise",
            "chains": 32,
            "energy_width": 4,
            "energy_depth": 1,
            "local_steps": 1,
            "max_steps": 100,
        }
    ]
    model.save(tmp_path)
    assert tiltflow.load(tmp_path).max_steps_ == model.max_steps_ == 100
