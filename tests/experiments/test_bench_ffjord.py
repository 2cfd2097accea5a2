"""The comparison with torchdiffeq: its message, its table, and one loss on both sides."""

import importlib.util

import equinox as eqx
import jax
import pytest

from tiltflow.data.errors import InputError
from tiltflow.experiments import bench_ffjord
from tiltflow.experiments.bench_ffjord import ADJOINT, OURS, Turn, loss_difference, table_rows
from tiltflow.models.continuous import continuous_flows


@pytest.mark.parametrize("missing", [("torch",), ("torchdiffeq",), ("torch", "torchdiffeq")])
def test_without_its_peers_the_way_to_install_them_is_named(missing, monkeypatch):
    def find_spec(name):
        return None if name in missing else object()

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    expected = rf"^{', '.join(missing)}: not installed; pip install torch==2\.13\.0 torchdiffeq"
    with pytest.raises(InputError, match=expected):
        bench_ffjord.bench_ffjord(seed=0, quiet=True)


def test_the_table_holds_ratios_to_ours():
    turns = {OURS: Turn(20.0, 13.0, 13.0), ADJOINT: Turn(150.0, 14.0, 16.0)}
    rows = table_rows(100, 400, 2e-6, turns)
    assert rows[0] == ["100", "400", OURS, "20.0", "13", "13", "1.0", "2e-06"]
    assert rows[1] == ["100", "400", ADJOINT, "150.0", "14", "16", "7.5", "2e-06"]


def test_both_sides_solve_one_equation(monkeypatch):
    """Of a field that moves, whose weights PyTorch was given; another velocity is noticed."""
    pytest.importorskip("torchdiffeq")
    from tiltflow.experiments import torch_ffjord

    def last(flow):
        return continuous_flows(flow)[0].field.layers[-1].linear.weight

    weight = 0.3 * jax.random.normal(jax.random.key(1), (2, 64))
    flow = eqx.tree_at(last, bench_ffjord.new_flow(0), weight)
    rows = bench_ffjord.standard_rows(0)[:50]
    assert loss_difference(flow, rows, seed=0) < 1e-4

    class Wrong(torch_ffjord.TorchFlow):
        def velocity(self, s, x):
            return super().velocity(s, x) + 0.3

    monkeypatch.setattr(torch_ffjord, "TorchFlow", Wrong)
    with pytest.raises(ValueError, match="one equation"):
        loss_difference(flow, rows, seed=0)
