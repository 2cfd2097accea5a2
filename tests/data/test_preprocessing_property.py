"""Fitted preprocessing of any table goes back, and its log-determinant is the Jacobian's."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltflow.data.preprocessing import to_model_units, to_user_units
from tiltflow.training.preprocess import PREPROCESSINGS, fit_steps

LAWS = {
    "normal": lambda generator, n: generator.normal(size=n),
    "skewed": lambda generator, n: np.exp(generator.normal(size=n)),
    "heavy": lambda generator, n: generator.standard_t(2, size=n),
    "two modes": lambda generator, n: generator.normal(5 * (generator.random(n) < 0.3), 0.1),
    "few values": lambda generator, n: generator.integers(0, 4, n) + 0.0,
}


@pytest.mark.parametrize("kind", PREPROCESSINGS)
def test_any_table_goes_back_and_the_determinant_is_right(kind):
    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        laws=st.tuples(*[st.sampled_from(sorted(LAWS))] * 2),
        scales=st.tuples(*[st.sampled_from([1e-9, 1e-3, 1.0, 1e6])] * 2),
        shifts=st.tuples(*[st.sampled_from([0.0, -3.0, 1e3])] * 2),
    )
    def holds(seed, laws, scales, shifts):
        generator = np.random.default_rng(seed)
        X = np.column_stack([LAWS[law](generator, 60) for law in laws])
        X = (X + shifts) * scales
        bijection = fit_steps(kind, X, ["a", "b"])
        Z, log_det = to_model_units(bijection, X)
        np.testing.assert_allclose(to_user_units(bijection, Z), X, rtol=1e-7, atol=1e-7 * X.std())
        with jax.enable_x64(True):
            jacobian = jax.jacfwd(bijection.transform)(jax.numpy.asarray(X[0]))
            exact = np.linalg.slogdet(np.asarray(jacobian))[1]
        np.testing.assert_allclose(log_det[0], exact, rtol=1e-6, atol=1e-6)

    holds()
