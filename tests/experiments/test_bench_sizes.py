"""The benchmark of sizes: every line is a fit of those sizes, beside the first."""

import numpy as np

from tiltflow.experiments import bench_sizes as module
from tiltflow.experiments.bench_sizes import Edge, bench_sizes
from tiltflow.training.sizes import Sizes


def test_every_size_is_halved_and_doubled(monkeypatch, capsys):
    asked = []

    def fit(rows, fresh, seed, sizes):
        asked.append((seed, sizes))
        return np.full(len(fresh), float(sizes.energy_width)), "trusted", 1.0

    monkeypatch.setattr(module, "_fit", fit)
    bench_sizes(seed=5, quiet=True, edges=[Edge(200, 3, "four")])
    chosen = Sizes(256, 64, 3)
    assert asked == [
        (5, chosen),
        (6, chosen),
        (5, chosen._replace(energy_width=32)),
        (5, chosen._replace(energy_width=128)),
        (5, chosen._replace(chains=128)),
        (5, chosen._replace(chains=512)),
    ]
    printed = capsys.readouterr().out.splitlines()[-6:]
    assert "-32.0000 ± 0.0000" in printed[2] and "+64.0000 ± 0.0000" in printed[3]
    assert all("+0.0000 ± 0.0000" in printed[k] for k in (1, 4, 5))
