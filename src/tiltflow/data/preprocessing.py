"""Preprocessing of tables as bijections of one row: user's units to model units, and back.

`bijection.transform_and_log_det(x_user)` gives z_model and log|dz/dx|, so that

    log p_user(x) = log p_model(z) + log|dz/dx|.

A column such as 1e6 ± 1 has no digits left in float32. The parameters are therefore NumPy float64
arrays, and `to_model_units` and `to_user_units` work in float64 on the host; only what they return
is cut to the model's precision.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection, Affine, Chain, Invert, TriangularAffine
from jaxtyping import Array, Float

from tiltflow.data.errors import InputError
from tiltflow.data.sinh_arcsinh import SinhArcsinh
from tiltflow.data.sinh_arcsinh_fit import (
    SinhArcsinhParameters,
    fit_sinh_arcsinh,
    gaussian_parameters,
    log_likelihood,
)

Kind = Literal["standardise", "whiten", "gaussianise"]

# Held-out gain over a plain Gaussian, in nats per row, below which a column stays affine.
LEAST_GAIN = 0.01
# Smallest eigenvalue of a correlation matrix that whitening accepts: below it a column is a linear
# combination of others to within 1e-5 of its standard deviation, which is how tables are rounded.
LEAST_EIGENVALUE = 1e-10
# Rows that go through a bijection at once.
CHUNK = 65_536
FAR = 1e9
"""Standard deviations from the mean beyond which float32 may have no number for a density."""


def fit_preprocessing(
    X: Float[np.ndarray, "n d"], kind: Kind, columns: Sequence[str] | None = None
) -> AbstractBijection:
    """The bijection from user's units to columns of mean 0 and standard deviation 1.

    `"standardise"` is affine per column. `"whiten"` also removes the correlations, by the inverse
    Cholesky factor of the covariance; near singular tables are whitened as they are, exactly
    singular ones refused, for they have no density. `"gaussianise"` passes every column through
    the sinh-arcsinh map (Jones and Pewsey 2009) of largest likelihood where that beats a plain
    Gaussian by `LEAST_GAIN` nats on a held-out fifth of the rows, then standardises.

    Args:
        X: (n, d), finite, as `check_table` returns it; the training rows only.
        kind: which of the three.
        columns: d names for the messages; x0, x1, ... if None.

    Raises:
        InputError: a constant column; for `"whiten"`, columns that are linearly dependent.
    """
    names = [f"x{j}" for j in range(X.shape[1])] if columns is None else list(columns)
    mean, scale = _moments(X, names)
    match kind:
        case "standardise":
            return _standardisation(mean, scale)
        case "whiten":
            return _whitening(
                mean, scale[:, None] * _correlation_cholesky((X - mean) / scale, names)
            )
        case "gaussianise":
            return _fit_gaussianisation(X, names)


def preprocessing_template(kind: Kind, dimension: int) -> AbstractBijection:
    """The identity of the same tree structure as a fitted one, to be filled with stored arrays."""
    zeros, ones = np.zeros(dimension), np.ones(dimension)
    match kind:
        case "standardise":
            return _standardisation(zeros, ones)
        case "whiten":
            return _whitening(zeros, np.eye(dimension))
        case "gaussianise":
            bend = SinhArcsinh(zeros, ones, ones, zeros)
            return Chain([bend, _standardisation(zeros, ones)])


def to_model_units(
    bijection: AbstractBijection, X: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """Rows in model units and the log|dz/dx| of each, in float64."""
    Z, log_det = _in_float64(_transform_rows, bijection, X)
    return Z, log_det


def to_user_units(
    bijection: AbstractBijection, Z: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "n d"]:
    """Rows in the user's units, in float64."""
    return _in_float64(_invert_rows, bijection, Z)[0]


def columns_apart(
    bijection: AbstractBijection, dimension: int
) -> tuple[AbstractBijection, Float[np.ndarray, "d d"]]:
    """The part that takes each column by itself, c = f(x), and the matrix T of z = T c.

    T is the identity where nothing was whitened; only c tells which coordinates belong to cells
    that are missing. log|det T| is constant.
    """
    steps = bijection.bijections if isinstance(bijection, Chain) else (bijection,)
    *first, last = steps
    if not (isinstance(last, Invert) and isinstance(last.bijection, TriangularAffine)):
        return bijection, np.eye(dimension)
    loc = np.asarray(last.bijection.loc, float)
    triangular = np.asarray(last.bijection.triangular, float)
    scale = np.linalg.norm(triangular, axis=1)
    alone = _standardisation(loc, scale)
    apart = Chain([*first, alone]) if first else alone
    return apart, np.linalg.solve(triangular, np.diag(scale))


def _in_float64(
    function: Callable[..., Any], bijection: AbstractBijection, rows: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    mapped, log_det = np.empty(rows.shape), np.empty(len(rows))
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            mapped[part], log_det[part] = function(bijection, np.asarray(rows[part], np.float64))
    return mapped, log_det


@eqx.filter_jit
def _transform_rows(
    bijection: AbstractBijection, rows: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    return jax.vmap(bijection.transform_and_log_det)(rows)


@eqx.filter_jit
def _invert_rows(
    bijection: AbstractBijection, rows: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    return jax.vmap(bijection.inverse_and_log_det)(rows)


def _standardisation(
    mean: Float[np.ndarray, " d"], scale: Float[np.ndarray, " d"]
) -> AbstractBijection:
    # flowjax would round the arrays to float32 and keep an inverse softplus of the scale.
    affine = Affine(np.zeros(len(mean)), np.ones(len(mean)))
    return Invert(eqx.tree_at(lambda it: (it.loc, it.scale), affine, (mean, scale)))


def _whitening(
    mean: Float[np.ndarray, " d"], cholesky: Float[np.ndarray, "d d"]
) -> AbstractBijection:
    affine = TriangularAffine(np.zeros(len(mean)), jnp.eye(len(mean)))
    return Invert(eqx.tree_at(lambda it: (it.loc, it.triangular), affine, (mean, cholesky)))


def _moments(
    X: Float[np.ndarray, "n d"], names: Sequence[str]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    mean, scale = X.mean(axis=0), X.std(axis=0)
    for name, deviation in zip(names, scale):
        if not 0 < deviation < np.inf:
            raise InputError(
                f"the table: column '{name}' has standard deviation {deviation:g}; "
                "drop it if it is constant, rescale it if it is not"
            )
    return mean, scale


def _correlation_cholesky(
    standardised: Float[np.ndarray, "n d"], names: Sequence[str]
) -> Float[np.ndarray, "d d"]:
    correlation = standardised.T @ standardised / len(standardised)
    eigenvalues, eigenvectors = np.linalg.eigh(correlation)
    if eigenvalues[0] < LEAST_EIGENVALUE:
        name = names[int(np.abs(eigenvectors[:, 0]).argmax())]
        raise InputError(
            f"the table: column '{name}' is a linear combination of other columns, so the table "
            "has no density and cannot be whitened; drop that column or add rows"
        )
    return np.linalg.cholesky(correlation)


def _fit_gaussianisation(X: Float[np.ndarray, "n d"], names: Sequence[str]) -> AbstractBijection:
    loc, scale, tail, skew = np.array([_fit_column(column) for column in X.T]).T.copy()
    bend = SinhArcsinh(loc, scale, tail, skew)
    mean, scale = _moments(to_model_units(bend, X)[0], names)
    return Chain([bend, _standardisation(mean, scale)])


def _fit_column(column: Float[np.ndarray, " n"]) -> SinhArcsinhParameters:
    """The sinh-arcsinh law where it earns its two more parameters, else the plain Gaussian."""
    shuffled = np.random.default_rng(0).permutation(column)
    held_out, rest = np.split(shuffled, [len(column) // 5])
    if len(held_out) == 0 or rest.min() == rest.max():
        return gaussian_parameters(column)
    gain = log_likelihood(fit_sinh_arcsinh(rest), held_out) - log_likelihood(
        gaussian_parameters(rest), held_out
    )
    if gain.mean() < LEAST_GAIN:
        return gaussian_parameters(column)
    return fit_sinh_arcsinh(column)
