"""Significance tests at the edges; their values are held against scipy in tests/oracle."""

import numpy as np
import pytest

from splade.errors import ConfigError
from splade.evaluation.significance import correct, paired_p_value, paired_t_test, randomisation_test


@pytest.mark.parametrize("test", ["t", "randomisation"])
def test_no_difference_shows_nothing(test) -> None:
    assert paired_p_value(np.zeros(10), test) == 1.0
    assert paired_p_value(np.zeros(0), test) == 1.0
    assert paired_p_value(np.array([0.3]), test) == 1.0


def test_same_difference_everywhere() -> None:
    assert paired_t_test(np.full(5, 0.1)) == 0.0
    assert randomisation_test(np.full(5, 0.1)) == 2 / 2**5


def test_randomisation_depends_on_its_seed_alone() -> None:
    differences = np.random.default_rng(0).normal(0.05, 0.3, 60)
    first = randomisation_test(differences, n_samples=500, seed=1)
    assert first == randomisation_test(differences, n_samples=500, seed=1)
    assert first != randomisation_test(differences, n_samples=500, seed=2)


def test_randomisation_is_never_zero() -> None:
    assert randomisation_test(np.full(100, 1.0), n_samples=999) == 1 / 1000


def test_corrections() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert correct(p_values, "bonferroni") == pytest.approx([0.04, 0.16, 0.12, 0.02])
    assert correct(p_values, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct(p_values, "none") == p_values
    assert correct([0.9, 0.8], "bonferroni") == [1.0, 1.0]
    assert correct([], "holm") == []


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="wilcoxon"):
        paired_p_value(np.ones(3), "wilcoxon")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="fdr"):
        correct([0.1], "fdr")  # type: ignore[arg-type]
