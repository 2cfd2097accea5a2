"""What the gradient steps of flows and energies share: an optimiser, an average, a schedule.

Adam (Kingma, Ba 2015) on gradients of norm one at most (Pascanu, Mikolov, Bengio 2013); averages of
the parameters (Polyak, Juditsky 1992), here exponential; a cosine to zero (Loshchilov, Hutter
2017).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree


def flow_optimiser() -> optax.GradientTransformation:
    """Adam on clipped gradients, for every flow; the rate is the caller's."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())


def moving_average(
    average: PyTree, parameters: PyTree, count: Int[Array, ""], most: float
) -> PyTree:
    """The exponential moving average after step `count` (from 1), with decay `most` at the end."""
    # Early averages forget the start quickly (the usual warm-up of moving averages).
    decay = jnp.minimum(most, (1 + count) / (10 + count))
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, parameters)


def copy_arrays(tree: PyTree) -> PyTree:
    """A copy that survives the donation of the original."""
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, tree)


def relative_rates(first: int, steps: int, most: int) -> Float[np.ndarray, " steps"]:
    """Rates of `steps` steps from `first` on, of a run of `most`: a warm-up times a cosine to zero.

    The warm-up is linear and an eighth of the run; without it a good start is lost at once.
    """
    step = np.arange(first, first + steps)
    cosine = 0.5 * (1 + np.cos(np.pi * step / most))
    return cosine * np.minimum(1.0, 8 * (step + 1) / most)
