"""What failed is told with the cell's names, and that nothing did."""

from tiltflow.experiments.failures import failures


def line(method, **figures):
    return {"case": "sine", "method": method, "setting": "", "seed": 1, "figures": figures}


def test_every_failure_has_a_line():
    lines = [
        line("likelihood", skipped=2, failed_rows=0, stopped=None),
        line("denoising", skipped=0, failed_rows=7, stopped="rows: no"),
        line("older"),
    ]
    assert failures(lines).splitlines() == [
        "sine, likelihood, seed 1: 2 steps were not finite and skipped",
        "sine, denoising, seed 1: 7 rows have no finite density",
        "sine, denoising, seed 1: stopped early, rows: no",
    ]
    assert failures(lines[2:]) == "no step was skipped, every density is finite"
