"""Checks of settings that are numbers, made where they are given."""

import math

from tiltflow.data.errors import InputError


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
