"""What a fit or a report was made with: versions of Python and of the packages that matter."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("tiltflow", "jax", "jaxlib", "equinox", "optax", "flowjax", "blackjax", "numpy")


def installed_versions() -> dict[str, str]:
    """The version of each, system and device; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    import jax  # here, because nothing else needs it

    return found | {
        "system": f"{platform.system()} {platform.machine()}",
        "device": jax.devices()[0].device_kind,
    }
