"""Checks of settings that are numbers, made where they are given."""

import math
from numbers import Integral
from typing import Any

from tiltflow.data.errors import InputError

MOST_SEED = 2**32 - 1
"""What NumPy's and scikit-learn's generators take at most."""


def check_positive(**settings: int | float) -> None:
    """Refuse a setting that is not above zero, or has no end, by its name: `InputError`."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name}: found {value}; give a number above 0")


def check_share(**settings: int | float) -> None:
    """Refuse a setting that is not between 0 and 1, by its name: `InputError`."""
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name}: found {value}; give a number from 0 to 1")


def whole_number(name: str, value: Any) -> int:
    """The value as an int; refused where it is no whole number above zero: `InputError`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name}: found {value!r}; give a whole number, one or more")
    return int(value)


def check_seed(name: str, value: Any) -> None:
    """Refuse what is no seed, a whole number from 0 to `MOST_SEED`: `InputError`."""
    no_whole_number = isinstance(value, bool) or not isinstance(value, Integral)
    if no_whole_number or not 0 <= int(value) <= MOST_SEED:
        raise InputError(f"{name}: found {value!r}; give a whole number from 0 to {MOST_SEED}")
