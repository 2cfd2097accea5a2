"""A bound on the memory of a fit or of draws, made before they start, and what the machine has.

The bound is a sum of what can be large, in bytes, with n rows, d columns, C chains, an energy of
width w and depth l, p the numbers that one point needs with all gradients (`_per_point`), and q
those without, and k components at most:

    rows    n (80 d + 8 d) + n max(4 * 8 k, 2 * 4 w)       copies; EM, or the features of `polish`
    chains  4 p (2 C + 1024)                                 chains, proposals, batch of one step
    energy  20 * 4 (d w + (l - 1) w^2)                       its copies in training
            + 4 * 4 * 65 536 w + 4 q * 8192                  draws of `polish`, and of the flow

Of a large table, n is the sample and the rows of a chunk. n draws take 64 n d. The factors are
from above; docs/safe_stops.md has them beside what is taken. Memory of accelerators is not looked
at.
"""

import warnings

from tiltflow.data.errors import InputError
from tiltflow.data.machine import Machine, find_machine
from tiltflow.training.sizes import choose_sizes

MOST_CELLS = 20_000_000
"""Cells of the largest table that a fit holds as a whole; of a larger one it holds a sample."""
SAMPLE_ROWS = 100_000

LIBRARIES = 1_500_000_000
"""What a small fit takes: libraries, the compiler, its programs."""
BATCH, DRAWS_AT_ONCE, DRAWS = 1024, 8192, 65_536
FLOW_LAYERS, FLOW_WIDTH = 6, 64
CHUNK_ROWS = 100 * BATCH
"""Rows of a large table that are read for one chunk of steps."""
DRAW_BYTES = 64
"""Of a cell that is drawn: the draws, their copies in other units and on grids, and in columns."""
STATES = 20
"""Copies of an energy's parameters: optimiser, averages, gradients, earlier energies."""


def memory_bound(rows: int, dimension: int, **sizes: int | None) -> dict[str, int]:
    """Bytes that a fit takes at most, by what one would lower to lower them.

    `sizes` are those of `choose_sizes`, None where they follow the rows.
    """
    from tiltflow.models.gaussian_mixture import most_components  # heavy, and rarely needed

    chains, energy_width, energy_depth = choose_sizes(rows, **sizes)
    n, d, width = rows, dimension, energy_width
    components = most_components(dimension)
    point = 4 * _per_point(dimension, components, energy_width, energy_depth)
    drawn = 8 * (width + components * d + 2 * FLOW_WIDTH + _of_transformer(d) * d)
    parameters = d * width + (energy_depth - 1) * width**2
    return {
        "rows": n * 88 * d + n * max(4 * 8 * components, 2 * 4 * width),
        "chains": point * (2 * chains + BATCH),
        "energy_width": STATES * 4 * parameters + 4 * 4 * DRAWS * width + drawn * DRAWS_AT_ONCE,
        "libraries": LIBRARIES,
    }


def streams_rows(rows: int, dimension: int, **sizes: int | None) -> bool:
    """Whether a table is too large to be held as a whole, by itself or for this machine."""
    if rows * dimension > MOST_CELLS:
        return True
    machine = find_machine()
    if rows <= SAMPLE_ROWS or machine is None:
        return False
    return sum(memory_bound(rows, dimension, **sizes).values()) > machine.total


def check_memory(rows: int, dimension: int, **sizes: int | None) -> None:
    """Compare the bound with the machine: refuse what it never has, warn of what it has not now.

    Raises:
        InputError: it says how much of what would have to be lowered.
    """
    machine = find_machine()
    if machine is None:
        return
    parts = memory_bound(rows, dimension, **sizes)
    shares = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items())
    lower = max(("rows", "chains", "energy_width"), key=lambda name: parts[name])
    found = {"rows": rows, **choose_sizes(rows, **sizes)._asdict()}[lower]
    _compare(
        machine, sum(parts.values()), f"this fit ({shares})", f"lower {lower}, which is {found}"
    )


def check_memory_of_draws(draws: int, dimension: int) -> None:
    """The same for rows that are drawn and held until they are written.

    Raises:
        InputError: it says how many rows the machine has memory for.
    """
    machine = find_machine()
    if machine is not None:
        most = max(1, machine.available // (DRAW_BYTES * dimension))
        advice = f"draw at most {most} rows at a time, each time with another seed"
        _compare(machine, DRAW_BYTES * draws * dimension, f"{draws} draws", advice)


def _compare(machine: Machine, needed: int, what: str, advice: str) -> None:
    """Raise `InputError` where the machine never has as much, warn where it has not now."""
    if needed <= machine.available:
        return
    message = f"memory: {what} may take up to {needed / 1e9:.1f} GB, "
    if needed > machine.total:
        raise InputError(f"{message}the machine has {machine.total / 1e9:.1f} GB; {advice}")
    warnings.warn(
        f"{message}{machine.available / 1e9:.1f} GB are free; if it is killed, {advice}",
        RuntimeWarning,
        stacklevel=5,
    )


def _per_point(dimension: int, components: int, width: int, depth: int) -> int:
    """Numbers that one point needs in a step with gradients: energy, mixture, two flows."""
    flow = 4 * FLOW_LAYERS * (2 * FLOW_WIDTH + _of_transformer(dimension) * dimension)
    return 8 * depth * width + 2 * components * dimension + 2 * flow


def _of_transformer(dimension: int) -> int:
    """Parameters of a spline, or of an affine map, for each coordinate."""
    from tiltflow.models.flows import SPLINE_MAX_DIMENSION  # heavy, and rarely needed

    return 25 if dimension <= SPLINE_MAX_DIMENSION else 2
