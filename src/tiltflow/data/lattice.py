"""The φ⁴ chain: two phases on a line of d sites, with exact log Z and log-odds of the phases.

    p(x) = exp(−β U(x)) / Z,    x_0 = x_{d+1} = 0  (both ends are held),
    U(x) = (a d / 2) sum_{i=0..d} (x_{i+1} − x_i)² + sum_i [(1 − x_i²)² / 4 + b x_i] / (a d)

(Gabrié, Rotskoff, Vanden-Eijnden 2022; Grenioux, Durmus, Moulines, Gabrié 2023; the code is that
of github h2o64/slips, `phifour.py`.) The field b >= 0 favours the negative phase.

Exact figures come from the transfer matrix: the chain is integrated out site by site, by
Gauss-Legendre quadrature in the log domain, in float64 on the host.

Which points belong to a phase must be said. Points with a wall between the phases cost one wall,
about 19 nats at β = 20, however strong the field; so where the field is strong, nearly all points
whose *middle site* is positive have a wall and are not of the positive phase. Here a phase is
all the points whose middle sites, half of the chain, have its sign; `central=1` gives the sign of
the middle site alone. At d = 100, a = .1, β = 20 the log-odds of the negative phase are

    field b                 0     .025     .05      .075     .1
    half of the chain       0     7.792    15.570   23.321   31.026    exact
    middle site             0     7.792    15.567   22.027   23.401    exact
    Grenioux's code         0     7.503    14.993   22.453   29.869

The last row stands in github h2o64/slips, `benchmark_utils.py`, without its source. To 0.01 nats
it is a Laplace approximation at the two minima, U_+ − U_- plus log det of the Hessians instead of
half of it; with the half it is 7.820, 15.628, 23.414, 31.164.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.linalg import solveh_banded
from scipy.special import logsumexp

from tiltflow.data.errors import InputError


class PhiFourChain(eqx.Module):
    """The chain of `dimension` sites in the field b; `central` middle sites tell the phase.

    Raises:
        InputError: `central` is not from 1 to `dimension`.
    """

    field: Float[Array, ""]
    coupling: Float[Array, ""]
    inverse_temperature: Float[Array, ""]
    dimension: int = eqx.field(static=True)
    central: int = eqx.field(static=True)

    def __init__(
        self,
        field: float,
        dimension: int = 100,
        coupling: float = 0.1,
        inverse_temperature: float = 20.0,
        central: int | None = None,
    ):
        central = max(dimension // 2, 1) if central is None else central
        if not 1 <= central <= dimension:
            raise InputError(f"central: {central} of {dimension} sites; take 1 to {dimension}")
        self.field = jnp.asarray(field, float)
        self.coupling = jnp.asarray(coupling, float)
        self.inverse_temperature = jnp.asarray(inverse_temperature, float)
        self.dimension = dimension
        self.central = central

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Unnormalised log-density of one point, −β U(x), nats."""
        stiffness = self.coupling * self.dimension
        steps = jnp.diff(jnp.pad(x, 1))
        wells = (1 - x**2) ** 2 / 4 + self.field * x
        energy = stiffness / 2 * (steps**2).sum() + wells.sum() / stiffness
        return -self.inverse_temperature * energy

    def label(self, x: Float[Array, " d"]) -> Int[Array, ""]:
        """0 in the negative phase, 1 in the positive one, 2 where there is a wall between."""
        positive = x[central_sites(self)] > 0
        return jnp.where(positive.all(), 1, jnp.where(positive.any(), 2, 0))


class PhaseLogZ(NamedTuple):
    """Log of the integral of exp(−β U) over each phase and over all points, nats."""

    negative: float
    positive: float
    total: float


def central_sites(chain: PhiFourChain) -> slice:
    """The middle sites, whose signs tell the phase; one alone is number d // 2 from zero."""
    first = (chain.dimension - chain.central + 1) // 2
    return slice(first, first + chain.central)


def exact_log_z(chain: PhiFourChain) -> PhaseLogZ:
    """Log Z of both phases and of all points, by the transfer matrix; the error is below 1e-6.

    With v_i the factor of one site and K that of one bond, m_1 = K(0, ·) v and
    m_{i+1}(y) = v(y) ∫ K(x, y) m_i(x) dx; Z = ∫ K(x, 0) m_d(x) dx. For a phase, m_i is cut to
    its half-line at the middle sites.
    """
    field, beta = float(chain.field), float(chain.inverse_temperature)
    stiffness = float(chain.coupling) * chain.dimension
    nodes, log_weights = _nodes(stiffness, beta)
    site = log_weights - beta * ((1 - nodes**2) ** 2 / 4 + field * nodes) / stiffness
    bond = np.exp(-beta * stiffness / 2 * (nodes[:, None] - nodes) ** 2)
    end = -beta * stiffness / 2 * nodes**2
    allowed = np.stack([nodes < 0, nodes > 0, np.full(len(nodes), True)])
    cut = np.where(allowed, 0.0, -np.inf)
    middle = range(chain.dimension)[central_sites(chain)]

    message = np.tile(end + site, (3, 1))
    for i in range(chain.dimension):
        if i > 0:
            message = _log_product(bond, message) + site
        if i in middle:
            message = message + cut
    return PhaseLogZ(*np.asarray(logsumexp(message + end, axis=-1)).tolist())


def exact_log_odds(chain: PhiFourChain) -> float:
    """Log of the weight of the negative phase over that of the positive one, nats."""
    log_z = exact_log_z(chain)
    return log_z.negative - log_z.positive


def minima(chain: PhiFourChain) -> Float[np.ndarray, "2 d"]:
    """The points of highest density of the negative (row 0) and of the positive phase (row 1).

    By Newton's method, from −1 and +1 at all sites.

    Raises:
        InputError: field or coupling leave a phase without a minimum.
    """
    points = np.stack([_newton(chain, -1.0), _newton(chain, 1.0)])
    signs = np.sign(points[:, central_sites(chain)])
    if not np.array_equal(signs, np.full_like(signs, 1.0) * np.array([[-1.0], [1.0]])):
        raise InputError(
            f"chain: with field {float(chain.field):g} and coupling {float(chain.coupling):g} a "
            "phase has no minimum of its own; take a weaker field or coupling"
        )
    return points


def _newton(chain: PhiFourChain, start: float) -> Float[np.ndarray, " d"]:
    stiffness, field = float(chain.coupling) * chain.dimension, float(chain.field)
    x = np.full(chain.dimension, start)
    for _ in range(100):
        padded = np.pad(x, 1)
        gradient = stiffness * (2 * x - padded[:-2] - padded[2:])
        gradient += (x**3 - x + field) / stiffness
        diagonal = 2 * stiffness + (3 * x**2 - 1) / stiffness
        try:
            step = solveh_banded(
                np.stack([diagonal, np.full_like(x, -stiffness)]), gradient, lower=True
            )
        except np.linalg.LinAlgError:  # no minimum is near
            break
        x = x - step
        if np.abs(step).max() < 1e-12:
            return x
    return np.full(chain.dimension, np.nan)


def _log_product(
    bond: Float[np.ndarray, "n n"], message: Float[np.ndarray, "3 n"]
) -> Float[np.ndarray, "3 n"]:
    """Log of exp(message) times the symmetric bond, scaled so that no phase underflows."""
    largest = message.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(message - largest) @ bond) + largest


def _nodes(
    stiffness: float, beta: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Nodes and log-weights on both half-lines, so that the jump of a label falls on no node."""
    # The wells fall by 50 nats at the range's ends; four nodes for each width of a bond.
    width = np.sqrt(1 + np.sqrt(200 * stiffness / beta))
    count = max(100, int(np.ceil(4 * width * np.sqrt(beta * stiffness))))
    nodes, weights = np.polynomial.legendre.leggauss(count)
    nodes, log_weights = (nodes + 1) * width / 2, np.log(weights * width / 2)
    return np.concatenate([-nodes[::-1], nodes]), np.concatenate([log_weights[::-1], log_weights])
