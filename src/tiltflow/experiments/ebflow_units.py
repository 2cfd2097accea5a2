"""The units in which denoising of images is published: logits divided by a smoothness.

    z = logit(x + u) / s,      noise N(0, sigma^2) on z

(Chao et al. 2023.) Denoising has the density of the noised images as its optimum, so that its
noise means something in its own units only: beside whitened pixels, noise of one would cost
d/2 (log 2 - 1/2) nats of any Gaussian; of MNIST's, in these units, it costs seven. What whitening
is there for, a start near the images, a first linear layer has as well.
"""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import Affine

from tiltflow.data.preprocessing import fit_preprocessing, to_model_units
from tiltflow.experiments.grey_images import ScaledImages
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.models.linear_layers import FullLinear

Architecture = Literal["fully connected", "convolutional"]

SMOOTHNESS: dict[Architecture, float] = {"fully connected": 0.5, "convolutional": 0.75}
NOISE: dict[Architecture, float] = {"fully connected": 1.0, "convolutional": 0.1}


def in_published_units(images: ScaledImages, architecture: Architecture) -> ScaledImages:
    """The images with logits divided by the smoothness, in place of the scaling they had."""
    (d,) = images.scaling.shape
    scale = np.full(d, 1 / SMOOTHNESS[architecture])
    return images._replace(scaling=Affine(np.zeros(d), scale))


def start_whitened(flow: EnergyFlow, images: ScaledImages) -> EnergyFlow:
    """The flow whose first layer whitens the training rows before it does what it did.

    One that does not begin with a dense layer stays as it is.
    """
    first = flow.layers[0]
    if not isinstance(first, FullLinear):
        return flow
    whiten = fit_preprocessing(to_model_units(images.preprocessing, images.train)[0], "whiten")
    (d,) = whiten.shape
    # An affine map, by where it takes the origin and the unit vectors.
    shift, *columns = to_model_units(whiten, np.concatenate([np.zeros((1, d)), np.eye(d)]))[0]
    matrix = jnp.asarray(np.stack(columns, axis=1) - shift[:, None])
    bias = first.weight @ jnp.asarray(shift) + first.bias
    return eqx.tree_at(
        lambda it: (it.layers[0].weight, it.layers[0].bias), flow, (first.weight @ matrix, bias)
    )
