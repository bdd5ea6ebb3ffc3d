"""p-values equal scipy's."""

import numpy as np
import pytest
from scipy import stats

from splade.evaluation.significance import paired_t_test, randomisation_test


@pytest.mark.parametrize("seed", range(5))
def test_t_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(40), rng.random(40) + 0.1 * seed
    assert paired_t_test(b - a) == pytest.approx(stats.ttest_rel(b, a).pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_exact_randomisation(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.2, 0.5, 10)
    expected = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert randomisation_test(differences) == pytest.approx(expected.pvalue, abs=1e-12)


def test_sampled_randomisation_is_close_to_the_exact_one() -> None:
    differences = np.random.default_rng(3).normal(0.15, 0.5, 16)
    exact = randomisation_test(differences, n_samples=2**16)
    assert randomisation_test(differences, n_samples=20_000) == pytest.approx(exact, abs=0.015)
