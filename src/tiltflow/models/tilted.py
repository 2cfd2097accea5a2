"""The model of this library: a base density tilted by an energy.

    p(x) = base(x) exp(-E(x)) / Z,      Z = E_{x ~ base}[exp(-E(x))]

(Grenioux, Moulines, Gabrié 2023.) With one Gaussian as base this is the classical energy-based
model; with a flow as base, the paper's form.
"""

import equinox as eqx
from flowjax.distributions import AbstractDistribution
from jaxtyping import Array, Float

from tiltflow.models.energies import Energy


class TiltedEBM(eqx.Module):
    """A base density and an energy; `log_density` is unnormalised, log Z is kept elsewhere.

    The base is fixed (it is never trained with the energy). Both take one point.
    """

    base: AbstractDistribution
    energy: Energy

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Log base(x) - E(x) at one point, in nats: the log-density up to log Z."""
        return self.base.log_prob(x) - self.energy(x)
