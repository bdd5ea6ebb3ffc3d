"""Effectiveness and costs of runs: metrics, comparisons, BEIR's protocol, sanity checks. Nothing here needs torch."""
