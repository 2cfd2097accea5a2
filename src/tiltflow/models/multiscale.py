"""Flows of images at several scales (Dinh et al. 2017), with continuous flows at every scale.

From the image to the base: continuous flows; then every 2 x 2 block of pixels becomes one pixel of
four times the channels; continuous flows again; then half of the channels are done, and the other
half goes on at the smaller scale (Grathwohl et al. 2019). On a standard normal of all numbers,
wherever they were left off, that is one bijection of flat images: at each scale a `ContinuousFlow`
or a permutation of the numbers that are still on their way, the others staying where they are.

`multiscale_flow` is a flowjax distribution of flat images (h w c,) in pixel units: dequantised
rows in, bits per dimension out (`data/pixel_logit.py`). Training: `fit_continuous_flow`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import AbstractBijection, Chain, Invert, Permute
from flowjax.distributions import StandardNormal, Transformed
from jaxtyping import Int, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.data.pixel_logit import PixelLogit
from tiltflow.models.continuous import ContinuousFlow
from tiltflow.models.convolutional_field import ConvolutionalField
from tiltflow.models.integration import Integration
from tiltflow.models.leading import Leading

Image = tuple[int, int, int]


def multiscale_flow(
    key: PRNGKeyArray,
    image: Image,
    *,
    scales: int = 2,
    flows: int = 1,
    channels: tuple[int, ...] = (32, 32),
    levels: int = 256,
    margin: float = 0.05,
    integration: Integration | None = None,
) -> Transformed:
    """The flow of images (h, w, c) of `levels` grey levels, flat and dequantised.

    `flows` continuous flows stand before and after every squeeze, and at the last scale, which has
    none; fields have hidden layers of `channels`. `margin` is that of the logit.

    Raises:
        InputError: h or w cannot be halved so often, or there is no scale.
    """
    height, width, depth = image
    if scales < 1 or height % 2 ** (scales - 1) or width % 2 ** (scales - 1):
        raise InputError(
            f"scales: found {scales} for images of {height} x {width}; give at least one, and "
            f"sides that can be halved {max(scales - 1, 1)} times (pad the images)"
        )
    numbers = height * width * depth

    def continuous(shape: Image, place: int) -> list[AbstractBijection]:
        keys = jax.random.split(jax.random.fold_in(key, place), flows)
        fields = [ConvolutionalField(shape, channels, key=each) for each in keys]
        moves = [ContinuousFlow(field, integration=integration) for field in fields]
        return [_of_first(move, numbers) for move in moves]

    # Each from the base to the data, as all of them, but the one next to the data first.
    steps: list[AbstractBijection] = [Invert(PixelLogit(numbers, levels=levels, margin=margin))]
    for scale in range(scales):
        shape = (height, width, depth)
        steps += continuous(shape, 2 * scale)
        if scale == scales - 1:
            break
        steps.append(_permute(squeeze_order(shape), numbers))
        height, width, depth = height // 2, width // 2, 4 * depth
        steps += continuous((height, width, depth), 2 * scale + 1)
        steps.append(_permute(halving_order((height, width, depth)), numbers))
        depth //= 2
    return Transformed(StandardNormal((numbers,)), Chain(steps[::-1]))


def squeeze_order(image: Image) -> Int[np.ndarray, " d"]:
    """Where each number of the squeezed image, flat, comes from: (h, w, c) to (h/2, w/2, 4c)."""
    height, width, channels = image
    places = np.arange(height * width * channels)
    blocks = places.reshape(height // 2, 2, width // 2, 2, channels)
    return blocks.transpose(0, 2, 1, 3, 4).ravel()


def halving_order(image: Image) -> Int[np.ndarray, " d"]:
    """The first half of the channels of every pixel first, as an image; then the other half."""
    height, width, channels = image
    places = np.arange(height * width * channels).reshape(height, width, channels)
    first, second = places[..., : channels // 2], places[..., channels // 2 :]
    return np.concatenate([first.ravel(), second.ravel()])


def _of_first(bijection: AbstractBijection, numbers: int) -> AbstractBijection:
    return bijection if bijection.shape == (numbers,) else Leading(bijection, numbers)


def _permute(order: Int[np.ndarray, " e"], numbers: int) -> AbstractBijection:
    return Invert(Permute(jnp.asarray(np.concatenate([order, np.arange(len(order), numbers)]))))
