"""Estimate sum over the vocabulary of P(term in query) x P(term in document).

The first factor is measured on the queries data.flops_queries, the second on the index config.index_dir.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.flops", __doc__)
