"""FFJORD in the plane: equal sizes, cells that are kept, what the bars' words say, the figure."""

import json
from dataclasses import replace

import equinox as eqx
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.experiments import ffjord_2d, ffjord_fit
from tiltflow.experiments.cells import FILE
from tiltflow.experiments.ffjord_2d import METHODS, TOYS, choose, make_cell, reproduce_ffjord_2d
from tiltflow.experiments.ffjord_fit import grid_of, parameters_of
from tiltflow.experiments.ffjord_table import MATCHING
from tiltflow.experiments.problem import exact_log_prob
from tiltflow.models.integration import Integration
from tiltflow.training.maximum_likelihood import FlowFit


def test_all_methods_have_as_many_parameters_within_5_per_cent(key):
    counts = [parameters_of(eqx.filter_eval_shape(each.new_flow, key)) for each in METHODS]
    assert max(counts) <= 1.05 * min(counts)


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_the_grid_holds_all_mass_of_a_density(toy):
    """To a thousandth of what the KL's bar is."""
    grid = grid_of(toy.half_side)
    mass = np.exp(exact_log_prob(toy.make(), grid.points) + grid.log_cell)
    assert mass.sum() == pytest.approx(1, abs=3e-5)


@pytest.fixture
def small(monkeypatch):
    """One density, and one method: a field of eight hidden units, trained without integrating."""
    sizes = {"WIDTHS": (8,), "LAYERS": 1, "WIDTH": 2, "ROWS": 400, "HELD_OUT": 100, "TEST": 576}
    for name, value in (sizes | {"CELLS": 24, "PIECE": 576, "CHUNKS": 2}).items():
        monkeypatch.setattr(ffjord_fit, name, value)
    monkeypatch.setattr(ffjord_2d, "TOYS", tuple(each for each in TOYS if each.name == "moons"))
    monkeypatch.setattr(ffjord_2d, "QUICK_SHARE", 0.002)
    method = next(each for each in METHODS if each.name == MATCHING)
    method = replace(method, integration=Integration(steps=2))
    monkeypatch.setattr(ffjord_2d, "METHODS", (method,))


def test_a_small_run_prints_its_table_and_keeps_its_cells(tmp_path, small, capsys):
    def run():
        reproduce_ffjord_2d(seeds=1, seed=0, quiet=True, out=tmp_path, quick=True)
        return capsys.readouterr().out

    printed = run()
    (line,) = [json.loads(each) for each in (tmp_path / FILE).read_text().splitlines()]
    figures = line["figures"]
    assert figures["mass"] == pytest.approx(1, abs=0.05)
    assert figures["kl_own_steps"] == pytest.approx(figures["kl"], abs=0.01)
    assert figures["calls"] > 6
    assert 0 < figures["effective_share"] < 1 and 0 < figures["acceptance"] < 1
    assert MATCHING in printed
    assert (tmp_path / "densities.png").exists()
    again = run()
    assert "all of them kept" in again
    assert again.splitlines()[1:] == printed.splitlines()[1:]


def test_what_failed_is_printed(tmp_path, small, monkeypatch, capsys):
    """Skipped steps, and a piece of the grid whose solve fails once the training is over."""

    def fit(key, flow, x, held_out, *, on_report, **options):
        for step in (1, 2):
            on_report({"step": step})
        return FlowFit(flow, 0.0, 2, skipped=3, stopped="held-out rows: no")

    def evaluate(model, x):
        log_prob = np.full(len(x), -3.0)
        return np.where(np.arange(len(x)) < 10 * (len(x) == 576), np.nan, log_prob), 13.0

    monkeypatch.setattr(ffjord_fit, "TEST", 500)
    monkeypatch.setattr(ffjord_fit, "fit_flow", fit)
    monkeypatch.setattr(ffjord_fit, "evaluate", evaluate)
    reproduce_ffjord_2d(seeds=1, seed=0, quiet=True, out=tmp_path, quick=True)
    printed = capsys.readouterr().out
    name = f"moons, {MATCHING}, shared, seed 0: "
    assert f"{name}3 steps were not finite and skipped" in printed
    assert f"{name}10 rows have no finite density" in printed
    assert f"{name}stopped early, held-out rows: no" in printed
    (line,) = [json.loads(each) for each in (tmp_path / FILE).read_text().splitlines()]
    assert line["figures"]["kl"] == "nan" and line["figures"]["nll"] == pytest.approx(3, abs=2)


def test_a_cell_is_known_by_what_decides_its_figures(tmp_path):
    method = METHODS[0]
    about = make_cell(TOYS[0], method, 0, tmp_path).about
    assert make_cell(TOYS[0], replace(method, guess=1.0), 0, tmp_path).about == about
    other = replace(method, integration=Integration(tolerance=1e-4))
    assert make_cell(TOYS[0], other, 0, tmp_path).about != about
    assert make_cell(TOYS[0], method, 1, tmp_path).about != about


def test_an_unknown_method_is_an_error_that_names_the_known_ones():
    with pytest.raises(InputError, match="'glow' is not known; use some of FFJORD, RNODE"):
        choose(("FFJORD", "glow"))
