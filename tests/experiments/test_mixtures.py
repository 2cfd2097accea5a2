"""The cases of the mixtures experiment: who is entered where, and what is printed and drawn."""

import math

import pytest

from tiltflow.data.targets import Target
from tiltflow.experiments import mixtures as module
from tiltflow.experiments.judged import broken
from tiltflow.experiments.problem import make_problem


def test_every_case_makes_its_target():
    for (kind, dimension), case in module.CASES.items():
        if dimension > 16:
            continue
        target = case.make_target()
        assert isinstance(target, Target)
        assert target.dimension == dimension
        assert len(target.weights) == (40 if kind == "forty" else 4)


@pytest.fixture
def lines(monkeypatch):
    """Cells that run nothing."""
    problem = make_problem(module.four(2), rows=400, seed=0)
    told = {"steps": 1, "evaluations": 1, "stopped": None, "seconds": 1.0, "acceptance_rate": 0.7}
    figures = {**broken(problem, "nothing was trained")._asdict(), **module.NO_CHAINS, **told}
    figures |= {"kl": 0.1, "weight_error_data": 0.01, "sliced_wasserstein_floor": 0.02}
    figures["weight_stderr"] = 0.003
    ran = []

    def run_cells(cells, out, *, quiet):
        ran.extend(
            cell.about | {"cell_seconds": 1.0, "figures": figures | {"kl": 0.1 + cell.seed}}
            for cell in cells
        )
        return ran

    monkeypatch.setattr(module, "run_cells", run_cells)
    return ran


def test_rivals_are_met_at_some_dimensions_and_the_balanced_method_everywhere(
    lines, tmp_path, capsys
):
    module.reproduce_mixtures(seeds=2, seed=0, quiet=True, out=tmp_path)
    by_case = {}
    for line in lines:
        by_case.setdefault(line["case"], set()).add((line["method"], line["setting"]))
    assert next(iter(by_case)) == "four, d = 2" and len(by_case) == 12
    methods = {case: {method for method, _ in found} for case, found in by_case.items()}
    assert all("balanced" in found for found in methods.values())
    assert [case for case, found in methods.items() if "pcd" in found] == [
        "four, d = 16",
        "four, d = 64",
        "warped, d = 16",
        "warped, d = 64",
        "forty, d = 2",
        "forty, d = 8",
    ]
    assert all({"flow", "floor"} <= found for found in methods.values())
    assert ("balanced", "product, base auto") in by_case["warped, d = 128"]
    assert "Gaussian mixture" in methods["warped, d = 128"]
    assert "Gaussian mixture" not in methods["four, d = 64"]
    printed = capsys.readouterr().out
    assert "judged to a standard error of 0.0030" in printed
    assert "four, d = 256: 2 seeds" in printed and "0.60 ± 0.71" in printed
    assert (tmp_path / "figure.png").stat().st_size < 300_000


def test_a_quick_run_is_one_case_in_the_plane(lines, tmp_path):
    module.reproduce_mixtures(seeds=1, seed=0, quiet=True, out=tmp_path, quick=True)
    assert {line["case"] for line in lines} == {"four, d = 2"}
    assert not any(math.isnan(line["figures"]["kl"]) for line in lines)
