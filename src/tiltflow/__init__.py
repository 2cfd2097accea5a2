"""tiltflow: energy-based densities one can believe."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiltflow.estimator import BalancedEBM, load
    from tiltflow.sampler import sample
    from tiltflow.training.checkpoints import Checkpoints

    __version__: str

__all__ = ["BalancedEBM", "Checkpoints", "__version__", "load", "sample"]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): `tiltflow --help` must not wait for JAX."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tiltflow")
    if name in __all__:
        from importlib import import_module

        homes = {"sample": "sampler", "Checkpoints": "training.checkpoints"}
        return getattr(import_module(f"tiltflow.{homes.get(name, 'estimator')}"), name)
    raise AttributeError(f"module 'tiltflow' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
