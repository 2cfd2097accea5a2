"""Kernels and mixtures on tables, against densities that are known."""

import numpy as np
import pytest
from scipy.stats import norm

from tiltflow.experiments.table_scores import BANDWIDTHS, kernel_scores, mixture_scores


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_both_are_near_the_truth_in_the_units_of_the_rows(scale):
    generator = np.random.default_rng(0)
    rest, test = (scale * generator.normal(size=(n, 1)) for n in (1500, 500))
    truth = norm(scale=scale).logpdf(test[:, 0]).mean()
    assert kernel_scores(rest, test).mean() == pytest.approx(truth, abs=0.03)
    assert mixture_scores(rest, test, 0).mean() == pytest.approx(truth, abs=0.02)


def test_the_bandwidth_is_the_best_when_a_row_is_left_out():
    """Beside the plain sum over all pairs; a row that helps itself would ask for the narrowest."""
    z = np.random.default_rng(0).normal(size=(60, 2))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    squared = ((z[:, None] - z) ** 2).sum(axis=-1)
    likelihoods = []
    for bandwidth in BANDWIDTHS:
        kernels = np.exp(-squared / (2 * bandwidth**2)) / bandwidth**2
        likelihoods.append(np.log(kernels.sum(axis=1) - kernels.diagonal() + 1e-300).sum())
    best = BANDWIDTHS[np.argmax(likelihoods)]
    assert best > BANDWIDTHS[0]
    kernels = np.exp(-squared[:1] / (2 * best**2)) / (2 * np.pi * best**2)
    assert kernel_scores(z, z[:1])[0] == pytest.approx(np.log(kernels.mean()), abs=1e-6)
