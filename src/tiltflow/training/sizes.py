"""Sizes of the network and of the chains, as they follow from the table.

    chains         the power of two next to n, from 256 to 1024
    energy_width   64 below 1000 rows, 128 from there on

The gradient's error from n rows never falls below 1/√n of a row's spread, while that from the
chains averages out over steps: more chains than rows buy nothing. How much is lost by half and
won by twice each size is what `tiltflow bench sizes` prints.
"""

import math
from typing import NamedTuple

LEAST_CHAINS, MOST_CHAINS = 256, 1024
SMALL_TABLE = 1000
SMALL_WIDTH, WIDTH, DEPTH = 64, 128, 3


class Sizes(NamedTuple):
    """Chains, and units and number of the hidden layers of the energy."""

    chains: int
    energy_width: int
    energy_depth: int


def choose_sizes(
    rows: int,
    *,
    chains: int | None = None,
    energy_width: int | None = None,
    energy_depth: int | None = None,
) -> Sizes:
    """The sizes for a table of so many rows; those that are given stay."""
    of_rows = 2 ** round(math.log2(max(rows, 1)))
    return Sizes(
        chains=chains or min(max(of_rows, LEAST_CHAINS), MOST_CHAINS),
        energy_width=energy_width or (SMALL_WIDTH if rows < SMALL_TABLE else WIDTH),
        energy_depth=energy_depth or DEPTH,
    )
