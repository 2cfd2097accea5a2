"""What is published of continuous flows on the five standard tables: figures and networks.

Negative log-likelihoods in nats, test rows, mean and standard deviation over three runs, and the
best networks of the tables: Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud (2019), their tables
of density estimation and of settings. Read in a digest of the paper and not checked against it.
"""

from typing import Literal, NamedTuple

TABLES = ("POWER", "GAS", "HEPMASS", "MINIBOONE", "BSDS300")

NEGATIVE_LOG_LIKELIHOODS: dict[str, tuple[tuple[float, float], ...]] = {
    "Real NVP": ((-0.17, 0.01), (-8.33, 0.14), (18.71, 0.02), (13.55, 0.49), (-153.28, 1.78)),
    "Glow": ((-0.17, 0.01), (-8.15, 0.40), (18.92, 0.08), (11.35, 0.07), (-155.07, 0.03)),
    "FFJORD": ((-0.46, 0.01), (-8.59, 0.12), (14.92, 0.08), (10.43, 0.04), (-157.40, 0.19)),
    "MADE": ((3.08, 0.03), (-3.56, 0.04), (20.98, 0.02), (15.59, 0.50), (-148.85, 0.28)),
    "MAF": ((-0.24, 0.01), (-10.08, 0.02), (17.70, 0.02), (11.75, 0.44), (-155.69, 0.28)),
    "TAN": ((-0.48, 0.01), (-11.19, 0.02), (15.12, 0.02), (11.01, 0.48), (-157.03, 0.07)),
    "MAF-DDSF": ((-0.62, 0.01), (-11.96, 0.33), (15.09, 0.40), (8.86, 0.15), (-157.73, 0.04)),
}


class Network(NamedTuple):
    """A stack of `flows` continuous flows of `layers` hidden layers, `times` d wide each."""

    activation: Literal["tanh", "softplus"]
    layers: int
    times: int
    flows: int
    batch_size: int


NETWORKS = {
    "POWER": Network("tanh", 3, 10, 5, 10_000),
    "GAS": Network("tanh", 3, 20, 5, 1000),
    "HEPMASS": Network("softplus", 2, 10, 10, 10_000),
    "MINIBOONE": Network("softplus", 2, 20, 1, 1000),
    "BSDS300": Network("softplus", 3, 20, 2, 10_000),
}
