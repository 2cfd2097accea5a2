"""Grey images for experiments: MNIST, Fashion-MNIST and digits, shuffled, split, dequantised."""

from typing import NamedTuple

import numpy as np
from flowjax.bijections import AbstractBijection, Chain
from jaxtyping import Float
from sklearn import datasets

from tiltflow.data.dequantisation import dequantise
from tiltflow.data.errors import InputError
from tiltflow.data.idx import read_idx
from tiltflow.data.pixel_logit import PixelLogit
from tiltflow.data.public_tables import FOLDER as TABLES

FOLDER = TABLES.parent
# Data set and its folder there; file names are those of the official archives.
DATA = {"mnist": "mnist", "fashion-mnist": "fashion_mnist"}
FILES = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}


class GreyImages(NamedTuple):
    """Flat rows of pixels, dequantised: grey levels are whole numbers from 0 to `levels` - 1."""

    train: Float[np.ndarray, "n d"]
    held_out: Float[np.ndarray, "m d"]
    test: Float[np.ndarray, "t d"]
    shape: tuple[int, int]
    levels: int = 256


class ScaledImages(NamedTuple):
    """Rows of pixels, dequantised; the map from them to model units, and its two parts."""

    train: Float[np.ndarray, "n d"]
    held_out: Float[np.ndarray, "m d"]
    test: Float[np.ndarray, "t d"]
    shape: tuple[int, int]
    logit: PixelLogit
    scaling: AbstractBijection

    @property
    def preprocessing(self) -> AbstractBijection:
        """Logits, then their scaling."""
        return Chain([self.logit, self.scaling])


def load_digits(rows: int, held_out: int, test: int, *, seed: int) -> GreyImages:
    """The same of the 1797 digits of 8 x 8 pixels and 17 grey levels that scikit-learn brings.

    Raises:
        InputError: more are asked for.
    """
    generator = np.random.default_rng(seed)
    pixels = np.asarray(datasets.load_digits(return_X_y=True)[0], np.float64)
    count = rows + held_out + test
    if count > len(pixels):
        raise InputError(f"digits: there are {len(pixels)} for {count}; ask for fewer")
    chosen = pixels[generator.permutation(len(pixels))[:count]]
    spread = dequantise(generator, chosen, np.ones(chosen.shape[1]))
    train, others, last = np.split(spread, [rows, rows + held_out])
    return GreyImages(train, others, last, (8, 8), levels=17)


def load_grey_images(data: str, rows: int, held_out: int, test: int, *, seed: int) -> GreyImages:
    """So many images to train on, to hold out, and to test.

    Raises:
        InputError: a file is missing or damaged, or has fewer images than are asked for.
    """
    folder = FOLDER / DATA[data]
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is not there; put {' and '.join(FILES.values())} into it, or set "
            "TILTFLOW_DATA to a folder beside it"
        )
    generator = np.random.default_rng(seed)
    wanted = {"train": rows + held_out, "test": test}
    found, shape = {}, (0, 0)
    for part, name in FILES.items():
        images = read_idx(folder / name)
        if len(images) < wanted[part]:
            raise InputError(
                f"{folder / name}: has {len(images)} images for {wanted[part]}; fetch it anew"
            )
        shape = images.shape[1:]
        chosen = generator.permutation(len(images))[: wanted[part]]
        pixels = images[chosen].reshape(wanted[part], -1).astype(np.float64)
        found[part] = dequantise(generator, pixels, np.ones(pixels.shape[1]))
    train, others = np.split(found["train"], [rows])
    return GreyImages(train, others, found["test"], shape)
