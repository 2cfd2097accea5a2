"""scikit-learn's own checks of an estimator.

They look at conventions: arguments, attributes, copies, the kinds of tables. Training is therefore
a stand-in here, a Gaussian; `pytest --real-training tests/test_estimator_checks.py` trains.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tiltflow import BalancedEBM, estimator
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

    monkeypatch.setattr(estimator, "choose_base", choose_base)
    monkeypatch.setattr(estimator, "fit_density", fit_density)
    verdict = Verdict("trusted", (), {})
    monkeypatch.setattr(BalancedEBM, "_judge", lambda self: setattr(self, "verdict_", verdict))


@parametrize_with_checks(
    [BalancedEBM(base="gaussian", preprocessing="standardise", random_state=0, **SMALL)],
    expected_failed_checks=lambda _: EXPECTED,
)
def test_conventions(estimator, check):
    check(estimator)


def test_a_training_that_ran_away_is_warned_of(monkeypatch):
    standin = estimator.fit_density
    runaway = Runaway("energy_gap", 300, 1e9)
    monkeypatch.setattr(
        estimator, "fit_density", lambda *a, **k: standin(*a, **k)._replace(stopped=runaway)
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
