"""Convolutions of images as linear layers of a flow, and the squeeze that trades size for channels.

    y[i, j] = sum over a, b of  K[a, b]^T x[i + a - r, j + b - r] + bias,      k = 2 r + 1

An image of shape (h, w, c), channels last, goes through flowjax as one flat vector of h w c
numbers. A kernel of size 1 mixes channels only (Kingma, Dhariwal 2018), log|det| = h w log|det K|.
Beyond, with circular padding, the two-dimensional Fourier transform turns the layer into one c x c
matrix for each frequency: log|det| is their sum, and the inverse solves each (Hoogeboom, van den
Berg, Welling 2019). With zero padding nothing is diagonal: both take the dense matrix, (h w c)^3,
which is for small images, and only for evaluation where training needs no determinant.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.models.linear_layers import LinearLayer

MOST_DENSE = 1024
"""Numbers in an image above which the dense matrix of a zero-padded layer is refused."""


class Convolution(LinearLayer):
    """A k x k convolution that keeps the image's shape; at first a rotation of the channels."""

    shape: tuple[int, ...]
    kernel: Float[Array, "k k c c"]
    bias: Float[Array, " c"]
    image: tuple[int, int, int] = eqx.field(static=True)
    padding: Literal["circular", "zero"] = eqx.field(static=True)

    def __init__(
        self,
        image: tuple[int, int, int],
        size: int,
        *,
        padding: Literal["circular", "zero"] = "circular",
        key: PRNGKeyArray,
    ):
        """Of images (h, w, c), with an odd kernel `size` no larger than the image.

        Raises:
            InputError: `size` is even or too large; the image is too large for zero padding.
        """
        height, width, channels = image
        if size % 2 == 0 or not 1 <= size <= min(height, width):
            raise InputError(
                f"size: found {size}; give an odd number from 1 to {min(height, width)}"
            )
        numbers = height * width * channels
        if padding == "zero" and size > 1 and numbers > MOST_DENSE:
            raise InputError(
                f"padding: 'zero' needs a dense matrix of {numbers} rows, {MOST_DENSE} at most; "
                "take padding='circular'"
            )
        self.shape = (numbers,)
        centre = size // 2
        kernel = jnp.zeros((size, size, channels, channels))
        self.kernel = kernel.at[centre, centre].set(jax.random.orthogonal(key, channels))
        self.bias = jnp.zeros(channels)
        self.image = image
        self.padding = padding

    def transform(self, x: Any, condition: Any = None) -> Array:
        """The image convolved, flat."""
        return (self._convolve(x.reshape(self.image)) + self.bias).reshape(-1)

    def inverse(self, y: Any, condition: Any = None) -> Array:
        """The image whose convolution is y, flat."""
        y = y.reshape(self.image) - self.bias
        if self.kernel.shape[0] == 1:
            columns = jnp.linalg.solve(self.kernel[0, 0].T, y.reshape(-1, self.image[2]).T)
            return columns.T.reshape(-1)
        if self.padding == "zero":
            return jnp.linalg.solve(self._dense(), y.reshape(-1))
        spectrum = jnp.fft.fft2(y, axes=(0, 1))
        solved = jnp.linalg.solve(self._frequencies(), spectrum[..., None])[..., 0]
        return jnp.fft.ifft2(solved, axes=(0, 1)).real.reshape(-1)

    def log_abs_det(self) -> Array:
        """See the top of the file."""
        if self.kernel.shape[0] == 1:
            return self.image[0] * self.image[1] * jnp.linalg.slogdet(self.kernel[0, 0])[1]
        if self.padding == "zero":
            return jnp.linalg.slogdet(self._dense())[1]
        return jnp.linalg.slogdet(self._frequencies())[1].sum()

    def _convolve(self, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        around = self.kernel.shape[0] // 2
        mode = "wrap" if self.padding == "circular" else "constant"
        padded = jnp.pad(image, ((around, around), (around, around), (0, 0)), mode=mode)
        return jax.lax.conv_general_dilated(
            padded[None], self.kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]

    def _frequencies(self) -> Complex[Array, "h w c c"]:
        """For each frequency the matrix from the channels of x to those of y."""
        height, width, channels = self.image
        size = self.kernel.shape[0]
        offset = jnp.arange(size) - size // 2
        wide = jnp.zeros((height, width, channels, channels), self.kernel.dtype)
        wide = wide.at[(offset % height)[:, None], (offset % width)[None]].set(self.kernel)
        return jnp.swapaxes(jnp.conj(jnp.fft.fft2(wide, axes=(0, 1))), 2, 3)

    def _dense(self) -> Float[Array, "n n"]:
        (numbers,) = self.shape
        each = jnp.eye(numbers, dtype=self.kernel.dtype).reshape(numbers, *self.image)
        return jax.vmap(self._convolve)(each).reshape(numbers, numbers).T


class Squeeze(LinearLayer):
    """Every 2 x 2 block of pixels becomes one pixel of four times the channels: a permutation."""

    shape: tuple[int, ...]
    image: tuple[int, int, int] = eqx.field(static=True)

    def __init__(self, image: tuple[int, int, int]):
        """Of images (h, w, c), which become (h / 2, w / 2, 4 c).

        Raises:
            InputError: h or w is odd.
        """
        height, width, channels = image
        if height % 2 or width % 2:
            raise InputError(f"image: found {height} x {width}; give even height and width (pad)")
        self.shape = (height * width * channels,)
        self.image = image

    def transform(self, x: Any, condition: Any = None) -> Array:
        """The squeezed image, flat."""
        height, width, channels = self.image
        blocks = x.reshape(height // 2, 2, width // 2, 2, channels)
        return blocks.transpose(0, 2, 1, 3, 4).reshape(-1)

    def inverse(self, y: Any, condition: Any = None) -> Array:
        """The image before, flat."""
        height, width, channels = self.image
        blocks = y.reshape(height // 2, width // 2, 2, 2, channels)
        return blocks.transpose(0, 2, 1, 3, 4).reshape(-1)

    def log_abs_det(self) -> Array:
        """Zero."""
        return jnp.zeros(())
