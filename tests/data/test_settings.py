"""Settings that are numbers: what is refused, and by what name."""

import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.data.settings import (
    MOST_SEED,
    check_positive,
    check_seed,
    check_share,
    whole_number,
)


@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan"), float("inf")])
def test_what_is_not_above_zero_or_has_no_end_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"^width: found .*; give a number above 0$"):
        check_positive(depth=1, width=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"^kept: found .*; give a number from 0 to 1$"):
        check_share(ends=0.0, whole=1, kept=value)


@pytest.mark.parametrize("value", [-1, 2**32, 1.0, True, "1", None])
def test_what_is_no_seed_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"^--seed: found .*; give a whole number from 0 to 4294"):
        check_seed("--seed", value)


def test_others_pass():
    check_seed("key", 0)
    check_seed("key", np.int64(MOST_SEED))
    check_positive(least=5e-324, chains=1)
    check_share(none=0, all=1.0)


@pytest.mark.parametrize("value", [0, -3, 2.0, True, "5", None])
def test_what_is_no_count_is_refused_by_name(value):
    with pytest.raises(InputError, match=r"n: found .*; give a whole number, one or more"):
        whole_number("n", value)


def test_a_count_of_numpy_is_pythons_own():
    found = whole_number("n", np.int64(5))
    assert found == 5 and type(found) is int
