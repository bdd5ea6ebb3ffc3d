"""Compare the two evaluations that splade.beir_eval wrote to config.out_dir/before and config.out_dir/after.

Writes config.out_dir/summary.json: effectiveness and cost of the data set beir.dataset, before and after.
"""

from splade.config import run_task

if __name__ == "__main__":
    run_task("splade.tasks.adapt", __doc__)
