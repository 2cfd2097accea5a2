"""tiltflow: energy-based densities one can believe."""
