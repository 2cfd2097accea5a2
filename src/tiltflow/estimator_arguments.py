"""The arguments of the estimator, checked before anything is computed, and as JSON has them."""

from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np
from sklearn.utils import check_random_state

from tiltflow.data.categories import declared_names
from tiltflow.data.errors import InputError
from tiltflow.data.settings import MOST_SEED, check_seed
from tiltflow.training.bases import BaseKind
from tiltflow.training.preprocess import PREPROCESSINGS


def check_arguments(estimator: Any) -> None:
    """Raise an `InputError` that names the first argument of `BalancedEBM` that cannot be."""
    choices = {"base": get_args(BaseKind), "preprocessing": ("auto", *PREPROCESSINGS)}
    for name, known in choices.items():
        found = getattr(estimator, name)
        if found not in known:
            raise InputError(f"{name}: {found!r} is not known; use {', '.join(known)}")
    for name, least in {"chains": 2, "energy_width": 1, "energy_depth": 1}.items():
        found = getattr(estimator, name)
        if found is None:
            continue
        _check_kind(name, found, Integral)
        if not found >= least:
            raise InputError(f"{name}: {found!r} is too small; give {least} or more")
    kinds = {"max_steps": Integral, "learning_rate": Real, "local_steps": Integral}
    for name, kind in kinds.items():
        found = getattr(estimator, name)
        if found is None:
            continue
        _check_kind(name, found, kind)
        if not found > 0:
            raise InputError(f"{name}: {found!r} is not positive")
    for name in ("validation_fraction", "contamination"):
        found = getattr(estimator, name)
        _check_kind(name, found, Real)
        if not 0 < found < 1:
            raise InputError(f"{name}: {found!r} is not between 0 and 1")
    _check_names("categorical_features", estimator.categorical_features)


def plain_arguments(estimator: Any) -> dict[str, Any]:
    """The checked arguments by name: NumPy's numbers as Python's own, names as a list of text.

    Searches over arrays give numbers of NumPy, which are neither in JSON nor of Python's types.
    """
    given = estimator.get_params(deep=False)
    numbers = {name: it.item() for name, it in given.items() if isinstance(it, np.generic)}
    names = given["categorical_features"]
    listed = None if names is None else list(declared_names(names))
    return {**given, **numbers, "categorical_features": listed}


def seed_of(random_state: Any, key: int | None = None) -> int:
    """The key, or where there is none a draw from `random_state`.

    Raises `InputError` where it is neither a seed, nor a generator, nor None.
    """
    if key is not None:
        check_seed("key", key)
        return int(key)
    try:
        state = check_random_state(random_state)
    except ValueError:
        raise InputError(
            f"random_state: found {random_state!r}; give a whole number from 0 to {MOST_SEED}, a "
            "numpy.random.RandomState, or None"
        ) from None
    return int(state.randint(2**31))


def _check_kind(name: str, found: Any, kind: type) -> None:
    if isinstance(found, bool) or not isinstance(found, kind):
        words = "a whole number" if kind is Integral else "a number"
        raise InputError(f"{name}: found {found!r}; give {words}")


def _check_names(name: str, found: Any) -> None:
    if found is None:
        return
    if isinstance(found, str):
        raise InputError(f"{name}: {found!r} is one text; give a list of names of columns")
    if not isinstance(found, Collection) or getattr(found, "ndim", 1) != 1:
        raise InputError(f"{name}: found {found!r}; give a list of names of columns")
