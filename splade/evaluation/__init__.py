"""Effectiveness of runs: metrics, comparisons, baselines and tables. Nothing here needs torch."""
