"""Chains as an ArviZ `InferenceData`, for its tables and plots.

ArviZ keeps chains in front of draws; here draws come first, so the axes are swapped.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from tiltflow.data.errors import InputError


def to_inference_data(
    draws: Float[Array, "draws chains d"] | Float[np.ndarray, "draws chains d"],
    names: list[str],
    log_density: Float[Array, "draws chains"] | Float[np.ndarray, "draws chains"] | None = None,
) -> Any:
    """An `arviz.InferenceData`: a posterior variable for each name, of shape (chains, draws).

    `log_density` is stored as `lp` in `sample_stats`, its name in ArviZ's schema.

    Raises `InputError` if the names are not one for each coordinate, each once, and `ImportError`
    if ArviZ is not installed.
    """
    d = draws.shape[2]
    if len(names) != d or len(set(names)) != d:
        raise InputError(f"names: found {names} for {d} coordinates; give each its own name")
    try:
        with warnings.catch_warnings():
            # ArviZ 0.23 announces its successor whenever it is imported.
            warnings.simplefilter("ignore", FutureWarning)
            import arviz  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "to_inference_data needs ArviZ, which is not installed: pip install 'tiltflow[arviz]'"
        ) from error
    values = np.swapaxes(np.asarray(draws), 0, 1)
    stats = None if log_density is None else {"lp": np.swapaxes(np.asarray(log_density), 0, 1)}
    with warnings.catch_warnings():
        # Many short chains are as they should be here; ArviZ takes them for swapped axes.
        warnings.filterwarnings("ignore", "More chains", UserWarning)
        return arviz.from_dict(
            posterior={name: values[:, :, i] for i, name in enumerate(names)}, sample_stats=stats
        )
