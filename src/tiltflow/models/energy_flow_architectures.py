"""The three energy flows of Chao et al. (2023), each on a standard normal.

    coupled           blocks x [linear, affine coupling, ActNorm], linear    tables, the plane
    fully connected   linear, smooth leaky ReLU, linear                      flat images
    convolutional     stages x [convolution, smooth leaky ReLU, convolution,
                      smooth leaky ReLU], each stage after the first at half
                      the size and four times the channels                   images

All take and give flat vectors; `training/maximum_likelihood.py` fits them.
"""

from typing import Literal

import jax
from flowjax.bijections import AbstractBijection
from flowjax.distributions import StandardNormal
from jaxtyping import PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.convolution import Convolution, Squeeze
from tiltflow.models.energy_flow import EnergyFlow
from tiltflow.models.flows import affine_coupling
from tiltflow.models.linear_layers import ActNorm, linear_layer
from tiltflow.models.smooth_leaky_relu import SmoothLeakyReLU


def coupled_energy_flow(
    key: PRNGKeyArray,
    dimension: int,
    *,
    blocks: int = 10,
    width: int = 64,
    linear: str = "full",
) -> EnergyFlow:
    """Affine couplings with a linear layer (of that kind) before each, and one at the end.

    Raises:
        InputError: `dimension` is one: nothing can be coupled; `linear` is no kind of layer.
    """
    if dimension < 2:
        raise InputError(f"dimension: found {dimension}; give at least 2 coordinates to couple")
    layers: list[AbstractBijection] = []
    for block_key in jax.random.split(key, blocks):
        linear_key, coupling_key = jax.random.split(block_key)
        layers += [
            linear_layer(linear, dimension, key=linear_key),
            affine_coupling(coupling_key, dimension, width=width),
            ActNorm(dimension),
        ]
    layers.append(linear_layer(linear, dimension, key=jax.random.fold_in(key, blocks)))
    return EnergyFlow(StandardNormal((dimension,)), layers)


def fully_connected_energy_flow(
    key: PRNGKeyArray, dimension: int, *, depth: int = 2, linear: str = "full"
) -> EnergyFlow:
    """`depth` dense linear layers with smooth leaky ReLUs between.

    Raises:
        InputError: `linear` is no kind of layer.
    """
    first, *others = jax.random.split(key, depth)
    layers: list[AbstractBijection] = [linear_layer(linear, dimension, key=first)]
    for each in others:
        layers += [SmoothLeakyReLU(dimension), linear_layer(linear, dimension, key=each)]
    return EnergyFlow(StandardNormal((dimension,)), layers)


def convolutional_energy_flow(
    key: PRNGKeyArray,
    image: tuple[int, int, int],
    *,
    stages: int = 3,
    size: int = 7,
    padding: Literal["circular", "zero"] = "circular",
) -> EnergyFlow:
    """Two convolutions in each stage, of kernel `size` or what the image (h, w, c) allows there.

    Raises:
        InputError: h or w cannot be halved so often, or the image is too large for zero padding.
    """
    height, width, channels = image
    dimension = height * width * channels
    shapes = [(height >> stage, width >> stage, channels * 4**stage) for stage in range(stages)]
    layers: list[AbstractBijection] = []
    for stage, shape in enumerate(shapes):
        if stage > 0:
            layers.append(Squeeze(shapes[stage - 1]))
        side = min(shape[:2])
        largest = min(size, side - 1 + side % 2)
        for half in range(2):
            each = jax.random.fold_in(key, 2 * stage + half)
            layers += [
                Convolution(shape, largest, padding=padding, key=each),
                SmoothLeakyReLU(dimension),
            ]
    return EnergyFlow(StandardNormal((dimension,)), layers)
