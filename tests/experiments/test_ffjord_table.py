"""What the words about the bars of FFJORD in the plane say."""

from tiltflow.experiments.ffjord_table import COUPLING, FFJORD, RNODE, bars_met


def line(toy, method, kl, calls=None, own=None):
    figures = {"kl": kl, "calls": calls, "calls_training": calls, "kl_own_steps": own}
    return {"case": toy, "method": method, "figures": figures}


def test_bars_are_told_with_what_missed_them():
    lines = []
    for number, toy in enumerate("abcdef"):
        lines += [
            line(toy, FFJORD, 0.02 if number else 0.05, 100 if number else 101),
            line(toy, RNODE, 0.031 if number == 1 else 0.02, 25.000002, 0.02 - 0.004 * number),
            line(toy, COUPLING, 0.03),
        ]
    assert bars_met(lines) == [
        "FFJORD: KL at most 0.03: on 5 of 6 densities, not on a: missed",
        "FFJORD: at most 100 calls by the last training steps: on 5 of 6 densities, "
        "not on a: missed",
        "FFJORD: KL below coupling's: on 5 of 6 densities, not on a: met",
        "RNODE: at most 25 calls, which change KL by 0.01: on 2 of 6 densities, "
        "not on b, d, e, f: missed",
        "RNODE: KL at most 0.01 above FFJORD's: on 5 of 6 densities, not on b: missed",
    ]


def test_bars_are_of_the_mean_over_seeds_and_none_is_told_of_what_was_not_run():
    lines = [line("a", FFJORD, kl, 50) for kl in (0.01, 0.04)]
    assert bars_met(lines) == [
        "FFJORD: KL at most 0.03: on 1 of 1 densities: met",
        "FFJORD: at most 100 calls by the last training steps: on 1 of 1 densities: met",
    ]
    assert bars_met([line("a", COUPLING, 0.1)]) == []
